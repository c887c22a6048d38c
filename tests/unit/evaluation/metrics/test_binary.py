from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given
from hypothesis import strategies as st

from vlm3d_ct.evaluation.metrics.binary import (
    RATES,
    at_threshold,
    auroc,
    auroc_weighted,
    average_precision,
    average_precision_weighted,
    crg_score,
    rates_weighted,
)
from vlm3d_ct.seeding import random_stream

KINDS = ("continuous", "ties", "all equal", "two values", "infinite")


def made_up(n: int, seed: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    stream = random_stream("binary", seed)
    labels = stream.random(n) < stream.choice([0.0, 0.1, 0.5, 1.0])
    scores = stream.random(n) + 0.3 * labels
    if kind == "ties":
        scores = np.round(scores, 1)
    elif kind == "all equal":
        scores = np.full(n, 0.5)
    elif kind == "two values":
        scores = (scores > 0.5).astype(float)
    elif kind == "infinite":
        scores[: n // 3] = -np.inf
    return labels, scores


def naive_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    positive, negative = scores[labels].tolist(), scores[~labels].tolist()
    if not positive or not negative:
        return math.nan
    won = sum(1.0 if p > q else 0.5 if p == q else 0.0 for p in positive for q in negative)
    return won / (len(positive) * len(negative))


def naive_average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    if not labels.any():
        return math.nan
    precisions = []
    for own, label in zip(scores.tolist(), labels.tolist(), strict=True):
        if label:
            called = [other for score, other in zip(scores.tolist(), labels.tolist(), strict=True) if score >= own]
            precisions.append(sum(called) / len(called))
    return math.fsum(precisions) / len(precisions)


@given(st.integers(1, 40), st.integers(0, 10_000), st.sampled_from(KINDS))
def test_areas_equal_a_naive_count_and_scikit_learn(n: int, seed: int, kind: str):
    labels, scores = made_up(n, seed, kind)
    assert auroc(labels, scores) == pytest.approx(naive_auroc(labels, scores), abs=1e-9, nan_ok=True)
    found = average_precision(labels, scores)
    assert found == pytest.approx(naive_average_precision(labels, scores), abs=1e-9, nan_ok=True)
    finite = np.nan_to_num(scores, neginf=-1.0)
    if labels.any() and not labels.all():
        assert auroc(labels, scores) == pytest.approx(reference.roc_auc_score(labels, finite), abs=1e-9)
    if labels.any():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns where all are positive
            expected = reference.average_precision_score(labels, finite)
        assert found == pytest.approx(expected, abs=1e-9)


@given(st.integers(1, 25), st.integers(0, 10_000), st.sampled_from(KINDS))
def test_a_weighted_number_is_that_of_the_repeated_cases(n: int, seed: int, kind: str):
    labels, scores = made_up(n, seed, kind)
    weights = random_stream("repeats", seed).integers(0, 4, size=(4, n)).astype(np.float64)
    areas = auroc_weighted(labels, scores, weights), average_precision_weighted(labels, scores, weights)
    rates = rates_weighted(labels, scores, 0.5, weights)
    for row, times in enumerate(weights.astype(int)):
        many_labels, many_scores = np.repeat(labels, times), np.repeat(scores, times)
        assert areas[0][row] == pytest.approx(naive_auroc(many_labels, many_scores), abs=1e-9, nan_ok=True)
        assert areas[1][row] == pytest.approx(naive_average_precision(many_labels, many_scores), abs=1e-9, nan_ok=True)
        repeated = at_threshold(many_labels, many_scores, 0.5)
        for name in RATES:
            assert rates[name][row] == pytest.approx(getattr(repeated, name), abs=1e-9, nan_ok=True)


@given(st.integers(1, 40), st.integers(0, 10_000), st.sampled_from(KINDS[:4]), st.sampled_from([0.0, 0.5, 0.7, 2.0]))
def test_rates_at_a_threshold_equal_scikit_learn(n: int, seed: int, kind: str, threshold: float):
    labels, scores = made_up(n, seed, kind)
    found = at_threshold(labels, scores, threshold)
    called = np.array([score >= threshold for score in scores])
    expected = {
        "precision": reference.precision_score(labels, called, zero_division=np.nan),
        "recall": reference.recall_score(labels, called, zero_division=np.nan),
        "specificity": reference.recall_score(~labels, ~called, zero_division=np.nan),
        "f1": reference.f1_score(labels, called, zero_division=np.nan),
        "f1_weighted": reference.f1_score(labels, called, average="weighted", labels=np.unique(labels)),
        "accuracy": reference.accuracy_score(labels, called),
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-9, nan_ok=True), name


def test_known_values():
    labels = np.array([False, False, True, True])
    assert auroc(labels, np.array([0.1, 0.4, 0.35, 0.8])) == 0.75
    assert average_precision(labels, np.array([0.1, 0.4, 0.35, 0.8])) == pytest.approx((1 + 2 / 3) / 2)
    assert auroc(labels, np.array([0.0, 0.0, 1.0, 1.0])) == 1.0
    assert auroc(labels, np.full(4, 0.3)) == 0.5


def test_a_missing_class_is_nan_and_a_nan_score_is_refused():
    one = np.array([True])
    assert math.isnan(auroc(one, np.array([0.5])))
    assert average_precision(one, np.array([0.5])) == 1.0
    assert math.isnan(average_precision(~one, np.array([0.5])))
    assert math.isnan(auroc(np.zeros(0, bool), np.zeros(0)))
    for metric in (auroc, average_precision):
        with pytest.raises(ValueError, match="1 scores are NaN"):
            metric(np.array([True, False]), np.array([0.5, np.nan]))
    with pytest.raises(ValueError, match="1 scores are NaN"):
        at_threshold(np.array([True, False]), np.array([0.5, np.nan]), 0.5)


def test_no_threshold_gives_no_rates():
    rates = at_threshold(np.array([True, False]), np.array([0.5, 0.2]), math.nan)
    assert all(math.isnan(getattr(rates, name)) for name in RATES)


def test_crg_has_the_values_that_the_challenge_states():
    labels = random_stream("crg").random((50, 18)) < 0.2
    assert crg_score(labels, labels) == 1.0
    assert crg_score(labels, np.zeros_like(labels)) == pytest.approx(1 / 3, abs=1e-12)
    assert crg_score(labels, np.ones_like(labels)) == pytest.approx(1 / 3, abs=1e-12)
    assert crg_score(labels, ~labels) == pytest.approx(1 / 5, abs=1e-12)
    assert math.isnan(crg_score(np.zeros_like(labels), labels))
    assert math.isnan(crg_score(np.ones_like(labels), labels))


@given(st.integers(1, 20), st.integers(0, 1000))
def test_crg_equals_a_naive_count(n: int, seed: int):
    stream = random_stream("crg", seed)
    labels, predictions = stream.random((n, 18)) < 0.3, stream.random((n, 18)) < 0.4
    pairs = list(zip(labels.ravel().tolist(), predictions.ravel().tolist(), strict=True))
    x, a = len(pairs), sum(label for label, _ in pairs)
    tp = sum(label and called for label, called in pairs)
    fp = sum(called and not label for label, called in pairs)
    r, u = (x - a) / (2 * a), (x - a) / 2
    s = r * tp - r * (a - tp) - fp
    assert crg_score(labels, predictions) == pytest.approx(u / (2 * u - s), abs=1e-9)
