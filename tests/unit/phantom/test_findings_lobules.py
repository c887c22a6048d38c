"""Lobules are the cells of a body-centred cubic lattice, bent a little, and look the same on every grid."""

from __future__ import annotations

import numpy as np
import pytest

from vlm3d_ct.phantom.canvas import Canvas, Points
from vlm3d_ct.phantom.findings import lobules as module
from vlm3d_ct.phantom.findings.lobules import Lobules, lobules
from vlm3d_ct.phantom.grid import Grid
from vlm3d_ct.seeding import random_stream

DIAMETER_MM = 16.0


def cube(size: int, spacing_mm: float) -> Points:
    canvas = Canvas(Grid(origin_mm=(-40, -40, -40), spacing_mm=(spacing_mm,) * 3, shape=(size,) * 3))
    return canvas.points(canvas.whole(), np.ones((size,) * 3, dtype=bool))


def cells(points: Points, stream: str = "lobules") -> Lobules:
    return lobules(points, random_stream(stream), DIAMETER_MM)


def test_without_bends_the_centre_is_the_nearest_lattice_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEND", 0.0)
    rng = random_stream("lattice")
    place = [rng.uniform(-3, 3, 200).astype(np.float32) for _ in range(3)]
    steps = np.arange(-5, 6)
    corners = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    lattice = np.concatenate([corners, corners + 0.5])
    distance = np.sort(np.linalg.norm(np.stack(place, 1)[:, None] - lattice, axis=2), axis=1)
    found = module._in_lattice((place[0], place[1], place[2]), 1.0, random_stream("values"))
    np.testing.assert_allclose(found.centre_mm, distance[:, 0], atol=1e-4)
    # a septum is where two lattice points are equally near, so it is at least half the difference away
    assert (found.septum_mm >= (distance[:, 1] - distance[:, 0]) / 2 - 1e-4).all()
    assert (found.septum_mm[distance[:, 1] - distance[:, 0] < 1e-3] < 2e-3).all()


def test_septa_are_at_zero_and_no_point_lies_far_from_one() -> None:
    found = cells(cube(60, 1.0))
    assert found.septum_mm.min() >= -1e-3
    assert found.septum_mm.max() < DIAMETER_MM / 2
    assert found.centre_mm.max() < DIAMETER_MM


def test_a_lobule_has_one_value_and_lobules_have_all_values() -> None:
    values = cells(cube(60, 1.0)).value
    assert 0 <= values.min() < 0.1
    assert 0.9 < values.max() < 1
    sizes = np.unique(values, return_counts=True)[1]
    whole = np.percentile(sizes, 85)  # most are cut by the cube
    assert whole == pytest.approx(DIAMETER_MM**3 / 2, rel=0.35)


def test_a_point_has_the_same_lobule_on_another_grid() -> None:
    fine, coarse = cells(cube(32, 1.0)), cells(cube(16, 2.0))
    for name in ("septum_mm", "centre_mm", "value"):
        every = getattr(fine, name).reshape(32, 32, 32)[::2, ::2, ::2].ravel()
        np.testing.assert_allclose(every, getattr(coarse, name), atol=1e-3)


def test_another_stream_gives_other_lobules() -> None:
    assert not np.allclose(cells(cube(20, 2.0)).septum_mm, cells(cube(20, 2.0), "other").septum_mm)


def test_no_points_no_lobules() -> None:
    canvas = Canvas(Grid(origin_mm=(0, 0, 0), spacing_mm=(1, 1, 1), shape=(2, 2, 2)))
    found = cells(canvas.points(canvas.whole(), np.zeros((2, 2, 2), dtype=bool)))
    assert len(found.septum_mm) == len(found.value) == 0
