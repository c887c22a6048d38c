"""Ranks of the right item in both directions, what they add up to, and what chance and labels alone would give."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

RECALL_AT = (1, 5, 10, 50, 100)
OF_RANKS = ("median_rank", "mean_rank")
"""Names of the numbers that are ranks: lower is better."""
BLOCK_ELEMENTS = 1 << 23
"""Similarities held at once: 64 MiB in float64."""
QUANTUM = 2.0**-26
"""Embeddings are rounded to multiples of this (1.5e-8) before they are compared.

Products are then multiples of 2^-52, and because no sum of products of unit vectors exceeds 1 in size, every sum is
exact in float64, in whatever order it is made. So equal embeddings tie exactly, whatever the block, the library or the
number of threads. A cosine moves by about 1e-8, less than by keeping it in float32.
"""
MAX_LENGTH = 1.4
"""Sums stay exact for vectors up to this length (its square is below 2)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranks:
    """Ranks (1 is best) of the best right item of every query.

    Attributes:
        volume_to_text: for each scan among all reports.
        text_to_volume: for each report among all scans.
    """

    volume_to_text: Int64[np.ndarray, " n"]
    text_to_volume: Int64[np.ndarray, " n"]


def rank_pool(
    volume: Float32[np.ndarray, "n d"], text: Float32[np.ndarray, "n d"], right_ids: Int64[np.ndarray, " n"]
) -> Ranks:
    """Ranks from unit embeddings: item j is right for query i where their ``right_ids`` are equal.

    rank = 1 + number of wrong items whose cosine is not below that of the best right item: ties count against us, and
    so does a NaN. Cosines are those of the embeddings rounded to `QUANTUM`. 25,000 cases of width 768 need about 0.5 GB
    beside the embeddings.

    It measures telling this pool's cases apart, not whether a report is clinically right for a scan.

    Raises:
        ValueError: no case, or an embedding longer than 1.4 (it should be 1).
    """
    if not len(volume):
        raise ValueError("a pool without cases has no ranks")
    exact_volume, exact_text = exact_rows(volume, "volume"), exact_rows(text, "text")
    best_in_row, best_in_column, excused_in_row, excused_in_column = _right_items(exact_volume, exact_text, right_ids)
    before_in_row = np.empty(len(volume), dtype=np.int64)
    before_in_column = np.zeros(len(volume), dtype=np.int64)
    for rows in row_blocks(len(volume)):
        similarity = exact_volume[rows] @ exact_text.T
        before_in_row[rows] = _not_below(similarity, best_in_row[rows, None], axis=1)
        before_in_column += _not_below(similarity, best_in_column[None, :], axis=0)
    return Ranks(
        volume_to_text=1 + before_in_row - excused_in_row, text_to_volume=1 + before_in_column - excused_in_column
    )


def summarise(ranks: Int64[np.ndarray, " n"], at: Sequence[int] = RECALL_AT) -> dict[str, float]:
    """``R@K`` = share (0..1) of ranks up to K; ``MRR`` = mean of 1 / rank; ``median_rank``, ``mean_rank`` (1 is best).

    None of them compares across pools: R@5 of 2,000 cases is a far harder test than R@5 of 32, and R@K is 1 for a K as
    large as the pool. NaN for no ranks.
    """
    if not len(ranks):
        return dict.fromkeys((*(f"R@{k}" for k in at), "MRR", *OF_RANKS), math.nan)
    summary = {f"R@{k}": float(np.mean(ranks <= k)) for k in at}
    return summary | {
        "MRR": float(np.mean(1.0 / ranks)),
        "median_rank": float(np.median(ranks)),
        "mean_rank": float(np.mean(ranks)),
    }


def summarise_weighted(
    ranks: Int64[np.ndarray, " n"], weights: Float64[np.ndarray, "b n"], at: Sequence[int] = RECALL_AT
) -> dict[str, Float64[np.ndarray, " b"]]:
    """`summarise` of each of b samples in which case i occurs ``weights[b, i]`` times (whole numbers, not all 0).

    The same to the last digit whatever the number of threads.
    """
    total = weights.sum(axis=1)
    scores = np.stack([*((ranks <= k) for k in at), 1.0 / ranks, ranks], axis=1).astype(np.float64)
    means = np.einsum("bn,nc->bc", weights, scores, optimize=False) / total[:, None]  # no BLAS: its last digit varies
    names = [*(f"R@{k}" for k in at), "MRR", "mean_rank"]
    summary = {name: means[:, column] for column, name in enumerate(names)}
    summary["median_rank"] = _weighted_median(ranks, weights, total)
    return summary


def chance_recall(num_cases: int, k: int, num_right: Int64[np.ndarray, " n"]) -> float:
    """Expected R@K of a random order, exactly: the mean over queries of 1 - C(n - m, K) / C(n, K) for m right items.

    For one right item (m = 1) this is K / n.
    """
    return expected_recall(np.full(len(num_right), num_cases, dtype=np.int64), num_right, k)


def expected_recall(num_tied: Int64[np.ndarray, " n"], num_right: Int64[np.ndarray, " n"], k: int) -> float:
    """Expected R@K where ``num_tied`` items share the first places in random order, ``num_right`` of them right."""
    found = 0.0
    pairs, counts = np.unique(np.stack([num_tied, num_right]), axis=1, return_counts=True)
    for (tied, right), queries in zip(pairs.T.tolist(), counts.tolist(), strict=True):
        orders = math.comb(tied, min(k, tied))
        without = math.comb(tied - right, min(k, tied))
        found += queries * ((orders - without) / orders)
    return found / len(num_right)


