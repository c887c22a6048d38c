"""How far numbers would move with other patients: resampling of patients, intervals, paired differences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float64

from vlm3d_ct.seeding import random_stream

LEVEL = 0.95
BLOCK_ELEMENTS = 1 << 22
"""Weights held at once: 32 MiB."""
FEWEST_SAMPLES = 20
"""Fewer defined samples give no interval."""
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
        p_value: two-sided: how often samples fall on the other side of 0, twice; at least 2 / (samples + 1).
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


def interval(estimate: float, samples: Float64[np.ndarray, " b"], level: float = LEVEL) -> Interval:
    """The bias-corrected percentile interval (Efron 1981) of a bootstrap.

    With z0 = Phi^-1(share of samples below the estimate, those equal to it counted half), the ends are the quantiles
    Phi(2 z0 -+ z) of the samples: where their median is the estimate, the plain percentiles. Samples that are NaN
    (a class is missing in them) are left out; fewer than 20 others, or an estimate that is NaN, give no interval.

    It says how much other patients of the same kind would move the number; nothing of other hospitals or seeds.
    """
    defined = samples[np.isfinite(samples)]
    if math.isnan(estimate) or len(defined) < FEWEST_SAMPLES:
        return Interval(estimate=estimate, low=math.nan, high=math.nan)
    below = (np.count_nonzero(defined < estimate) + 0.5 * np.count_nonzero(defined == estimate)) / len(defined)
    limit = 1 / (len(defined) + 1)
    z0 = _NORMAL.inv_cdf(min(max(below, limit), 1 - limit))
    z = _NORMAL.inv_cdf(0.5 + level / 2)
    low, high = np.quantile(defined, [_NORMAL.cdf(2 * z0 - z), _NORMAL.cdf(2 * z0 + z)])
    return Interval(estimate=estimate, low=float(low), high=float(high))


def paired_difference(
    estimate_a: float,
    estimate_b: float,
    samples_a: Float64[np.ndarray, " b"],
    samples_b: Float64[np.ndarray, " b"],
    level: float = LEVEL,
) -> Difference:
    """a - b from samples that were drawn alike (the same patients and seed): what both share cancels.

    NaN where either is undefined.
    """
    differences = samples_a - samples_b
    found = interval(estimate_a - estimate_b, differences, level)
    defined = differences[np.isfinite(differences)]
    if math.isnan(found.low):
        return Difference(interval=found, p_value=math.nan)
    smaller = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
    return Difference(interval=found, p_value=min(1.0, 2 * (smaller + 1) / (len(defined) + 1)))
