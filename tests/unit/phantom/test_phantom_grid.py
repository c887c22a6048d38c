"""Laws of grids and of the depths of simple bodies."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import (
    Grid,
    across_outline,
    capsule_depth,
    ellipsoid_depth,
    polar,
    smoothstep,
    texture,
    unit_axes,
)
from vlm3d_ct.seeding import random_stream

GRID = Grid(origin_mm=(-30.0, -40.0, -50.0), spacing_mm=(2.0, 1.0, 1.5), shape=(31, 81, 67))


def test_ellipsoid_holds_its_volume_on_any_axes() -> None:
    half = (14.0, 20.0, 26.0)
    for axes in (None, unit_axes((0.3, -0.7, 0.5))):
        depth = ellipsoid_depth(GRID, (1.0, -2.0, 0.5), half, axes)
        measured = (depth > 0).sum() * math.prod(GRID.spacing_mm)
        assert measured == pytest.approx(4 / 3 * math.pi * math.prod(half), rel=0.02)


def test_unit_axes_are_orthonormal_and_start_with_the_normal() -> None:
    axes = unit_axes((2.0, -1.0, 0.5))
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.cross(axes[0], [2.0, -1.0, 0.5]), 0, atol=1e-12)


def test_capsule_depth_is_the_distance_to_the_segment() -> None:
    start, end, radius = (-10.0, 5.0, -20.0), (12.0, -8.0, 15.0), 6.0
    depth = capsule_depth(GRID, start, end, radius)
    points = np.linspace(start, end, 4001)
    for index in [(0, 0, 0), (15, 40, 33), (22, 30, 50), (30, 80, 66)]:
        place = np.array(GRID.origin_mm) + np.array(GRID.spacing_mm) * index
        nearest = np.linalg.norm(points - place, axis=1).min()
        assert depth[index] == pytest.approx(radius - nearest, abs=0.01)


def test_a_cropped_grid_keeps_its_millimetres() -> None:
    box = GRID.box((-11.0, -7.0, 3.0), (9.0, 20.0, 31.0))
    part = GRID.crop(box)
    for name in ("z", "y", "x"):
        whole = {"z": GRID.z[box[0]], "y": GRID.y[:, box[1]], "x": GRID.x[:, :, box[2]]}[name]
        np.testing.assert_allclose(getattr(part, name), whole, atol=1e-4)
    assert part.z.min() <= -11 + 2
    assert part.z.max() >= 9


def test_texture_is_a_function_of_place_not_of_the_grid() -> None:
    box = GRID.box((-8.0, -8.0, -8.0), (8.0, 8.0, 8.0))
    whole = texture(GRID, random_stream("t"), 20.0)
    part = texture(GRID.crop(box), random_stream("t"), 20.0)
    np.testing.assert_allclose(part, whole[box], atol=1e-3)
    assert abs(float(whole.mean())) < 0.3
    assert 0.7 < float(whole.std()) < 1.3


def test_painting_in_a_box_equals_painting_everywhere() -> None:
    boxed, everywhere = Canvas(GRID), Canvas(GRID)
    centre, half = (3.0, -5.0, 7.0), (12.0, 9.0, 15.0)
    boxed.ellipsoid(centre, half, 50.0, label=3)
    everywhere.paint(everywhere.whole(), ellipsoid_depth(GRID, centre, half), 50.0, label=3)
    np.testing.assert_array_equal(boxed.labels, everywhere.labels)
    np.testing.assert_allclose(boxed.hu, everywhere.hu, atol=0.01)


def test_a_thin_rod_is_painted_as_faintly_as_its_share_of_a_voxel() -> None:
    thick, thin = Canvas(GRID), Canvas(GRID)
    thick.rod([(0.0, -30.0, 0.0), (0.0, 30.0, 0.0)], 3.0, 0.0)
    thin.rod([(0.0, -30.0, 0.0), (0.0, 30.0, 0.0)], 0.3, 0.0)
    assert thick.hu.max() == pytest.approx(0.0, abs=1)
    assert thin.hu.max() < -500


def test_bodies_outside_the_grid_change_nothing() -> None:
    canvas = Canvas(GRID)
    canvas.ellipsoid((500.0, 0.0, 0.0), (10.0, 10.0, 10.0), 50.0, label=1)
    canvas.rod([(0.0, 500.0, 0.0), (0.0, 600.0, 0.0)], 5.0, 50.0, label=1)
    assert (canvas.hu == -1000).all()
    assert not canvas.labels.any()


@pytest.mark.parametrize("spacing", [0.8, 3.0])
def test_polar_depth_is_the_distance_to_the_outline(spacing: float) -> None:
    grid = Grid(origin_mm=(0.0, -60.0, -60.0), spacing_mm=(5.0, spacing, spacing), shape=(2, 150, 150))
    around = polar(grid, 5.0)
    circles = np.outer([30.0, 40.0], np.ones_like(around.turn)).astype(np.float32)
    depth = around.depth(circles, across_outline(circles[0]))
    away = np.hypot(grid.x, grid.y - 5)
    np.testing.assert_allclose(depth[0], 30 - away[0], atol=1e-3)
    np.testing.assert_allclose(depth[1], 40 - away[0], atol=1e-3)


def test_polar_directions_turn_from_the_back_over_the_left_to_the_front() -> None:
    around = polar(GRID, 0.0)
    for (y, x), turn in {(30, 0): 0.0, (0, 30): math.pi / 2, (0, -30): -math.pi / 2, (-30, 1): math.pi}.items():
        _, row, column = GRID.voxel((0, y, x))
        assert around.turn[around.bin[row, column]] == pytest.approx(turn, abs=0.04)


def test_near_an_oblique_outline_polar_depth_grows_by_a_millimetre_a_millimetre() -> None:
    grid = Grid(origin_mm=(0.0, -60.0, -90.0), spacing_mm=(5.0, 0.5, 0.5), shape=(1, 240, 360))
    around = polar(grid, 0.0)
    ellipse = ((np.sin(around.turn) / 80) ** 2 + (np.cos(around.turn) / 50) ** 2) ** -0.5
    depth = around.depth(ellipse[None].astype(np.float32), across_outline(ellipse.astype(np.float32)))[0]
    slope = np.hypot(*np.gradient(depth, 0.5))
    assert np.median(np.abs(slope[np.abs(depth) < 2] - 1)) < 0.1


def test_smoothstep_rises_from_zero_to_one() -> None:
    assert smoothstep(-5, 0, 10) == 0
    assert smoothstep(5, 0, 10) == pytest.approx(0.5)
    assert smoothstep(50, 0, 10) == 1
    assert (np.diff(smoothstep(np.linspace(0, 10, 50, dtype=np.float32), 0, 10)) >= 0).all()
