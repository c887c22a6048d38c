"""Laws of the scanner: texture and strength of noise, sharpness of kernels, padding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vlm3d_ct.phantom.acquisition import Acquisition, Kernel, draw_acquisition
from vlm3d_ct.phantom.noise import HU_RANGE, SHARPNESS, Scanner, grain, noise_map, sharpen
from vlm3d_ct.phantom.patient import draw_patient
from vlm3d_ct.seeding import random_stream

PATIENT = draw_patient(random_stream("noise patient"))
ACQUISITION = draw_acquisition(random_stream("noise acquisition"), PATIENT, "small")
NEIGHBOUR = {"soft": (0.6, 0.75), "standard": (0.55, 0.72), "lung": (-0.6, -0.4)}
"""Correlation of neighbouring pixels by kernel."""


def scanner(acquisition: Acquisition, *coordinates: int | str) -> Scanner:
    return Scanner(acquisition, PATIENT, random_stream("noise", *coordinates))


@pytest.mark.parametrize("kernel", ["soft", "standard", "lung"])
def test_grain_is_of_unit_variance_and_of_the_kernels_texture_up_to_its_border(kernel: Kernel) -> None:
    noise = np.stack([grain(random_stream("grain", i), (96, 80), kernel) for i in range(60)]).astype(float)
    assert abs(noise.mean()) < 0.02
    for part in (noise, noise[:, 0], noise[:, :, -1]):
        assert part.std() == pytest.approx(1, abs=0.04)
    for pair in (noise[:, 1:] * noise[:, :-1], noise[:, :, 1:] * noise[:, :, :-1]):
        assert NEIGHBOUR[kernel][0] < pair.mean() < NEIGHBOUR[kernel][1]
    assert abs((noise[1:] * noise[:-1]).mean()) < 0.05


def test_kernels_are_ordered_by_sharpness_and_keep_what_is_flat() -> None:
    assert SHARPNESS["soft"] < SHARPNESS["standard"] == 0 < SHARPNESS["lung"]
    flat = np.full((9, 11), -860, dtype=np.float32)
    edge = np.repeat(np.array([0, 0, 0, 0, 0, 100, 100, 100, 100], dtype=np.float32)[:, None], 7, 1)
    steps = {}
    for kernel, amount in SHARPNESS.items():
        np.testing.assert_allclose(sharpen(flat, amount), flat, rtol=1e-6)
        across = sharpen(edge, amount)[:, 3]
        steps[kernel] = across[5] - across[4]
        assert across[1:-1].mean() == pytest.approx(edge[1:-1, 3].mean())
    assert steps["soft"] < steps["standard"] == 100 < steps["lung"]
    assert sharpen(edge, SHARPNESS["lung"]).max() > 105  # an edge-enhancing kernel overshoots


def test_noise_is_stronger_in_the_centre_and_at_shoulders_most_with_the_arms_down() -> None:
    grid = ACQUISITION.grid
    by_slice, in_plane = noise_map(ACQUISITION, grid, replace(PATIENT, arms="up"))
    assert in_plane[48, 48] > 1.2 * in_plane[48, 2] > 0
    assert by_slice[-1] > 1.1 > by_slice[0] == 1
    assert noise_map(ACQUISITION, grid, replace(PATIENT, arms="down"))[0][-1] > 1.2 * by_slice[-1]
    inside = (grid.y**2 + grid.x**2)[0] < (ACQUISITION.view_xy_mm / 2) ** 2
    assert in_plane[inside].mean() == pytest.approx(ACQUISITION.noise_hu, rel=0.1)


def test_stored_noise_has_the_strength_that_is_stated() -> None:
    acquisition = replace(ACQUISITION, padding_hu=None, noise_hu=20.0)
    machine = scanner(acquisition, "strength")
    flat = np.zeros((96, 96), dtype=np.float32)
    stored = np.stack([machine.store(flat, 0) for _ in range(40)]).astype(float)
    _, in_plane = noise_map(acquisition, acquisition.grid, PATIENT)
    assert stored.std() == pytest.approx(float(np.sqrt((in_plane**2).mean())), rel=0.04)
    assert abs(stored.mean()) < 0.5


@pytest.mark.parametrize("padding", [None, -1024, -2048, -8192])
def test_padding_lies_outside_the_scanned_circle_and_nowhere_else(padding: int | None) -> None:
    acquisition = replace(ACQUISITION, padding_hu=padding)
    stored = scanner(acquisition, "padding").store(np.full((96, 96), 500, dtype=np.float32), 0)
    outside = acquisition.outside(acquisition.grid)
    assert outside.mean() == pytest.approx(1 - np.pi / 4, abs=0.02)
    if padding is not None:
        assert (stored[outside] == padding).all()
        assert (stored[~outside] > 300).all()
    else:
        assert (stored > 300).all()


def test_values_stay_within_what_a_scanner_stores() -> None:
    acquisition = replace(ACQUISITION, padding_hu=None)
    for hu in (-1050, 3060):
        stored = scanner(acquisition, "range").store(np.full((96, 96), hu, dtype=np.float32), 0)
        assert HU_RANGE[0] <= stored.min() <= stored.max() <= HU_RANGE[1]
