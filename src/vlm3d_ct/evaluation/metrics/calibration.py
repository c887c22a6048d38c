"""Whether probabilities mean what they say."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

NUM_BINS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Reliability:
    """A reliability curve: bins of equal width over 0..1, NaN in an empty one.

    Attributes:
        mean_probability: of the cases of each bin.
        share_positive: of the cases of each bin, 0..1.
        count: cases of each bin.
    """

    mean_probability: Float64[np.ndarray, " bins"]
    share_positive: Float64[np.ndarray, " bins"]
    count: Int64[np.ndarray, " bins"]


def reliability(
    labels: Bool[np.ndarray, " n"], probabilities: Float[np.ndarray, " n"], bins: int = NUM_BINS
) -> Reliability:
    """The reliability curve; a probability on the border of two bins belongs to the lower one.

    Raises:
        ValueError: a probability is not within 0..1.
    """
    _check(probabilities)
    place = np.searchsorted(np.linspace(0.0, 1.0, bins + 1)[1:-1], probabilities)
    count = np.bincount(place, minlength=bins)
    divisor = np.where(count > 0, count, np.nan)
    return Reliability(
        mean_probability=np.bincount(place, weights=probabilities, minlength=bins) / divisor,
        share_positive=np.bincount(place, weights=labels, minlength=bins) / divisor,
        count=count.astype(np.int64),
    )


def expected_calibration_error(
    labels: Bool[np.ndarray, " n"], probabilities: Float[np.ndarray, " n"], bins: int = NUM_BINS
) -> float:
    """Mean over cases of |share positive - mean probability| of their bin (Naeini et al. 2015), 0..1; 0 is best.

    It depends on the bins, is above 0 by chance alone on few cases, and is 0 for one who always says the prevalence: it
    does not measure telling cases apart. NaN for no cases.

    Raises:
        ValueError: a probability is not within 0..1.
    """
    if not len(labels):
        return math.nan
    curve = reliability(labels, probabilities, bins)
    gaps = np.abs(curve.share_positive - curve.mean_probability)
    return float(np.nansum(gaps * curve.count) / len(labels))


def brier(labels: Bool[np.ndarray, " n"], probabilities: Float[np.ndarray, " n"]) -> float:
    """Mean squared difference of probability and label (Brier 1950), 0..1; 0 is best, p (1 - p) for the prevalence p.

    It mixes calibration and telling cases apart, and is small for rare findings. NaN for no cases.

    Raises:
        ValueError: a probability is not within 0..1.
    """
    _check(probabilities)
    return float(np.mean((probabilities.astype(np.float64) - labels) ** 2)) if len(labels) else math.nan


def _check(probabilities: Float[np.ndarray, " n"]) -> None:
    wrong = ~((probabilities >= 0) & (probabilities <= 1))
    if wrong.any():
        raise ValueError(f"{probabilities[wrong][0]} is no probability; it must be within 0..1")
