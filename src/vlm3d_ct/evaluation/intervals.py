"""Means over cases with intervals over patients: many of them from one set of samples."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from vlm3d_ct.evaluation.metrics.bootstrap import Interval, interval, resample


def ratio_intervals(
    sums: Mapping[str, tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]],
    patient_ids: Sequence[str],
    *,
    num_samples: int,
    seed: int,
    differences: Collection[str] = (),
) -> dict[str, Interval]:
    """Ratios of two sums over the same n cases, each with its 95 % interval; patients are drawn with replacement.

    Args:
        sums: by name, what each case adds to the numerator and to the denominator.
        patient_ids: the patient of each case.
        num_samples: samples behind each interval; 0 for none (NaN).
        seed: of the samples; all ratios see the same ones.
        differences: names of the ratios that may have either sign; all others are shares, 0..1.

    A ratio whose denominator is 0 is NaN, and samples in which it is 0 are left out of its interval. A ratio that rests
    on a single patient has no interval: there is nothing to draw from.
    """
    above = np.stack([numerator for numerator, _ in sums.values()], axis=1)
    below = np.stack([denominator for _, denominator in sums.values()], axis=1)
    estimates = _divide(above.sum(axis=0), below.sum(axis=0))
    if not num_samples or not len(patient_ids):
        return {
            name: Interval(estimate=float(value), low=math.nan, high=math.nan)
            for name, value in zip(sums, estimates, strict=True)
        }
    blocks = [
        _divide(_sums(weights, above), _sums(weights, below))
        for weights in (block.astype(np.float64) for block in resample(patient_ids, num_samples, seed))
    ]
    samples = np.concatenate(blocks)
    _, patients = np.unique(list(patient_ids), return_inverse=True)
    counts = [len(np.unique(patients[column > 0])) for column in below.T]
    return {
        name: interval(float(estimates[i]), samples[:, i], counts[i], "difference" if name in differences else "share")
        for i, name in enumerate(sums)
    }


def mean_intervals(
    columns: Mapping[str, Float64[np.ndarray, " n"]],
    patient_ids: Sequence[str],
    *,
    num_samples: int,
    seed: int,
    differences: Collection[str] = (),
) -> dict[str, Interval]:
    """`ratio_intervals` of means over the cases whose value is not NaN."""
    sums = {}
    for name, values in columns.items():
        known = ~np.isnan(values)
        sums[name] = (np.where(known, values, 0.0), known.astype(np.float64))
    return ratio_intervals(sums, patient_ids, num_samples=num_samples, seed=seed, differences=differences)


def _sums(weights: Float64[np.ndarray, "b n"], values: Float64[np.ndarray, "n c"]) -> Float64[np.ndarray, "b c"]:
    """The product without BLAS, whose last digit depends on the number of threads."""
    sums: Float64[np.ndarray, "b c"] = np.einsum("bn,nc->bc", weights, values, optimize=False)
    return sums


def _divide(
    above: Float64[np.ndarray, "*shape"], below: Float64[np.ndarray, "*shape"]
) -> Float64[np.ndarray, "*shape"]:
    ratio: Float64[np.ndarray, "*shape"] = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
    return ratio
