from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest
from scipy.stats import t as student

from vlm3d_ct.evaluation.metrics import bootstrap
from vlm3d_ct.evaluation.metrics.binary import auroc, auroc_weighted
from vlm3d_ct.evaluation.metrics.bootstrap import interval, paired_difference, resample
from vlm3d_ct.seeding import random_stream


def all_weights(patients: tuple[str, ...], count: int, seed: int) -> np.ndarray:
    return np.concatenate(list(resample(patients, count, seed)))


def test_patients_are_drawn_with_all_their_cases():
    patients = ("b", "a", "b", "c", "b")
    weights = all_weights(patients, 500, 0)
    assert weights.shape == (500, 5)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 0] == weights[:, 4]).all()
    per_patient = weights[:, [1, 0, 3]]
    assert (per_patient.sum(axis=1) == 3).all()
    np.testing.assert_allclose(per_patient.mean(axis=0), 1.0, atol=0.12)


def test_samples_depend_on_the_seed_and_not_on_blocks(monkeypatch: pytest.MonkeyPatch):
    patients = tuple(f"p{i // 2}" for i in range(20))
    whole = all_weights(patients, 50, 7)
    monkeypatch.setattr(bootstrap, "BLOCK_ELEMENTS", 60)
    np.testing.assert_array_equal(all_weights(patients, 50, 7), whole)
    assert not np.array_equal(all_weights(patients, 50, 8), whole)
    assert list(resample(patients, 0, 7)) == []
    assert list(resample((), 10, 7)) == []


def test_weights_are_what_repeated_cases_give():
    stream = random_stream("auroc")
    labels, scores = stream.random(30) < 0.4, np.round(stream.normal(size=30), 1)
    weights = all_weights(tuple(map(str, range(30))), 40, 0)
    values = auroc_weighted(labels, scores, weights)
    for row, value in zip(weights.astype(int), values, strict=True):
        assert value == pytest.approx(auroc(np.repeat(labels, row), np.repeat(scores, row)), abs=1e-12)


def test_a_share_gets_students_interval_on_the_logit_scale():
    samples = np.array([0.1, 0.3] * 50)
    found = interval(0.2, samples, num_patients=25)
    error = 0.1 * math.sqrt(25 / 24)
    reach = student.ppf(0.975, 24) * error / (0.2 * 0.8)
    for end, sign in ((found.low, -1), (found.high, 1)):
        assert math.log(end / (1 - end)) == pytest.approx(math.log(0.25) + sign * reach, abs=1e-9)
    assert found.estimate == 0.2
    spread = interval(0.98, np.array([0.5, 1.0] * 50), num_patients=25)
    assert 0 < spread.low < 0.98 < spread.high < 1


def test_a_difference_gets_students_interval():
    samples = np.array([-1.0, 3.0] * 50)
    found = interval(1.0, samples, 10, "difference")
    reach = student.ppf(0.975, 9) * 2.0 * math.sqrt(10 / 9)
    assert (found.low, found.high) == (pytest.approx(1 - reach, abs=1e-9), pytest.approx(1 + reach, abs=1e-9))


@pytest.mark.parametrize("num_patients", [2, 30, 1000])
def test_none_and_all_get_the_exact_binomial_bound(num_patients: int):
    none, everything = (interval(value, np.full(100, value), num_patients) for value in (0.0, 1.0))
    exact = binomtest(0, num_patients).proportion_ci(0.95, "exact").high
    assert (none.low, none.high) == (0.0, pytest.approx(exact, abs=1e-9))
    assert (everything.low, everything.high) == (pytest.approx(1 - exact, abs=1e-9), 1.0)


