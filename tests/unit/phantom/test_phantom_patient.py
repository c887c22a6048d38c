"""Laws of the patients: plausible, varied, and what depends on age, sex and build does so as the literature says."""

from __future__ import annotations

import numpy as np
import pytest

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.landmarks import HEART_AXES
from vlm3d_ct.phantom.patient import PHASE_SHARES, Patient, draw_patient
from vlm3d_ct.seeding import random_stream

COUNT = 600


@pytest.fixture(scope="module")
def patients() -> list[Patient]:
    return [draw_patient(random_stream("patients", index)) for index in range(COUNT)]


def column(patients: list[Patient], name: str) -> np.ndarray:
    return np.array([getattr(patient, name) for patient in patients], dtype=float)


def test_a_patient_is_a_function_of_the_stream() -> None:
    assert draw_patient(random_stream("one")) == draw_patient(random_stream("one"))
    assert draw_patient(random_stream("one")) != draw_patient(random_stream("two"))


def test_ages_and_builds_are_those_of_adults(patients: list[Patient]) -> None:
    age, index = column(patients, "age_years"), column(patients, "body_mass_index")
    assert age.min() >= 18
    assert age.max() <= 92
    assert 54 < age.mean() < 60
    assert 25 < index.mean() < 28
    assert {patient.habitus for patient in patients} == {"slim", "average", "obese"}
    assert {patient.sex for patient in patients} == {"female", "male"}
    assert 0.06 < np.mean([patient.arms == "down" for patient in patients]) < 0.2


def test_phases_have_their_shares_and_only_allowed_ones_occur(patients: list[Patient]) -> None:
    for phase, share in PHASE_SHARES.items():
        assert np.mean([patient.phase == phase for patient in patients]) == pytest.approx(share, abs=0.06)
    assert {draw_patient(random_stream(i), ("arterial",)).phase for i in range(9)} == {"arterial"}


def test_blood_is_alike_without_contrast_medium_and_the_bolus_is_in_the_arteries(patients: list[Patient]) -> None:
    for patient in patients:
        blood = patient.blood
        assert patient.enhanced == (patient.phase != "plain")
        assert patient.blood_hu == blood.left
        if patient.phase == "plain":
            assert len({blood.left, blood.right, blood.upper_veins, blood.lower_veins}) == 1
            assert 30 < blood.left < 55
        elif patient.phase == "venous":
            assert 0.75 * blood.left < blood.lower_veins < blood.left < 210
        else:
            assert blood.left > 250
            assert blood.lower_veins < 110


def test_fat_grows_with_body_mass_and_bone_and_muscle_fade_with_age(patients: list[Patient]) -> None:
    age, index = column(patients, "age_years"), column(patients, "body_mass_index")

    def correlation(name: str, other: np.ndarray) -> float:
        return float(np.corrcoef(column(patients, name), other)[0, 1])

    assert correlation("fat", index) > 0.8
    assert correlation("visceral_fat", index) > 0.7
    assert correlation("sponge_hu", age) < -0.6
    assert correlation("muscle_hu", age) < -0.4
    assert correlation("cartilage_calcium", age) > 0.7
    for name in ("lung_hu", "diaphragm_z", "cavity_half_width"):
        assert abs(correlation(name, age)) < 0.12


def test_spongy_bone_is_as_dense_as_published() -> None:
    # Jang et al., Radiology 291 (2019): mean 226 HU below 30 years, 89 HU at 90 and above
    assert tissue.sponge_hu(27.0) == pytest.approx(226, abs=5)
    assert tissue.sponge_hu(90.0) == pytest.approx(89, abs=5)


def test_the_healthy_heart_is_less_than_half_as_wide_as_the_thorax(patients: list[Patient]) -> None:
    for patient in patients:
        half_width = np.linalg.norm(HEART_AXES[:, 2] * patient.heart.half_mm)
        assert 0.35 < half_width / patient.cavity_half_width < 0.5
        grown = patient.heart.scaled(1.3)
        np.testing.assert_allclose(np.array(grown.half_mm) / patient.heart.half_mm, 1.3)
        assert grown.centre_mm[2] > patient.heart.centre_mm[2]
