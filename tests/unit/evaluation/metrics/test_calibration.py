from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from vlm3d_ct.evaluation.metrics.calibration import brier, expected_calibration_error, reliability
from vlm3d_ct.evaluation.metrics.thresholds import tune_threshold
from vlm3d_ct.seeding import random_stream

RULES = ("youden", "corner")


def made_up(n: int, seed: int, rounded: bool) -> tuple[np.ndarray, np.ndarray]:
    stream = random_stream("calibration", seed)
    probabilities = stream.random(n)
    labels = stream.random(n) < probabilities
    return labels, np.round(probabilities, 1) if rounded else probabilities


def naive_bin(probability: float, bins: int) -> int:
    edges = np.linspace(0, 1, bins + 1).tolist()
    return next(b for b in range(bins) if probability <= edges[b + 1])


@given(st.integers(1, 60), st.integers(0, 10_000), st.booleans(), st.sampled_from([1, 5, 10]))
def test_calibration_equals_a_naive_count_and_scikit_learn(n: int, seed: int, rounded: bool, bins: int):
    labels, probabilities = made_up(n, seed, rounded)
    curve = reliability(labels, probabilities, bins)
    members = [[i for i in range(n) if naive_bin(float(probabilities[i]), bins) == b] for b in range(bins)]
    assert curve.count.tolist() == [len(cases) for cases in members]
    error = 0.0
    for b, cases in enumerate(members):
        if cases:
            share, mean = sum(labels[cases].tolist()) / len(cases), math.fsum(probabilities[cases]) / len(cases)
            assert curve.share_positive[b] == pytest.approx(share, abs=1e-9)
            assert curve.mean_probability[b] == pytest.approx(mean, abs=1e-9)
            error += len(cases) / n * abs(share - mean)
        else:
            assert math.isnan(curve.share_positive[b])
    assert expected_calibration_error(labels, probabilities, bins) == pytest.approx(error, abs=1e-9)
    assert brier(labels, probabilities) == pytest.approx(
        reference.brier_score_loss(labels, probabilities, pos_label=True), abs=1e-9
    )
    if labels.any() and not labels.all():
        share, mean = calibration_curve(labels, probabilities, n_bins=bins)
        np.testing.assert_allclose(curve.share_positive[curve.count > 0], share, rtol=0, atol=1e-9)
        np.testing.assert_allclose(curve.mean_probability[curve.count > 0], mean, rtol=0, atol=1e-9)


def test_calibration_of_nothing_is_nan_and_of_no_probability_refused():
    assert math.isnan(brier(np.zeros(0, bool), np.zeros(0)))
    assert math.isnan(expected_calibration_error(np.zeros(0, bool), np.zeros(0)))
    for wrong in (-0.1, 1.1, math.nan):
        for metric in (brier, expected_calibration_error):
            with pytest.raises(ValueError, match="no probability"):
                metric(np.array([True]), np.array([wrong]))


def test_one_who_says_the_truth_has_no_error():
    labels = np.array([True, False, True])
    assert expected_calibration_error(labels, labels.astype(float)) == 0.0
    assert brier(labels, labels.astype(float)) == 0.0
    assert brier(labels, 1.0 - labels) == 1.0


@given(st.integers(2, 40), st.integers(0, 10_000), st.booleans(), st.sampled_from(RULES))
def test_a_tuned_threshold_is_the_best_of_all(n: int, seed: int, rounded: bool, rule: str):
    labels, probabilities = made_up(n, seed, rounded)
    found = tune_threshold(labels, probabilities, rule)
    if labels.all() or not labels.any():
        assert math.isnan(found)
        return

    def cost(threshold: float) -> float:
        called = probabilities >= threshold
        recall, fall_out = float(called[labels].mean()), float(called[~labels].mean())
        return round(fall_out - recall if rule == "youden" else (1 - recall) ** 2 + fall_out**2, 9)

    costs = {threshold: cost(threshold) for threshold in probabilities.tolist()}
    assert found == max(threshold for threshold, value in costs.items() if value == min(costs.values()))
    if rule == "youden":
        fall_out, recall, _ = reference.roc_curve(labels, probabilities)
        assert -cost(found) == pytest.approx(max(recall - fall_out), abs=1e-9)


def test_thresholds_refuse_nan():
    with pytest.raises(ValueError, match="NaN"):
        tune_threshold(np.array([True, False]), np.array([0.5, math.nan]))
