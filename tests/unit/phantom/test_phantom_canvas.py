"""What is painted is mixed in by the share of a voxel that it covers, and marks the voxels that it mostly covers."""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom.canvas import COARSE_EDGE_MM, Canvas
from vlm3d_ct.phantom.grid import Grid, ellipsoid_depth

CENTRE, RADIUS_MM = (10.0, 20.0, 20.0), 7.0


def blank(spacing_mm: float = 1.0) -> Canvas:
    size = round(40 / spacing_mm)
    return Canvas(Grid(origin_mm=(0, 0, 0), spacing_mm=(spacing_mm,) * 3, shape=(size // 2, size, size)))


def test_a_lesion_is_where_at_least_half_of_a_voxel_is_covered() -> None:
    canvas = blank()
    canvas.lesion = 3
    canvas.ellipsoid(CENTRE, (RADIUS_MM,) * 3, 0.0)
    np.testing.assert_array_equal(canvas.lesions == 3, canvas.hu >= -500)
    volume = (canvas.lesions == 3).sum()
    assert abs(volume / (4 / 3 * np.pi * RADIUS_MM**3) - 1) < 0.03


def test_healthy_anatomy_marks_no_lesion() -> None:
    canvas = blank()
    canvas.ellipsoid(CENTRE, (RADIUS_MM,) * 3, 0.0, label=8)
    assert not canvas.lesions.any()


def test_the_last_lesion_painted_wins_and_the_mask_limits_it() -> None:
    canvas = blank()
    canvas.lobes[:, :, 20:] = 4
    for number in (1, 2):
        canvas.lesion = number
        depth = ellipsoid_depth(canvas.grid, CENTRE, (RADIUS_MM,) * 3)
        canvas.paint(canvas.whole(), depth, 0.0, where=None if number == 1 else canvas.lobes == 4)
    assert set(np.unique(canvas.lesions[:, :, :20])) == {0, 1}
    assert set(np.unique(canvas.lesions[:, :, 20:])) == {0, 2}


def test_mixing_at_points_is_painting() -> None:
    painted, mixed = blank(), blank()
    painted.lesion = mixed.lesion = 1
    box = (slice(4, 18), slice(10, 34), slice(12, 30))
    depth = ellipsoid_depth(painted.grid.crop(box), CENTRE, (RADIUS_MM,) * 3)
    painted.paint(box, depth, 50.0)
    cover = np.clip(depth + np.float32(0.5), 0, 1)
    mixed.mix(mixed.points(box, cover > 0).index, cover[cover > 0], 50.0)
    np.testing.assert_allclose(mixed.hu, painted.hu, atol=1e-3)
    np.testing.assert_array_equal(mixed.lesions, painted.lesions)


def test_points_know_their_place_in_mm() -> None:
    canvas = blank(2.0)
    where = np.zeros(canvas.grid.shape, dtype=bool)
    where[3, 7, 11] = True
    box = (slice(1, 9), slice(2, 20), slice(4, 20))
    points = canvas.points(box, where[box])
    assert [int(index[0]) for index in points.index] == [3, 7, 11]
    assert (points.z[0], points.y[0], points.x[0]) == (6.0, 14.0, 22.0)


def test_lobes_are_told_apart() -> None:
    canvas = blank()
    canvas.lobes[:5], canvas.lobes[5:8], canvas.lobes[8:] = 1, 3, 5
    np.testing.assert_array_equal(canvas.in_lobes(canvas.whole(), (1, 5)), canvas.lobes != 3)


def test_bodies_are_enlarged_on_coarse_grids_only() -> None:
    fine, coarse = blank(1.0), blank(1.2 * COARSE_EDGE_MM)
    assert coarse.coarse
    assert not fine.coarse
    assert fine.visible((3.0, 3.0, 3.0)) == (3.0, 3.0, 3.0)
    assert fine.visible((0.2, 3.0, 0.2)) == (0.5, 3.0, 0.5)
    assert min(coarse.visible((0.2, 0.2, 0.2))) >= 0.9 * coarse.grid.edge_mm