def test_f1_of_none_and_all_gets_the_bound_of_the_share_of_hits_among_hits_and_mistakes():
    for n in (3, 40):
        exact = binomtest(0, n).proportion_ci(0.95, "exact").high
        none, everything = (interval(value, np.full(100, value), n, "f1") for value in (0.0, 1.0))
        assert (none.low, none.high) == (0.0, pytest.approx(2 * exact / (1 + exact), abs=1e-9))
        assert (everything.low, everything.high) == (pytest.approx(2 * (1 - exact) / (2 - exact), abs=1e-9), 1.0)
    samples = random_stream("f1").random(100)
    assert interval(0.4, samples, 40, "f1") == interval(0.4, samples, 40)


def test_two_that_find_all_or_nothing_differ_by_no_more_than_their_patients_can_exclude():
    beyond = binomtest(0, 3).proportion_ci(0.95, "exact").high
    none, everything = np.zeros(100), np.ones(100)
    for value, samples in ((0.0, none), (1.0, everything)):
        same = paired_difference(value, value, samples, samples, 3)
        assert (same.interval.estimate, same.p_value) == (0.0, 1.0)
        assert (same.interval.low, same.interval.high) == (pytest.approx(-beyond), pytest.approx(beyond))
    better = paired_difference(1.0, 0.0, everything, none, 3)
    assert (better.interval.low, better.interval.high) == (pytest.approx(1 - 2 * beyond), 1.0)
    worse = paired_difference(0.0, 1.0, none, everything, 3)
    assert (worse.interval.low, worse.interval.high) == (-1.0, pytest.approx(2 * beyond - 1))
    assert better.p_value == worse.p_value == 0.25
    ranks = paired_difference(1.0, 1.0, everything, everything, 3, "rank")
    assert (ranks.interval.low, ranks.interval.high) == (0.0, 0.0)


def test_a_rank_without_bias_gets_the_percentiles():
    samples = np.arange(1001.0)
    found = interval(500.0, samples, 100, "rank")
    assert (found.estimate, found.low, found.high) == (500.0, pytest.approx(25.0), pytest.approx(975.0))
    shifted = interval(600.0, samples, 100, "rank")  # the samples lie too low
    assert shifted.low > found.low
    assert shifted.high > found.high


def test_undefined_samples_are_left_out_and_too_little_gives_no_interval():
    samples = np.concatenate([np.linspace(0.1, 0.9, 101), np.full(50, np.nan)])
    assert interval(0.5, samples, 40) == interval(0.5, samples[:101], 40)
    assert math.isnan(interval(0.5, samples[:19], 40).low)
    assert math.isnan(interval(0.5, samples, 1).low)
    assert math.isnan(interval(math.nan, samples, 40).high)
    with pytest.raises(ValueError, match=r"1\.2 is no share"):
        interval(1.2, samples, 40)


def test_a_paired_difference_forgets_what_both_share():
    stream = random_stream("pairs")
    shared = stream.normal(size=2000)
    better = paired_difference(0.12, 0.0, shared + 0.12 + 0.01 * stream.normal(size=2000), shared, 300)
    assert better.interval.low > 0.09
    assert better.interval.high < 0.15
    assert better.p_value < 1e-9


def test_a_run_against_itself_differs_by_exactly_nothing():
    samples = random_stream("self").random(500)
    same = paired_difference(0.37, 0.37, samples, samples, 50)
    assert (same.interval.estimate, same.interval.low, same.interval.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert math.isnan(paired_difference(math.nan, 0.0, samples, samples, 50).p_value)


def test_p_is_below_a_level_where_the_interval_of_that_level_leaves_out_0():
    stream = random_stream("p")
    for _ in range(200):
        samples = stream.normal(size=200)
        found = paired_difference(float(stream.normal(scale=3)), 0.0, samples, np.zeros(200), 30)
        outside = found.interval.low > 0 or found.interval.high < 0
        assert outside == (found.p_value < 0.05)


def test_few_patients_cannot_show_more_than_their_signs():
    assert paired_difference(0.5, 0.0, np.full(100, 0.5), np.zeros(100), 4).p_value == 1 / 8
