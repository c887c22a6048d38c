"""Splits: patients never cross, and nothing but the patient id decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vlm3d_ct.data.case import Case
from vlm3d_ct.data.split import patient_share, split_patients
from vlm3d_ct.errors import DataError


def _case(patient: int, scan: int = 1) -> Case:
    return Case(
        case_id=f"train_{patient}_a_{scan}",
        patient_id=f"train_{patient}",
        kind="volume",
        image_paths=(Path(f"train_{patient}_a_{scan}.nii.gz"),),
        mask_paths=(),
        mask_labels="regions",
        reports=(),
    )


CASES = [_case(patient, scan) for patient in range(2000) for scan in (1, 2)]


def test_patients_never_cross_and_the_share_is_met() -> None:
    training, validation = split_patients(CASES, 0.1)
    assert len(training) + len(validation) == len(CASES)
    assert not {case.patient_id for case in training} & {case.patient_id for case in validation}
    assert len(validation) == pytest.approx(400, abs=60)


def test_more_data_moves_no_patient_and_a_larger_share_only_adds() -> None:
    small = {case.case_id for case in split_patients(CASES[:500], 0.1)[1]}
    assert small == {case.case_id for case in split_patients(CASES, 0.1)[1] if case in CASES[:500]}
    assert small <= {case.case_id for case in split_patients(CASES[:500], 0.2)[1]}


def test_the_hash_is_fixed_for_all_machines() -> None:
    assert patient_share("train_1") == pytest.approx(0.9870074582811609)


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (1.0, len(CASES))])
def test_none_and_all(fraction: float, count: int) -> None:
    assert len(split_patients(CASES, fraction)[1]) == count


def test_a_declared_split_is_kept() -> None:
    cases = [replace(case, split="validation" if i < 3 else "train") for i, case in enumerate(CASES[::2][:10])]
    training, validation = split_patients(cases, 0.9)
    assert (training, validation) == (cases[3:], cases[:3])


def test_a_patient_declared_for_both_splits_is_refused() -> None:
    cases = [replace(_case(5, 1), split="train"), replace(_case(5, 2), split="validation")]
    with pytest.raises(DataError, match="train_5_a_1"):
        split_patients(cases, 0.1)


def test_of_a_training_split_alone_patients_are_held_out() -> None:
    """CT-RATE's ``train_fixed``, with ``valid_fixed`` kept for the test."""
    cases = [replace(case, split="train") for case in CASES]
    for side, expected in zip(split_patients(cases, 0.1), split_patients(CASES, 0.1), strict=True):
        assert [case.case_id for case in side] == [case.case_id for case in expected]


def test_a_validation_split_alone_is_not_trained_on() -> None:
    cases = [replace(case, split="validation") for case in CASES]
    assert split_patients(cases, 0.1) == ([], cases)
