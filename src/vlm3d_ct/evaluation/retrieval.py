"""Retrieval between scans and reports: ranks in both directions, and what chance would give."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int64

from vlm3d_ct.embeddings import EmbeddingSet
from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.evaluation.regions import RegionAlignment, region_alignment_accuracy

RECALL_AT = (1, 5, 10)
BLOCK_ELEMENTS = 1 << 23  # similarities held at once: 64 MiB in float64

Direction = Literal["image_to_text", "text_to_image"]
DIRECTIONS: tuple[Direction, Direction] = ("image_to_text", "text_to_image")
Duplicates = Literal["own", "group"]
Blocks = Callable[[], Iterator[tuple[slice, np.ndarray]]]


@dataclass(frozen=True, kw_only=True, eq=False)
class RetrievalResult:
    """Ranks of all cases of a pool in both directions.

    Attributes:
        image_to_text_ranks: rank (1 is best) of each scan's own report among all reports.
        text_to_image_ranks: rank of each report's own scan among all scans.
        duplicates: what counts as right: ``own``, the own index only; ``group``, any case with the identical text.
        num_shared_texts: cases whose text another case has too; None where texts were not compared.
        chance: expected R@K of a random order of the pool, under the same rule.
        regions: region alignment of the same pool, where it was measured.
    """

    image_to_text_ranks: Int64[np.ndarray, " n"]
    text_to_image_ranks: Int64[np.ndarray, " n"]
    duplicates: Duplicates
    num_shared_texts: int | None
    chance: dict[str, float]
    regions: RegionAlignment | None = None

    @property
    def size(self) -> int:
        """Number of cases in the pool."""
        return len(self.image_to_text_ranks)

    def ranks(self, direction: Direction) -> Int64[np.ndarray, " n"]:
        """The ranks of one direction."""
        return self.image_to_text_ranks if direction == "image_to_text" else self.text_to_image_ranks

    @property
    def image_to_text(self) -> dict[str, float]:
        """R@1, R@5, R@10, MRR, median_rank of finding the report of a scan."""
        return summarise_ranks(self.image_to_text_ranks)

    @property
    def text_to_image(self) -> dict[str, float]:
        """R@1, R@5, R@10, MRR, median_rank of finding the scan of a report."""
        return summarise_ranks(self.text_to_image_ranks)

    def as_log(self) -> dict[str, float]:
        """Flat names for a metrics log: ``image_to_text/R@5`` and so on, and ``region_alignment_accuracy``."""
        flat = {f"image_to_text/{name}": value for name, value in self.image_to_text.items()}
        flat |= {f"text_to_image/{name}": value for name, value in self.text_to_image.items()}
        if self.regions is not None:
            flat["region_alignment_accuracy"] = self.regions.accuracy
        return flat


def summarise_ranks(ranks: Int64[np.ndarray, " n"]) -> dict[str, float]:
    """R@K = share (0..1) of ranks up to K; MRR = mean of 1 / rank; median_rank, 1 is best.

    None of them compares across pools: R@5 of 2,000 cases is a far harder test than R@5 of 32.
    """
    summary = {f"R@{k}": float(np.mean(ranks <= k)) for k in RECALL_AT}
    return summary | {"MRR": float(np.mean(1.0 / ranks)), "median_rank": float(np.median(ranks))}


def retrieval_metrics(
    similarity: Float[np.ndarray, "n n"],
    *,
    text_groups: Int64[np.ndarray, " n"] | None = None,
    duplicates: Duplicates = "own",
) -> RetrievalResult:
    """Ranks from a matrix of similarities: row i is scan i, column j is report j, the pairs stand on the diagonal.

    rank = 1 + number of wrong items that are not less similar than the best right item: ties count against us, and so
    does a NaN. With ``duplicates="own"`` the right item is the own index only, as in published CT retrieval; an
    identical report of another case then counts as wrong. With ``"group"`` any case of the same text group is right.

    It measures telling this pool's cases apart, not whether a report is clinically right for a scan.

    Raises:
        DataError: the pool is empty.
        ValueError: ``duplicates="group"`` without ``text_groups``.
    """

    def blocks() -> Iterator[tuple[slice, np.ndarray]]:
        for rows in _row_blocks(len(similarity)):
            yield rows, similarity[rows]

    return _measure(blocks, np.diagonal(similarity), text_groups, duplicates)


def measure_retrieval(embeddings: EmbeddingSet, *, duplicates: Duplicates = "own") -> RetrievalResult:
    """`retrieval_metrics` of the cosines of a pool, block by block, with its region alignment.

    Cosines are summed in float64 and rounded to float32, so that equal embeddings tie whatever the block. 25,000 cases
    of width 768 need about 0.3 GB beside the embeddings.

    Raises:
        DataError: the pool is empty.
    """
    text = embeddings.text.astype(np.float64)

    def blocks() -> Iterator[tuple[slice, np.ndarray]]:
        for rows in _row_blocks(len(embeddings)):
            yield rows, (embeddings.volume[rows].astype(np.float64) @ text.T).astype(np.float32)

    regions = region_alignment_accuracy(
        embeddings.region_volume, embeddings.region_text, embeddings.region_mentions, embeddings.region_groups
    )
    return _measure(blocks, own_similarity(embeddings), embeddings.text_groups, duplicates, regions)


def own_similarity(embeddings: EmbeddingSet) -> Float32[np.ndarray, " n"]:
    """Cosine of each scan with its own report."""
    own: Float32[np.ndarray, " n"] = np.einsum("nd,nd->n", embeddings.volume, embeddings.text, dtype=np.float64).astype(
        np.float32
    )
    return own


def chance_recall(num_cases: int, k: int, num_right: Int64[np.ndarray, " n"]) -> float:
    """Expected R@K of a random order, exactly: the mean over queries of 1 - C(n - m, K) / C(n, K) for m right items.

    For one right item (m = 1) this is K / n.
    """
    found = 0.0
    orders = math.comb(num_cases, min(k, num_cases))
    for right, queries in zip(*np.unique(num_right, return_counts=True), strict=True):
        without = math.comb(num_cases - int(right), min(k, num_cases))
        found += int(queries) * ((orders - without) / orders)
    return found / len(num_right)


def _row_blocks(num_cases: int) -> Iterator[slice]:
    step = max(1, BLOCK_ELEMENTS // max(1, num_cases))
    for start in range(0, num_cases, step):
        yield slice(start, min(start + step, num_cases))


def _measure(
    blocks: Blocks,
    own: Float[np.ndarray, " n"],
    text_groups: Int64[np.ndarray, " n"] | None,
    duplicates: Duplicates,
    regions: RegionAlignment | None = None,
) -> RetrievalResult:
    num_cases = len(own)
    if num_cases == 0:
        raise DataError(
            Problem(
                code="empty-pool",
                file="the evaluation pool",
                field="cases",
                value="0",
                message="There is no case to evaluate.",
                remedy="Give a data folder with cases that the checkpoint was not trained on.",
            )
        )
    if duplicates == "group" and text_groups is None:
        raise ValueError('duplicates="group" needs text_groups')
    ids = text_groups if duplicates == "group" and text_groups is not None else np.arange(num_cases)
    image_to_text, text_to_image = _ranks(blocks, own, ids)
    num_right = _group_sizes(ids)
    return RetrievalResult(
        image_to_text_ranks=image_to_text,
        text_to_image_ranks=text_to_image,
        duplicates=duplicates,
        num_shared_texts=None if text_groups is None else int(np.count_nonzero(_group_sizes(text_groups) > 1)),
        chance={f"R@{k}": chance_recall(num_cases, k, num_right) for k in RECALL_AT},
        regions=regions,
    )


def _group_sizes(ids: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """For every case the number of cases with its id, itself included."""
    _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    return counts.astype(np.int64)[inverse]


def _ranks(
    blocks: Blocks, own: Float[np.ndarray, " n"], ids: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Ranks of rows and of columns; an item is right where its id is the query's."""
    best_in_row, best_in_column = own.copy(), own.copy()
    if len(np.unique(ids)) < len(ids):
        for rows, block in blocks():
            right = np.where(ids[rows, None] == ids[None, :], block, -np.inf)
            best_in_row[rows] = np.maximum(best_in_row[rows], right.max(axis=1))
            best_in_column = np.maximum(best_in_column, right.max(axis=0))
    before_in_row = np.zeros(len(own), dtype=np.int64)
    before_in_column = np.zeros(len(own), dtype=np.int64)
    for rows, block in blocks():
        wrong = ids[rows, None] != ids[None, :]
        before_in_row[rows] = np.count_nonzero(wrong & ~(block < best_in_row[rows, None]), axis=1)
        before_in_column += np.count_nonzero(wrong & ~(block < best_in_column[None, :]), axis=0)
    return 1 + before_in_row, 1 + before_in_column
