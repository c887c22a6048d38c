"""Training and validation cases: patients never cross."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from vlm3d_ct.data.case import Case
from vlm3d_ct.log import say
from vlm3d_ct.volumes.faults import fault


def split_patients(cases: Iterable[Case], validation_fraction: float) -> tuple[list[Case], list[Case]]:
    """(training, validation) cases: by the split that the folder declares, else by a hash of the patient id.

    The hash depends on nothing but the id: growing data, another seed or another machine move no patient. Where the
    training side alone is declared, such as CT-RATE's ``train_fixed`` without ``valid_fixed``, the hash splits it.

    Raises:
        DataError: a patient is declared for both splits.
    """
    sides: tuple[list[Case], list[Case]] = ([], [])
    declared: dict[str, Case] = {}
    cases = list(cases)
    training_alone = {case.split for case in cases} - {None} == {"train"}
    if training_alone:
        say(f"all volumes are of the training split: {validation_fraction:.0%} of its patients are held out")
    for case in cases:
        if case.split is None or training_alone:
            sides[patient_share(case.patient_id) < validation_fraction].append(case)
            continue
        first = declared.setdefault(case.patient_id, case)
        if first.split != case.split:
            message = f"The patient is in both splits; the other file is {first.image_paths[0]}."
            remedy = "Move all scans of the patient to one split."
            raise fault("split-overlap", case.image_paths[0], "patient", case.patient_id, message, remedy)
        sides[case.split == "validation"].append(case)
    return sides


def patient_share(patient_id: str) -> float:
    """A number in [0, 1) that is uniform over patients and fixed for each."""
    digest = hashlib.blake2b(patient_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
