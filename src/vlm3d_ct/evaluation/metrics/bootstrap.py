"""How far numbers would move with other patients: resampling of patients, intervals, paired differences.

Which interval is taken for what, and how often each was measured to hold the truth, stands in decision 0013.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from jaxtyping import Float64
from scipy.special import stdtr, stdtrit

from vlm3d_ct.seeding import random_stream

LEVEL = 0.95
BLOCK_ELEMENTS = 1 << 22
"""Weights held at once: 32 MiB."""
FEWEST_SAMPLES = 20
"""Fewer defined samples give no interval."""
Scale = Literal["share", "f1", "difference", "rank"]
"""A fraction 0..1; the fraction that is F1; a number of either sign; a place in an order (1 or more)."""
_NORMAL = NormalDist()


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its 95 % interval; NaN where undefined.

    Attributes:
        estimate: from the cases as they are.
        low: lower end.
        high: upper end.
    """

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A paired difference a - b.

    Attributes:
        interval: of the difference.
        p_value: two-sided, of no difference; below 0.05 where the interval leaves out 0.
    """

    interval: Interval
    p_value: float


def resample(patient_ids: Sequence[str], num_samples: int, seed: int) -> Iterator[Float64[np.ndarray, "block n"]]:
    """How often each case counts in each sample: as many patients as there are, drawn with replacement.

    All cases of a drawn patient count together, so that what they share is not taken for evidence. The samples do not
    depend on how they are cut into blocks. The same patients and seed give the same samples, so that two models on the
    same cases can be compared in pairs. Nothing for no samples or no cases.
    """
    if not len(patient_ids) or not num_samples:
        return
    names, patient_of = np.unique(np.asarray(patient_ids), return_inverse=True)
    patient_of = patient_of.reshape(-1)
    stream = random_stream(seed, "bootstrap", len(names))
    block = max(1, BLOCK_ELEMENTS // len(patient_ids))
    for start in range(0, num_samples, block):
        size = min(block, num_samples - start)
        drawn = np.stack(
            [np.bincount(stream.integers(len(names), size=len(names)), minlength=len(names)) for _ in range(size)]
        )
        yield drawn[:, patient_of].astype(np.float64)


def interval(
    estimate: float, samples: Float64[np.ndarray, " b"], num_patients: int, scale: Scale = "share", level: float = LEVEL
) -> Interval:
    """The interval of a number from its bootstrap samples.

    A share p gets logit(p) -+ t s / (p (1 - p)), brought back to 0..1: s is the standard deviation of the samples times
    sqrt(n / (n - 1)), t the quantile of Student's distribution with n - 1 degrees, n the number of patients. At 0 and 1
    its other end is the exact binomial bound for n cases; for F1, which is 2 j / (1 + j) with j the share of hits among
    the hits and mistakes, it is that of j, so converted. A difference d gets d -+ t s. A rank gets the bias-corrected
    percentiles (Efron 1981).

    Args:
        estimate: from the cases as they are.
        samples: the same number in each bootstrap sample.
        num_patients: that the number rests on, not all that were seen: for a recall those with a positive case
            (`class_rates`). With all patients the interval of a rare finding is far too narrow.
        scale: what kind of number it is.
        level: how often the interval is to hold the truth.

    Samples that are NaN (a class is missing in them) are left out; fewer than 20 others, fewer than two patients, or an
    estimate that is NaN, give no interval. It says how much other patients of the same kind would move the number;
    nothing of other hospitals, other training seeds or a pool of another size.

    Raises:
        ValueError: a share that is not within 0..1.
    """
    defined = samples[np.isfinite(samples)]
    if math.isnan(estimate) or len(defined) < FEWEST_SAMPLES or num_patients < 2:
        return Interval(estimate=estimate, low=math.nan, high=math.nan)
    if scale == "rank":
        return _percentiles(estimate, defined, level)
    reach = float(stdtrit(num_patients - 1, 0.5 + level / 2)) * _standard_error(defined, num_patients)
    if scale == "difference":
        return Interval(estimate=estimate, low=estimate - reach, high=estimate + reach)
    if not 0 <= estimate <= 1:
        raise ValueError(f"{estimate} is no share: it must be within 0..1")
    if estimate in (0.0, 1.0):
        beyond = _beyond(num_patients, level)
        low, high = (0.0, beyond) if estimate == 0 else (1 - beyond, 1.0)
        if scale == "f1":
            low, high = 2 * low / (1 + low), 2 * high / (1 + high)
        return Interval(estimate=estimate, low=low, high=high)
    if not reach:  # brought to the logit scale and back, a number may differ in its last digit
        return Interval(estimate=estimate, low=estimate, high=estimate)
    centre, reach = math.log(estimate / (1 - estimate)), reach / (estimate * (1 - estimate))
    return Interval(estimate=estimate, low=_logistic(centre - reach), high=_logistic(centre + reach))


def paired_difference(
    estimate_a: float,
    estimate_b: float,
    samples_a: Float64[np.ndarray, " b"],
    samples_b: Float64[np.ndarray, " b"],
    num_patients: int,
    scale: Scale = "share",
    level: float = LEVEL,
) -> Difference:
    """a - b from samples that were drawn alike (the same patients and seed): what both share cancels.

    The p-value is that of Student's test of d / s, with d and s as in `interval`, and never below 2^(1 - n), the least
    that n patients can show by the signs of their differences; so with five patients or fewer it is above 0.05 whatever
    the interval. NaN where either number is undefined.

    Where both shares are 0 or 1 all samples agree, and say nothing of how far the difference may lie from 0 or from 1
    and -1. There the exact binomial bound b for n tells: all patients are alike with a share q of them, q >= 1 - b. The
    difference is within -+ b, or from 1 - 2 b on.

    Args:
        estimate_a: the number of the one.
        estimate_b: that of the other.
        samples_a: of the one.
        samples_b: of the other, of the same patients.
        num_patients: that both rest on, see `interval`.
        scale: what kind of numbers a and b are.
        level: how often the interval is to hold the truth.
    """
    estimate, differences = estimate_a - estimate_b, samples_a - samples_b
    found = interval(estimate, differences, num_patients, "difference", level)
    if math.isnan(found.low):
        return Difference(interval=found, p_value=math.nan)
    if scale in ("share", "f1") and {estimate_a, estimate_b} <= {0.0, 1.0}:
        found = _difference_at_the_edge(estimate, _beyond(num_patients, level))
    if estimate == 0:
        return Difference(interval=found, p_value=1.0)
    error = _standard_error(differences[np.isfinite(differences)], num_patients)
    p_value = 2 * float(stdtr(num_patients - 1, -abs(estimate) / error)) if error else 0.0
    return Difference(interval=found, p_value=max(p_value, 2.0 ** (1 - num_patients)))


def _standard_error(samples: Float64[np.ndarray, " b"], num_patients: int) -> float:
    """A bootstrap's variance is too small by (n - 1) / n."""
    return float(samples.std()) * math.sqrt(num_patients / (num_patients - 1))


