from __future__ import annotations

import math

import numpy as np
import pytest

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


def test_without_bias_the_ends_are_the_percentiles():
    samples = np.arange(1001.0)
    found = interval(500.0, samples)
    assert (found.estimate, found.low, found.high) == (500.0, pytest.approx(25.0), pytest.approx(975.0))
    shifted = interval(600.0, samples)  # the samples lie too low
    assert shifted.low > found.low
    assert shifted.high > found.high


def test_undefined_samples_are_left_out_and_too_few_give_no_interval():
    samples = np.concatenate([np.arange(101.0), np.full(50, np.nan)])
    assert interval(50.0, samples) == interval(50.0, samples[:101])
    assert math.isnan(interval(50.0, samples[:19]).low)
    assert math.isnan(interval(math.nan, samples).high)
    constant = interval(0.3, np.full(100, 0.3))
    assert constant.low == constant.high == 0.3


def test_a_paired_difference_forgets_what_both_share():
    stream = random_stream("pairs")
    shared = stream.normal(size=2000)
    better = paired_difference(0.12, 0.0, shared + 0.12 + 0.01 * stream.normal(size=2000), shared)
    assert better.interval.low > 0.09
    assert better.interval.high < 0.15
    assert better.p_value == pytest.approx(2 / 2001)
    same = paired_difference(0.0, 0.0, shared, shared)
    assert (same.interval.low, same.interval.high, same.p_value) == (0.0, 0.0, 1.0)
    assert math.isnan(paired_difference(math.nan, 0.0, shared, shared).p_value)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["share", "shared by patients", "auroc"])
def test_intervals_cover_the_truth(kind: str):
    """1,000 data sets of 200 cases, 400 samples each: 93 to 97 % of the intervals hold the truth."""
    stream = random_stream("coverage", kind)
    covered = 0
    truth = {"share": 0.15, "shared by patients": 0.3, "auroc": 0.5 * (1 + math.erf(0.5))}[kind]
    for number in range(1000):
        patients = tuple(f"p{i // 2 if kind == 'shared by patients' else i}" for i in range(200))
        weights = all_weights(patients, 400, number)
        if kind == "auroc":
            labels = stream.random(200) < 0.25
            scores = stream.normal(size=200) + labels
            found = interval(auroc(labels, scores), auroc_weighted(labels, scores, weights))
        else:
            hits = np.repeat(stream.random(100), 2) < truth if kind != "share" else stream.random(200) < truth
            found = interval(float(hits.mean()), weights @ hits / weights.sum(axis=1))
        covered += found.low <= truth <= found.high
    assert 930 <= covered <= 970
