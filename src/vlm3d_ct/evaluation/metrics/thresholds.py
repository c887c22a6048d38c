"""Where to cut probabilities into positive and negative: fixed, or tuned on cases that are not those of the test."""

from __future__ import annotations

import math
from typing import Final, Literal

import numpy as np
from jaxtyping import Bool, Float

ARGMAX: Final = 0.5
"""The larger of two softmax entries (present, absent) is the first where its probability is at least this."""

Rule = Literal["youden", "corner"]


def tune_threshold(
    labels: Bool[np.ndarray, " n"], probabilities: Float[np.ndarray, " n"], rule: Rule = "youden"
) -> float:
    """The threshold among the occurring probabilities that suits these cases best; NaN where a class is missing.

    ``youden``: largest recall + specificity; ``corner``: nearest to the corner (recall 1, specificity 1) of the ROC
    curve. Of equals the highest threshold. Choose it on validation cases: a threshold that was chosen on the test cases
    flatters every number that is then computed with it.

    Raises:
        ValueError: a probability is NaN.
    """
    if np.isnan(probabilities).any():
        raise ValueError("a probability is NaN; leave such cases out and count them")
    num_positive = int(np.count_nonzero(labels))
    num_negative = len(labels) - num_positive
    if not num_positive or not num_negative:
        return math.nan
    order = np.argsort(-probabilities, kind="stable")
    ordered = probabilities[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    recall = np.cumsum(labels[order])[ends] / num_positive
    fall_out = np.cumsum(~labels[order])[ends] / num_negative
    cost = fall_out - recall if rule == "youden" else (1 - recall) ** 2 + fall_out**2
    best = np.flatnonzero(cost <= cost.min() + 1e-12)[0]  # equal costs differ by rounding
    return float(ordered[ends[best]])
