"""Whether embeddings use their space: numbers that show a collapse which retrieval alone may hide."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from threadpoolctl import threadpool_limits

MAX_CASES = 4000
"""Of more cases every k-th is taken for effective rank and uniformity, whose cost grows faster than the pool."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """Health of the two sides of a pool; NaN where fewer than two cases leave a number undefined.

    Attributes:
        volume_effective_rank: exp of the entropy of the singular values (mean removed) as shares of their sum (Roy and
            Vetterli 2007): how many directions are used; from 1 to the width, and below the number of cases.
        text_effective_rank: likewise.
        volume_mean_cosine: mean cosine of different scans, -1..1; near 1 all of them look alike.
        text_mean_cosine: likewise.
        volume_uniformity: log of the mean of exp(-2 |x - y|^2) over pairs (Wang and Isola 2020), -8..0; low is spread
            out.
        text_uniformity: likewise.
        alignment: mean |x - y|^2 of matched pairs (Wang and Isola 2020), 0..4; low is near.
        modality_gap: distance of the two sides' means (Liang et al. 2022), 0..2.
        matched_cosine: mean cosine of matched pairs, -1..1.
        unmatched_cosine: mean cosine of all other pairs.
    """

    volume_effective_rank: float
    text_effective_rank: float
    volume_mean_cosine: float
    text_mean_cosine: float
    volume_uniformity: float
    text_uniformity: float
    alignment: float
    modality_gap: float
    matched_cosine: float
    unmatched_cosine: float


def measure_health(volume: Float[np.ndarray, "n d"], text: Float[np.ndarray, "n d"]) -> Health:
    """The health of unit embeddings.

    None of these says whether a model is good: noise has the best uniformity and the highest rank. Computed in one
    thread, so that the last digits do not depend on the number of cores.
    """
    with threadpool_limits(1):
        return _measure(volume.astype(np.float64), text.astype(np.float64))


def _measure(scan: Float64[np.ndarray, "n d"], report: Float64[np.ndarray, "n d"]) -> Health:
    count = len(scan)
    matched = float(np.einsum("nd,nd->n", scan, report).mean()) if count else math.nan
    both = float(scan.sum(axis=0) @ report.sum(axis=0))
    pairs = count * (count - 1)
    return Health(
        volume_effective_rank=effective_rank(scan),
        text_effective_rank=effective_rank(report),
        volume_mean_cosine=mean_cosine(scan),
        text_mean_cosine=mean_cosine(report),
        volume_uniformity=uniformity(scan),
        text_uniformity=uniformity(report),
        alignment=float(((scan - report) ** 2).sum(axis=1).mean()) if count else math.nan,
        modality_gap=float(np.linalg.norm(scan.mean(axis=0) - report.mean(axis=0))) if count else math.nan,
        matched_cosine=matched,
        unmatched_cosine=(both - count * matched) / pairs if pairs else math.nan,
    )


def effective_rank(rows: Float64[np.ndarray, "n d"]) -> float:
    """exp of the entropy of the singular values as shares of their sum, the mean removed; 1 for equal rows."""
    rows = _thinned(rows)
    if len(rows) < 2:
        return math.nan
    values = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
    if values[0] < 1e-9:
        return 1.0
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def mean_cosine(rows: Float64[np.ndarray, "n d"]) -> float:
    """Mean over all pairs of different unit rows."""
    count = len(rows)
    if count < 2:
        return math.nan
    total = rows.sum(axis=0)
    return float((total @ total - np.einsum("nd,nd->", rows, rows)) / (count * (count - 1)))


def uniformity(rows: Float64[np.ndarray, "n d"]) -> float:
    """log of the mean of exp(-2 |x - y|^2) over all pairs of different unit rows."""
    rows = _thinned(rows)
    count = len(rows)
    if count < 2:
        return math.nan
    squares = np.einsum("nd,nd->n", rows, rows)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * rows @ rows.T, 0.0)
    np.fill_diagonal(distances, np.inf)
    return float(np.log(np.exp(-2 * distances).sum() / (count * (count - 1))))


def _thinned(rows: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "m d"]:
    return rows[:: max(1, -(-len(rows) // MAX_CASES))]
