"""Laws of the healthy anatomy."""

from __future__ import annotations

import numpy as np
import pytest

from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Grid
from vlm3d_ct.phantom.scan import add_noise, draw_subject, grid_over, paint_healthy, paint_scan, render
from vlm3d_ct.seeding import random_stream

SHAPE = (32, 96, 96)
RIGHT_LOBES, LEFT_LOBES = (1, 2, 3), (4, 5)
HEART, SPINE, LIVER, SPLEEN, CHEST_WALL = 8, 15, 18, 19, 17


@pytest.fixture(scope="module")
def healthy() -> list[tuple[Grid, Canvas]]:
    painted = []
    for index in range(14):
        subject = draw_subject("anatomy", index, smallest_mm=18.0, count=0)
        grid = grid_over(subject.patient, SHAPE)
        painted.append((grid, paint_healthy(grid, subject)))
    return painted


def mean_place(grid: Grid, canvas: Canvas, *labels: int) -> np.ndarray:
    return np.argwhere(np.isin(canvas.labels, labels)).mean(0) * grid.spacing_mm


def test_every_patient_has_background_and_all_twenty_regions(healthy: list[tuple[Grid, Canvas]]) -> None:
    for _, canvas in healthy:
        assert np.unique(canvas.labels).tolist() == list(range(21))


def test_left_is_at_larger_x_and_the_heart_left_of_the_spine(healthy: list[tuple[Grid, Canvas]]) -> None:
    for grid, canvas in healthy:
        spine_x = mean_place(grid, canvas, SPINE)[2]
        assert mean_place(grid, canvas, *LEFT_LOBES)[2] > spine_x + 30
        assert mean_place(grid, canvas, *RIGHT_LOBES)[2] < spine_x - 30
        assert mean_place(grid, canvas, HEART)[2] > spine_x + 5
        assert mean_place(grid, canvas, LIVER)[2] < spine_x < mean_place(grid, canvas, SPLEEN)[2]


def test_head_is_at_larger_z_and_back_at_larger_y(healthy: list[tuple[Grid, Canvas]]) -> None:
    for grid, canvas in healthy:
        z = [mean_place(grid, canvas, lobe)[0] for lobe in range(6)]
        assert z[1] > z[2]
        assert z[1] > z[3]
        assert z[4] > z[5]
        assert mean_place(grid, canvas, LIVER)[0] < mean_place(grid, canvas, HEART)[0]
        assert mean_place(grid, canvas, SPINE)[1] > mean_place(grid, canvas, HEART)[1] + 40
        assert mean_place(grid, canvas, 2)[1] < mean_place(grid, canvas, 3)[1]


def test_tissues_have_their_intensity(healthy: list[tuple[Grid, Canvas]]) -> None:
    for _, canvas in healthy:
        for lobe in range(1, 6):
            assert -900 < np.median(canvas.hu[canvas.labels == lobe]) < -780
        assert 40 < np.median(canvas.hu[canvas.labels == LIVER]) < 130
        assert 20 < np.median(canvas.hu[canvas.labels == HEART]) < 260
        assert np.median(canvas.hu[canvas.labels == SPINE]) > 100
        assert canvas.hu[canvas.labels == 6].min() < -850
        assert np.median(canvas.hu[canvas.labels == 0]) < -900


def test_patients_differ_in_build_and_heart_size(healthy: list[tuple[Grid, Canvas]]) -> None:
    litres = [(canvas.labels == HEART).sum() * np.prod(grid.spacing_mm) / 1e6 for grid, canvas in healthy]
    trunks = [(canvas.labels == CHEST_WALL).sum() * np.prod(grid.spacing_mm) / 1e6 for grid, canvas in healthy]
    assert min(litres) > 0.2
    assert max(litres) < 0.75
    assert max(litres) / min(litres) > 1.3
    assert max(trunks) / min(trunks) > 1.3


def test_slabs_join_without_a_seam() -> None:
    subject = draw_subject("slabs", 1, smallest_mm=18.0, count=4)
    grid = grid_over(subject.patient, (24, 48, 48))
    whole = paint_scan(grid, subject)
    for start in (0, 9):
        rows = slice(start, start + 9)
        part = paint_scan(grid.crop((rows, slice(0, 48), slice(0, 48))), subject)
        np.testing.assert_allclose(part.hu, whole.hu[rows], atol=1.0)
        assert (part.labels != whole.labels[rows]).mean() < 1e-4
    (one, labels_one), (many, labels_many) = render(grid, subject), render(grid, subject, slab=9)
    assert (np.abs(one.astype(int) - many) > 1).mean() < 1e-4
    assert (labels_one != labels_many).mean() < 1e-4


def test_noise_has_the_stated_sigma_and_is_correlated_in_plane_only() -> None:
    hu = np.zeros((8, 96, 96), dtype=np.float32)
    noise = add_noise(hu, 20.0, random_stream("noise")).astype(float)
    assert noise.std() == pytest.approx(20, rel=0.03)
    assert abs(noise.mean()) < 1
    assert (noise[:, :, 1:] * noise[:, :, :-1]).mean() / 400 == pytest.approx(0.5, abs=0.05)
    assert abs((noise[1:] * noise[:-1]).mean()) / 400 < 0.05
