"""Acquisitions keep to their ranges, which training and the hard test set do not share, and know no findings."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest

from vlm3d_ct.phantom.acquisition import HARD, TRAINING, Acquisition, Ranges, Size, draw_acquisition
from vlm3d_ct.phantom.patient import Patient, draw_patient
from vlm3d_ct.seeding import random_stream

PATIENTS = [draw_patient(random_stream("acquisition patient", index)) for index in range(40)]


def acquisitions(size: Size, *, hard: bool) -> list[Acquisition]:
    return [
        draw_acquisition(random_stream("acquisition", size, index), patient, size, hard=hard)
        for index, patient in enumerate(PATIENTS * 5)
    ]


def separate(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return max(one) < min(other) or max(other) < min(one)


def test_training_and_hard_ranges_are_disjoint() -> None:
    assert not set(TRAINING.phases) & set(HARD.phases)
    assert not set(TRAINING.orientations) & set(HARD.orientations)
    for name in ("view_xy_mm", "view_z_mm", "slice_mm", "jpeg_quality"):
        assert separate(getattr(TRAINING, name), getattr(HARD, name)), name
    for noise, other in zip(TRAINING.noise_hu.values(), HARD.noise_hu.values(), strict=True):
        assert not set(noise) & set(other)
        for one in noise.values():
            assert all(separate(one, levels) for levels in other.values())


@pytest.mark.parametrize("size", ["small", "full"])
def test_what_is_drawn_differs_between_training_and_hard_in_every_quantity(size: Size) -> None:
    training, hard = (acquisitions(size, hard=value) for value in (False, True))
    for name in ("view_xy_mm", "view_z_mm", "slice_thickness_mm", "noise_hu"):
        assert separate(*(tuple(getattr(a, name) for a in group) for group in (training, hard))), name
    for index in range(3):
        assert separate(*(tuple(a.spacing_mm[index] for a in group) for group in (training, hard)))
    for name in ("kernel", "orientation"):
        assert not {getattr(a, name) for a in training} & {getattr(a, name) for a in hard}, name


@pytest.mark.parametrize(("hard", "allowed"), [(False, TRAINING), (True, HARD)])
def test_full_size_acquisitions_keep_to_the_stated_ranges(hard: bool, allowed: Ranges) -> None:
    for acquisition in acquisitions("full", hard=hard):
        z_mm, y_mm, x_mm = acquisition.spacing_mm
        assert acquisition.shape[1:] == (512, 512)
        assert 0.6 - 1e-9 <= y_mm == x_mm <= 1.0
        assert min(abs(z_mm - step) for step in allowed.slice_mm) < 1e-9
        assert z_mm - 1e-9 <= acquisition.slice_thickness_mm <= 5.0
        low, high = allowed.noise_hu["full"][acquisition.kernel]
        assert low <= acquisition.noise_hu <= high
        assert allowed.view_z_mm[0] - z_mm <= acquisition.view_z_mm <= allowed.view_z_mm[1]


def test_the_small_size_keeps_its_shape_and_every_choice_occurs() -> None:
    drawn = acquisitions("small", hard=False)
    assert {a.shape for a in drawn} == {(32, 96, 96)}
    assert {a.planes_per_slice for a in drawn} == {1}
    assert {a.padding_hu for a in drawn} == {None, -1024, -2048, -8192}
    assert {a.orientation for a in drawn} == set(TRAINING.orientations)
    assert {a.kernel for a in drawn} == {"soft", "standard"}
    assert {a.table for a in drawn} == {False, True}


def test_the_lungs_are_in_every_field_of_view() -> None:
    for hard in (False, True):
        for acquisition, patient in zip(acquisitions("full", hard=hard), PATIENTS * 5, strict=True):
            _, y, x = acquisition.view_centre_mm
            radius = acquisition.view_xy_mm / 2
            angle = np.linspace(0, 2 * np.pi, 60)
            wall = patient.cavity_half_width * np.cos(angle) - x, patient.cavity_half_depth * np.sin(angle) - y
            assert np.hypot(*wall).max() < radius


def test_an_acquisition_is_drawn_without_the_findings() -> None:
    assert set(inspect.signature(draw_acquisition).parameters) == {"rng", "patient", "size", "hard", "header"}
    assert not {"finding", "findings", "lesions"} & set(Patient.__dataclass_fields__)


def test_a_blank_header_changes_nothing_but_the_header_and_the_axes() -> None:
    for index, patient in enumerate(PATIENTS):
        true, blank = (
            draw_acquisition(random_stream("blank", index), patient, "small", header=header)
            for header in ("true", "blank")
        )
        assert blank == replace(true, header="blank", orientation="LPS")
        assert blank.intercept_hu == (-8192 if blank.padding_hu == -8192 else -1024)


def test_the_grid_is_centred_on_the_field_of_view() -> None:
    acquisition = acquisitions("full", hard=False)[0]
    grid = acquisition.grid
    for axis, values in enumerate((grid.z, grid.y, grid.x)):
        assert values.mean() == pytest.approx(acquisition.view_centre_mm[axis], abs=1e-3)
        assert np.ptp(values) == pytest.approx(acquisition.spacing_mm[axis] * (acquisition.shape[axis] - 1), rel=1e-5)