def label_only_recall(
    labels: Bool[np.ndarray, "n c"], right_ids: Int64[np.ndarray, " n"], at: Sequence[int] = RECALL_AT
) -> dict[str, float]:
    """R@K of one who knows the labels of every scan and report perfectly, and nothing else.

    The items with the query's label vector come first, in random order; the expectation over orders is exact. A model
    below this line has not even read off the labels; one above it tells apart cases with the same findings. Right items
    are taken to share their labels, as reconstructions of a scan and identical texts do; those that do not are missed.
    """
    _, groups = np.unique(labels, axis=0, return_inverse=True)
    groups = groups.reshape(-1).astype(np.int64)
    both, ids = np.unique(np.stack([groups, right_ids]), axis=1, return_inverse=True)
    num_right = np.bincount(ids.reshape(-1), minlength=both.shape[1])[ids.reshape(-1)]
    num_tied = group_sizes(groups)
    return {f"R@{k}": expected_recall(num_tied, num_right.astype(np.int64), k) for k in at}


def group_sizes(ids: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """For every case the number of cases with its id, itself included."""
    _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    sizes: Int64[np.ndarray, " n"] = counts.astype(np.int64)[inverse]
    return sizes


def row_blocks(num_cases: int) -> Iterator[slice]:
    """Slices that cover the rows of a square matrix, each block of about `BLOCK_ELEMENTS` elements."""
    step = max(1, BLOCK_ELEMENTS // max(1, num_cases))
    for start in range(0, num_cases, step):
        yield slice(start, min(start + step, num_cases))


def exact_rows(vectors: Float32[np.ndarray, "n d"], name: str) -> Float64[np.ndarray, "n d"]:
    """Embeddings rounded to multiples of `QUANTUM`: sums of their products are exact. ``name`` is for the message.

    Raises:
        ValueError: an embedding longer than 1.4 (it should be 1).
    """
    exact: Float64[np.ndarray, "n d"] = vectors.astype(np.float64)
    lengths = np.sqrt(np.einsum("nd,nd->n", exact, exact))
    if (lengths > MAX_LENGTH).any():
        raise ValueError(f"{name} embedding of length {np.nanmax(lengths):.6g}, it must be 1")
    exact /= QUANTUM  # a power of two: nothing is lost
    np.rint(exact, out=exact)
    exact *= QUANTUM
    return exact


def exact_cosines(volume: Float32[np.ndarray, "n d"], text: Float32[np.ndarray, "n d"]) -> Float64[np.ndarray, " n"]:
    """Cosine of each scan with its own report, exactly as `rank_pool` compares it.

    Raises:
        ValueError: an embedding longer than 1.4 (it should be 1).
    """
    own: Float64[np.ndarray, " n"] = np.einsum("nd,nd->n", exact_rows(volume, "volume"), exact_rows(text, "text"))
    return own


def _not_below(
    similarity: Float64[np.ndarray, "b n"], best: Float64[np.ndarray, "#b #n"], axis: int
) -> Int64[np.ndarray, " _"]:
    """Along an axis, how many similarities are not below the best right one; a NaN is not below."""
    count: Int64[np.ndarray, " _"] = similarity.shape[axis] - np.count_nonzero(similarity < best, axis=axis)
    return count


def _right_items(
    volume: Float64[np.ndarray, "n d"], text: Float64[np.ndarray, "n d"], ids: Int64[np.ndarray, " n"]
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"], Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Best right similarity of every row and column, and how many right items are not below it (they are excused)."""
    best_in_row = np.einsum("nd,nd->n", volume, text)
    best_in_column = best_in_row.copy()
    excused_in_row = np.ones(len(ids), dtype=np.int64)
    excused_in_column = np.ones(len(ids), dtype=np.int64)
    order = np.argsort(ids, kind="stable")
    starts = np.flatnonzero(np.diff(ids[order], prepend=ids[order[0]] - 1))
    for members in np.split(order, starts[1:]):
        if len(members) == 1:
            continue
        best_in_column[members] = -np.inf
        for part in row_blocks(len(members)):
            similarity = volume[members[part]] @ text[members].T
            best_in_row[members[part]] = similarity.max(axis=1)
            best_in_column[members] = np.maximum(best_in_column[members], similarity.max(axis=0))
        excused_in_column[members] = 0
        for part in row_blocks(len(members)):
            similarity = volume[members[part]] @ text[members].T
            excused_in_row[members[part]] = _not_below(similarity, best_in_row[members[part], None], axis=1)
            excused_in_column[members] += _not_below(similarity, best_in_column[None, members], axis=0)
    return best_in_row, best_in_column, excused_in_row, excused_in_column


def _weighted_median(
    ranks: Int64[np.ndarray, " n"], weights: Float64[np.ndarray, "b n"], total: Float64[np.ndarray, " b"]
) -> Float64[np.ndarray, " b"]:
    order = np.argsort(ranks, kind="stable")
    reached = np.cumsum(weights[:, order], axis=1)
    last = len(ranks) - 1
    lower, upper = (
        ranks[order[np.minimum(np.count_nonzero(reached <= place[:, None], axis=1), last)]]
        for place in ((total - 1) // 2, total // 2)
    )
    median: Float64[np.ndarray, " b"] = (lower + upper) / 2
    return median
