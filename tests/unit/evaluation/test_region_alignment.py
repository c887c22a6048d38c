"""Regions find their own sentences where they are nearest; everything else is counted against us or not at all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pools import make_pool, unit

from vlm3d_ct.evaluation.metrics.alignment import (
    across_cases,
    confusion,
    region_alignment_accuracy,
    within_cases,
)
from vlm3d_ct.evaluation.regions import measure_alignment
from vlm3d_ct.seeding import random_stream

NAMES = ("a", "b", "c", "d")


def _arrays(pool):
    return pool.region_volume, pool.region_text, pool.region_mentions, pool.region_groups


def _naive_within(pool, case, region):
    """(correct, rivals) by the definition, for one region."""
    own = pool.region_volume[case, region] @ pool.region_text[case, region]
    rivals = [
        other
        for other in range(pool.region_mentions.shape[1])
        if pool.region_mentions[case, other] and pool.region_groups[case, other] != pool.region_groups[case, region]
    ]
    return all(pool.region_volume[case, region] @ pool.region_text[case, other] < own for other in rivals), len(rivals)


def _naive_across(pool, case, region):
    """(correct, wrong, beaten) by the definition."""
    query = pool.region_volume[case, region].astype(np.float64)
    right, wrong = [], []
    for other in range(len(pool)):
        if pool.region_mentions[other, region]:
            same = pool.region_groups[other, region] == pool.region_groups[case, region]
            (right if same else wrong).append(float(query @ pool.region_text[other, region].astype(np.float64)))
    beaten = sum(similarity < max(right) for similarity in wrong)
    return beaten == len(wrong), len(right), len(wrong), beaten


def _pool(num_cases=40, noise=1.5):
    stream = random_stream("groups", num_cases)
    return make_pool(num_cases, noise, region_groups=stream.integers(1, 30, (num_cases, 4)))


def test_outcomes_equal_their_definitions():
    pool = _pool()
    within, across = within_cases(*_arrays(pool)), across_cases(*_arrays(pool))
    for case in range(len(pool)):
        for region in range(4):
            mentioned = pool.region_mentions[case, region]
            correct, rivals = _naive_within(pool, case, region)
            assert within.counted[case, region] == (mentioned and rivals > 0)
            if within.counted[case, region]:
                assert within.correct[case, region] == correct
                assert within.chance[case, region] == 1 / (1 + rivals)
                assert (within.chosen[case, region] == region) == correct
            if mentioned:
                correct, right, wrong, beaten = _naive_across(pool, case, region)
                assert across.counted[case, region] == (wrong > 0)
                if wrong:
                    assert across.correct[case, region] == correct
                    assert across.chance[case, region] == pytest.approx(right / (right + wrong), abs=1e-9)
                    assert across.preference[case, region] == pytest.approx(beaten / wrong, abs=1e-9)


def test_the_mean_within_cases_is_the_alignment_accuracy():
    pool = _pool()
    expected = region_alignment_accuracy(pool.region_volume, pool.region_text, pool.region_mentions, pool.region_groups)
    found = measure_alignment(pool, NAMES, num_samples=0, seed=0)
    assert found.within.accuracy.estimate == pytest.approx(expected.accuracy, abs=1e-12)
    assert found.within.chance == pytest.approx(expected.chance, abs=1e-12)
    assert (found.within.num_cases, found.within.num_regions) == (expected.num_cases, expected.num_regions)


def test_an_encoder_that_knows_organs_only_is_right_within_and_lost_across_cases():
    stream = random_stream("organs")
    organs = unit(stream.normal(size=(4, 8)))
    everywhere = np.broadcast_to(organs, (30, 4, 8)).copy()
    pool = make_pool(30, region_volume=everywhere, region_text=everywhere, region_mentions=np.ones((30, 4), bool))
    found = measure_alignment(pool, NAMES, num_samples=0, seed=0)
    assert found.within.accuracy.estimate == 1
    assert found.across.accuracy.estimate == 0  # all tie
    np.testing.assert_array_equal(found.taken_for, np.eye(4))


def test_random_embeddings_reach_chance():
    stream = random_stream("chance")
    volume = unit(stream.normal(size=(800, 4, 8)))
    pool = make_pool(800, region_volume=volume, region_text=unit(stream.normal(size=volume.shape)))
    found = measure_alignment(pool, NAMES, num_samples=0, seed=0)
    assert found.within.accuracy.estimate == pytest.approx(found.within.chance, abs=0.04)
    assert found.across.preference.estimate == pytest.approx(0.5, abs=0.02)
    assert found.across.accuracy.estimate == pytest.approx(found.across.chance, abs=0.01)


@pytest.mark.parametrize("mentions", [0, 1])
def test_what_cannot_fail_is_not_counted(mentions):
    marked = np.zeros((5, 4), bool)
    marked[:, :mentions] = True
    pool = make_pool(5, region_mentions=marked, region_groups=np.ones((5, 4), np.int64))
    found = measure_alignment(pool, NAMES, num_samples=20, seed=0)
    for aligned in (found.within, found.across):
        assert aligned.num_regions == 0
        assert math.isnan(aligned.accuracy.estimate)
        assert math.isnan(aligned.accuracy.low)
        assert math.isnan(aligned.chance)
    assert np.isnan(found.taken_for).all()


def test_a_single_case_is_measured_within_but_not_across():
    pool = make_pool(1, region_mentions=np.ones((1, 4), bool))
    found = measure_alignment(pool, NAMES, num_samples=20, seed=0)
    assert found.within.num_regions == 4
    assert found.across.num_regions == 0


def test_intervals_hold_the_estimate_and_repeat():
    pool = _pool(60)
    first, second = (measure_alignment(pool, NAMES, num_samples=200, seed=3) for _ in range(2))
    for aligned in (first.within, first.across, *first.within_by_region.values()):
        assert aligned.accuracy.low <= aligned.accuracy.estimate <= aligned.accuracy.high
    assert first.within == second.within
    assert first.across_by_region == second.across_by_region


def test_rows_of_the_confusion_add_up_to_1():
    shares = confusion(within_cases(*_arrays(_pool())))
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (np.diag(shares) < 1).any()
