"""Laws of the trees within the lungs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from vlm3d_ct.phantom.airways import LOBAR_BRONCHI
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Grid
from vlm3d_ct.phantom.patient import Patient, draw_patient
from vlm3d_ct.phantom.pulmonary import AIRWAY_GENERATIONS, Tree, draw_tree, paint_tree, wall_mm
from vlm3d_ct.phantom.scan import SCOUT_SHAPE, grid_over
from vlm3d_ct.phantom.thorax import find_lungs
from vlm3d_ct.phantom.tubes import paint_tubes
from vlm3d_ct.seeding import random_stream

GENERATIONS = 8


@pytest.fixture(scope="module")
def patient() -> Patient:
    return draw_patient(random_stream("tree patient"))


@pytest.fixture(scope="module")
def scout(patient: Patient) -> Canvas:
    scout = Canvas(grid_over(patient, SCOUT_SHAPE))
    find_lungs(scout, patient)
    return scout


@pytest.fixture(scope="module")
def tree(scout: Canvas) -> Tree:
    return draw_tree(random_stream("tree"), scout, GENERATIONS)


def lobe_at(scout: Canvas, points: np.ndarray) -> np.ndarray:
    index = np.rint((points - scout.grid.origin_mm) / scout.grid.spacing_mm).astype(int)
    return scout.lobes[tuple(np.clip(index, 0, np.array(SCOUT_SHAPE) - 1).T)]


def test_the_tree_is_a_function_of_the_stream(scout: Canvas, tree: Tree) -> None:
    assert tree == draw_tree(random_stream("tree"), scout, GENERATIONS)
    assert tree != draw_tree(random_stream("another tree"), scout, GENERATIONS)


def test_every_branch_has_two_daughters(tree: Tree) -> None:
    for branches, generations in ((tree.airways, AIRWAY_GENERATIONS), (tree.arteries, GENERATIONS)):
        for lobe in range(1, 6):
            counts = np.bincount(branches.generation[branches.lobe == lobe]) / 2  # two tubes a branch
            np.testing.assert_allclose(counts, 2.0 ** np.arange(generations), rtol=0.05)


def test_branches_begin_where_their_parents_end_and_are_thinner(tree: Tree) -> None:
    for branches in (tree.airways, tree.arteries, tree.veins):
        child = np.flatnonzero(branches.parent >= 0)
        parent = branches.parent[child]
        np.testing.assert_allclose(branches.tubes.start_mm[child], branches.tubes.end_mm[parent], atol=1e-3)
        assert (branches.lobe[child] == branches.lobe[parent]).all()
        thicker = branches.tubes.start_radius_mm[child] / branches.tubes.start_radius_mm[parent]
        assert thicker.max() < 1 / 0.9  # a branch that supplies nearly all of its parent's tissue
        assert np.median(thicker) < 0.93
        assert (branches.tubes.end_radius_mm < branches.tubes.start_radius_mm).all()


def test_radii_follow_murrays_law(tree: Tree) -> None:
    first, second = (
        tree.arteries.tubes.start_radius_mm[tree.arteries.generation == generation][::2] for generation in (0, 1)
    )
    assert (second**3).sum() == pytest.approx((first**3).sum(), rel=0.01)


def test_tips_lie_in_their_lobe_and_reach_all_parts_of_it(scout: Canvas, tree: Tree) -> None:
    for branches in (tree.arteries, tree.veins):
        tips = np.setdiff1d(np.arange(len(branches)), branches.parent)
        assert (lobe_at(scout, branches.tubes.end_mm[tips]) == branches.lobe[tips]).mean() > 0.93
    for lobe in range(1, 6):
        voxels = np.argwhere(scout.lobes == lobe) * scout.grid.spacing_mm + scout.grid.origin_mm
        ends = tree.arteries.tubes.end_mm[tree.arteries.lobe == lobe]
        farthest = np.linalg.norm(voxels[::7, None] - ends[None], axis=-1).min(1)
        assert np.quantile(farthest, 0.95) < 22


def test_an_artery_runs_beside_every_bronchus_and_is_about_as_wide(tree: Tree) -> None:
    bronchi, arteries, count = tree.airways.tubes, tree.arteries.tubes, len(tree.airways)
    ends = slice(1, count, 2)  # the second of a branch's two tubes
    between = np.linalg.norm(bronchi.end_mm - arteries.end_mm[:count], axis=1)[ends]
    gap = between - bronchi.end_radius_mm[ends] - wall_mm(bronchi)[ends] - arteries.end_radius_mm[:count][ends]
    assert gap.min() > -0.2
    assert gap.max() < 2
    ratio = bronchi.start_radius_mm / arteries.start_radius_mm[:count]
    assert 0.6 < ratio.min() < ratio.max() < 1  # wider than its artery would be bronchiectasis


def test_paths_lead_from_the_lobar_bronchus_to_the_tips(tree: Tree) -> None:
    for lobe in range(1, 6):
        paths = tree.airways.paths(lobe)
        assert 12 <= len(paths) <= 2 ** (AIRWAY_GENERATIONS - 1)
        for path in paths:
            np.testing.assert_allclose(path[0], LOBAR_BRONCHI[lobe][-1], atol=1e-3)
            assert len(path) == 2 * AIRWAY_GENERATIONS + 1
            steps = [np.linalg.norm(np.subtract(end, start)) for start, end in pairwise(path)]
            assert max(steps) < 60


def test_vessels_and_walls_are_dense_and_lumens_are_air(patient: Patient, tree: Tree) -> None:
    def lung(spacing: float) -> Canvas:
        canvas = Canvas(Grid(origin_mm=(-30.0, -20.0, 45.0), spacing_mm=(spacing,) * 3, shape=(60, 60, 60)))
        canvas.labels[:] = 5
        canvas.hu[:] = -900
        return canvas

    canvas = lung(0.7)
    paint_tree(canvas, tree, patient)
    assert (canvas.hu > -200).mean() > 0.002
    assert (canvas.hu < -940).any()
    nothing = lung(0.7)
    paint_tubes(nothing, tree.airways.tubes, 0.0, within=(1,))
    assert (nothing.hu == -900).all()
