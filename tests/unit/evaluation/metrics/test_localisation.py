"""Pointing and Dice equal their definitions, on random and on degenerate maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score

from vlm3d_ct.evaluation.metrics.localisation import best_dice, dice_at, pointing_hit
from vlm3d_ct.seeding import random_stream


def _case(seed: int, levels: int):
    stream = random_stream("localisation", seed, levels)
    shape = tuple(int(n) for n in stream.integers(1, 6, 3))
    heat = stream.integers(0, levels, shape).astype(np.float32) / 7
    return heat, stream.random(shape) < stream.random()


@pytest.mark.parametrize("levels", [1, 2, 5, 1000])
@pytest.mark.parametrize("seed", range(20))
def test_dice_is_the_f1_of_the_voxels_and_the_best_is_the_best_of_all_thresholds(seed, levels):
    heat, lesion = _case(seed, levels)
    every = {float(value): dice_at(heat, lesion, float(value)) for value in np.unique(heat)}
    for threshold, dice in every.items():
        if lesion.any():
            expected = f1_score(lesion.ravel(), (heat >= threshold).ravel(), zero_division=np.nan)
            assert dice == pytest.approx(expected, abs=1e-12)
    best, threshold = best_dice(heat, lesion)
    if not lesion.any():
        assert math.isnan(best)
        assert math.isnan(threshold)
        return
    assert best == pytest.approx(max(every.values()), abs=1e-12)
    assert dice_at(heat, lesion, threshold) == pytest.approx(best, abs=1e-12)
    assert threshold == max(value for value, dice in every.items() if dice == pytest.approx(best, abs=1e-12))


@pytest.mark.parametrize("seed", range(20))
def test_a_hit_is_a_hottest_voxel_in_the_lesion_and_none_elsewhere(seed):
    heat, lesion = _case(seed, 4)
    hottest = [bool(inside) for value, inside in zip(heat.flat, lesion.flat, strict=True) if value == heat.max()]
    assert pointing_hit(heat, lesion) == all(hottest)


def test_the_lesion_itself_is_a_perfect_map():
    lesion = np.zeros((3, 4, 5), bool)
    lesion[1, 1:3, 2] = True
    heat = lesion.astype(np.float32)
    assert pointing_hit(heat, lesion)
    assert dice_at(heat, lesion, 0.5) == 1
    assert best_dice(heat, lesion) == (1, 1)
    assert best_dice(-heat, lesion) == (2 * 2 / (2 + 60), -1)


def test_what_is_not_a_number_is_never_a_hit():
    lesion = np.ones((1, 2, 2), bool)
    heat = np.array([[[0.5, np.nan], [1.0, 0.0]]], np.float32)
    assert not pointing_hit(heat, lesion)
    assert best_dice(heat, lesion)[0] == pytest.approx(6 / 7)
    assert best_dice(np.full((1, 2, 2), np.nan, np.float32), lesion)[0] == 0


def test_nothing_marked_and_nothing_there_is_undefined():
    nothing = np.zeros((1, 2, 2), bool)
    assert math.isnan(dice_at(np.zeros((1, 2, 2), np.float32), nothing, 1.0))
    assert dice_at(np.ones((1, 2, 2), np.float32), nothing, 1.0) == 0