def _beyond(num_patients: int, level: float) -> float:
    """How far from 1 a share may lie of which n patients showed nothing else (Clopper and Pearson 1934)."""
    least: float = (0.5 - level / 2) ** (1 / num_patients)
    return 1 - least


def _difference_at_the_edge(estimate: float, beyond: float) -> Interval:
    """Of shares that are both 0 or 1."""
    if estimate == 0:
        return Interval(estimate=estimate, low=-beyond, high=beyond)
    ends = sorted((estimate, estimate * (1 - 2 * beyond)))
    return Interval(estimate=estimate, low=ends[0], high=ends[1])


def _logistic(value: float) -> float:
    return 0.5 * (1 + math.tanh(value / 2))


def _percentiles(estimate: float, samples: Float64[np.ndarray, " b"], level: float) -> Interval:
    """With z0 = Phi^-1(share of samples below the estimate, equal ones counted half): quantiles Phi(2 z0 -+ z)."""
    below = (np.count_nonzero(samples < estimate) + 0.5 * np.count_nonzero(samples == estimate)) / len(samples)
    limit = 1 / (len(samples) + 1)
    z0 = _NORMAL.inv_cdf(min(max(below, limit), 1 - limit))
    z = _NORMAL.inv_cdf(0.5 + level / 2)
    low, high = np.quantile(samples, [_NORMAL.cdf(2 * z0 - z), _NORMAL.cdf(2 * z0 + z)])
    return Interval(estimate=estimate, low=float(low), high=float(high))
