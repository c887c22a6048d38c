"""Scores against labels of one class: areas under curves, and what a threshold makes of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

Weights = Float64[np.ndarray, "b n"]
"""How often each case counts, a row a sample; the rows of `bootstrap.resample`."""


@dataclass(frozen=True, kw_only=True)
class AtThreshold:
    """What a threshold makes of probabilities; fractions 0..1, NaN where nothing was divided.

    Attributes:
        threshold: a case is called positive where its probability is not below.
        precision: share of the cases called positive that are.
        recall: share of the positive cases that were called so (sensitivity).
        specificity: share of the negative cases that were called so.
        f1: 2 TP / (2 TP + FP + FN).
        f1_weighted: F1 of the positive and of the negative class, weighted by their share of the cases, as CT-CLIP
            reports it. With rare findings it is near 1 for one who never finds any: not comparable with ``f1``.
        accuracy: share of the cases called rightly; with rare findings high for one who never finds any.
    """

    threshold: float
    precision: float
    recall: float
    specificity: float
    f1: float
    f1_weighted: float
    accuracy: float


RATES = tuple(field.name for field in fields(AtThreshold) if field.name != "threshold")
"""Names of the numbers of `AtThreshold`."""


def auroc(labels: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> float:
    """Area under the ROC curve: how often a random positive case scores above a random negative one, ties half.

    NaN where a class is missing. It says nothing of whether the scores are probabilities, and with rare findings it can
    be high where most of what is called positive is not.

    Raises:
        ValueError: a score is NaN.
    """
    return float(auroc_weighted(labels, scores, np.ones((1, len(labels))))[0])


def auroc_weighted(
    labels: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"], weights: Float64[np.ndarray, "b n"]
) -> Float64[np.ndarray, " b"]:
    """`auroc` of each of b samples in which case i occurs ``weights[b, i]`` times.

    Raises:
        ValueError: a score is NaN.
    """
    positive, negative = _by_score(labels, scores, weights)
    below = np.cumsum(negative, axis=1) - negative
    won = (positive * (below + negative / 2)).sum(axis=1)
    return _divide(won, positive.sum(axis=1) * negative.sum(axis=1))


def average_precision(labels: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> float:
    """Mean over the positive cases of the precision among all cases that score no lower; no interpolation.

    As `sklearn.metrics.average_precision_score`; but NaN, not 0, without a positive case. Chance is the share of
    positive cases, so that it does not compare across pools of another prevalence.

    Raises:
        ValueError: a score is NaN.
    """
    return float(average_precision_weighted(labels, scores, np.ones((1, len(labels))))[0])


def average_precision_weighted(
    labels: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"], weights: Float64[np.ndarray, "b n"]
) -> Float64[np.ndarray, " b"]:
    """`average_precision` of each of b samples in which case i occurs ``weights[b, i]`` times.

    Raises:
        ValueError: a score is NaN.
    """
    positive, negative = (part[:, ::-1] for part in _by_score(labels, scores, weights))
    true, called = np.cumsum(positive, axis=1), np.cumsum(positive + negative, axis=1)
    precision = np.divide(true, called, out=np.zeros_like(true), where=called > 0)
    return _divide((positive * precision).sum(axis=1), positive.sum(axis=1))


def at_threshold(
    labels: Bool[np.ndarray, " n"], probabilities: Float[np.ndarray, " n"], threshold: float
) -> AtThreshold:
    """Precision, recall and so on where cases of at least ``threshold`` are called positive.

    All NaN where the threshold is NaN, as it is where none could be chosen.

    Raises:
        ValueError: a probability is NaN.
    """
    rates = rates_weighted(labels, probabilities, threshold, np.ones((1, len(labels))))
    return AtThreshold(threshold=threshold, **{name: float(values[0]) for name, values in rates.items()})


def rates_weighted(
    labels: Bool[np.ndarray, " n"],
    probabilities: Float[np.ndarray, " n"],
    threshold: float,
    weights: Float64[np.ndarray, "b n"],
) -> dict[str, Float64[np.ndarray, " b"]]:
    """The numbers of `at_threshold` for each of b samples in which case i occurs ``weights[b, i]`` times.

    Raises:
        ValueError: a probability is NaN.
    """
    _refuse_nan(probabilities)
    if math.isnan(threshold):
        return {name: np.full(len(weights), np.nan) for name in RATES}
    called = probabilities >= threshold
    tp, fp, fn, tn = (
        weights @ which
        for which in (
            (labels & called).astype(np.float64),
            (~labels & called).astype(np.float64),
            (labels & ~called).astype(np.float64),
            (~labels & ~called).astype(np.float64),
        )
    )
    f1, f1_of_negative = _divide(2 * tp, 2 * tp + fp + fn), _divide(2 * tn, 2 * tn + fp + fn)
    total = tp + fp + fn + tn
    # A class that is absent has no weight, whatever its F1.
    parts = np.where(tp + fn > 0, (tp + fn) * f1, 0.0) + np.where(tn + fp > 0, (tn + fp) * f1_of_negative, 0.0)
    return {
        "precision": _divide(tp, tp + fp),
        "recall": _divide(tp, tp + fn),
        "specificity": _divide(tn, tn + fp),
        "f1": f1,
        "f1_weighted": _divide(parts, total),
        "accuracy": _divide(tp + tn, total),
    }


def crg_score(labels: Bool[np.ndarray, "n c"], predictions: Bool[np.ndarray, "n c"]) -> float:
    """CRG of the VLM3D challenge, over all cases and classes together: U / (2 U - s).

    With X entries, A of them positive: r = (X - A) / 2 A, U = (X - A) / 2, s = r TP - r FN - FP. 1 is perfect, all
    positive or all negative 1/3, all wrong 1/5. NaN where a class is missing.
    """
    entries, positives = labels.size, int(np.count_nonzero(labels))
    if positives in (0, entries):
        return math.nan
    ratio, best = (entries - positives) / (2 * positives), (entries - positives) / 2
    found = int(np.count_nonzero(labels & predictions))
    false = int(np.count_nonzero(~labels & predictions))
    score = ratio * found - ratio * (positives - found) - false
    return best / (2 * best - score)


def _refuse_nan(scores: Float[np.ndarray, " n"]) -> None:
    if np.isnan(scores).any():
        raise ValueError(f"{np.count_nonzero(np.isnan(scores))} scores are NaN; leave these cases out and count them")


def _by_score(
    labels: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"], weights: Float64[np.ndarray, "b n"]
) -> tuple[Float64[np.ndarray, "b u"], Float64[np.ndarray, "b u"]]:
    """Weight of the positive and of the negative cases at each distinct score, lowest first."""
    _refuse_nan(scores)
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    first = np.concatenate([[True], ranked[1:] != ranked[:-1]])[: len(order)]  # no difference: scores may be infinite
    starts: Int64[np.ndarray, " u"] = np.flatnonzero(first)
    ordered = weights[:, order]
    positive = ordered * labels[order]
    negative = ordered - positive
    if len(starts) < len(order):
        positive, negative = (np.add.reduceat(part, starts, axis=1) for part in (positive, negative))
    return positive, negative


def _divide(above: Float64[np.ndarray, " b"], below: Float64[np.ndarray, " b"]) -> Float64[np.ndarray, " b"]:
    """NaN where nothing is divided."""
    quotient: Float64[np.ndarray, " b"] = np.divide(above, below, out=np.full_like(below, np.nan), where=below > 0)
    return quotient
