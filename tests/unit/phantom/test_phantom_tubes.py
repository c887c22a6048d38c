"""Laws of tubes: their depth is the distance to their surface, and a crowd of them is painted as each one alone is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Grid
from vlm3d_ct.phantom.tubes import Tubes, joined, near_tubes, paint_tubes, polyline, polylines

GRID = Grid(origin_mm=(-20.0, -25.0, -30.0), spacing_mm=(2.0, 1.0, 1.5), shape=(21, 51, 41))


def crowd(count: int) -> Tubes:
    rng = np.random.default_rng(5)
    start = rng.uniform(-24, 24, size=(count, 3)).astype(np.float32)
    return Tubes(
        start_mm=start,
        end_mm=start + rng.normal(size=(count, 3)).astype(np.float32) * 8,
        start_radius_mm=rng.uniform(1, 4, size=count).astype(np.float32),
        end_radius_mm=rng.uniform(1, 4, size=count).astype(np.float32),
    )


def depth_by_points(grid: Grid, tubes: Tubes) -> np.ndarray:
    """Depth in the deepest tube, with each tube as a dense row of balls."""
    places = np.stack(np.meshgrid(grid.z.ravel(), grid.y.ravel(), grid.x.ravel(), indexing="ij"), axis=-1)
    deepest = np.full(grid.shape, -np.inf)
    for start, end, first, last in zip(
        tubes.start_mm, tubes.end_mm, tubes.start_radius_mm, tubes.end_radius_mm, strict=True
    ):
        axis = (end - start) / max(float(np.linalg.norm(end - start)), 1e-9)
        length = float(np.linalg.norm(end - start))
        t = np.clip((places - start) @ axis, 0, length) / max(length, 1e-9)
        away = np.linalg.norm(places - (start + t[..., None] * (end - start)), axis=-1)
        deepest = np.maximum(deepest, first + t * (last - first) - away)
    return deepest


def test_depth_is_the_distance_to_the_surface_of_the_deepest_tube() -> None:
    tubes = crowd(12)
    near, expected = near_tubes(GRID, tubes), depth_by_points(GRID, tubes).ravel()
    found = np.full(expected.shape, -np.inf)
    found[near.voxel] = near.depth_mm
    inside = expected > -GRID.edge_mm / 2 + 0.5  # cut into pieces, a tube that widens is a little wider at the cuts
    assert inside.any()
    np.testing.assert_allclose(found[inside], expected[inside], atol=0.35)
    assert (expected[near.voxel] > -GRID.edge_mm / 2 - 0.35).all()


def test_the_chosen_tube_is_the_one_that_is_deepest() -> None:
    tubes = crowd(10)
    near = near_tubes(GRID, tubes)
    alone = np.stack([depth_by_points(GRID, tubes[index : index + 1]).ravel()[near.voxel] for index in range(10)])
    chosen = alone[near.tube, np.arange(len(near.tube))]
    assert (chosen > alone.max(0) - 0.5).all()


def test_a_crop_of_the_grid_sees_the_same_tubes() -> None:
    tubes, box = crowd(12), (slice(4, 15), slice(10, 40), slice(3, 30))
    whole, part = Canvas(GRID), Canvas(GRID.crop(box))
    paint_tubes(whole, tubes, 40.0, label=3)
    paint_tubes(part, tubes, 40.0, label=3)
    np.testing.assert_allclose(part.hu, whole.hu[box], atol=0.5)
    np.testing.assert_array_equal(part.labels, whole.labels[box])


def test_tubes_stay_within_the_regions_they_are_given() -> None:
    canvas = Canvas(GRID)
    canvas.labels[:, :, :20] = 2
    paint_tubes(canvas, crowd(12), 40.0, within=(2,))
    assert (canvas.hu[:, :, 20:] == -1000).all()
    assert (canvas.hu[:, :, :20] > -1000).any()


def test_a_thin_tube_is_as_faint_as_the_share_of_the_edge_that_it_covers() -> None:
    line = [(0.0, -20.0, 0.0), (0.0, 20.0, 0.0)]
    peaks = {}
    for radius, blur in ((3.0, 0.0), (0.3, 0.0), (0.5, 2.0)):
        canvas = Canvas(GRID)
        paint_tubes(canvas, polyline(line, radius), 0.0, blur_mm=blur)
        peaks[radius] = float(canvas.hu.max() + 1000) / 1000
    assert peaks[3.0] == pytest.approx(1, abs=0.01)
    assert peaks[0.3] == pytest.approx(math.pi * 0.3**2 * 0.8, abs=0.02)  # voxels of 1 mm
    assert peaks[0.5] == pytest.approx(math.pi * (0.5 / 2.0) ** 2 * 0.75, abs=0.02)


def test_each_tube_has_its_own_intensity() -> None:
    two = joined([polyline([(0, -20, -15), (0, 20, -15)], 4), polyline([(0, -20, 15), (0, 20, 15)], 4)])
    canvas = Canvas(GRID)
    paint_tubes(canvas, two, np.array([10.0, 300.0], dtype=np.float32))
    _, y, left = GRID.voxel((0, 0, -15))
    right = GRID.voxel((0, 0, 15))[2]
    assert canvas.hu[10, y, left] == pytest.approx(10)
    assert canvas.hu[10, y, right] == pytest.approx(300)


def test_polylines_are_many_polylines() -> None:
    points = np.random.default_rng(2).normal(size=(4, 5, 3)).astype(np.float32)
    together, apart = polylines(points, 2.0), joined([polyline(line, 2.0) for line in points])
    np.testing.assert_array_equal(together.start_mm, apart.start_mm)
    np.testing.assert_array_equal(together.end_mm, apart.end_mm)
    np.testing.assert_array_equal(together.start_radius_mm, apart.start_radius_mm)


def test_widening_changes_the_radius_only() -> None:
    tubes = crowd(3)
    wide = tubes.widened(1.5)
    np.testing.assert_allclose(wide.end_radius_mm - tubes.end_radius_mm, 1.5, atol=1e-5)
    np.testing.assert_array_equal(wide.start_mm, tubes.start_mm)


def test_tubes_outside_the_grid_are_near_nothing() -> None:
    assert not len(near_tubes(GRID, polyline([(500, 0, 0), (600, 0, 0)], 5)).voxel)
