"""Retrieval between scans and reports: from embeddings and a pool to ranks, scores, baselines and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64

from vlm3d_ct.embeddings import EmbeddingSet
from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.evaluation.metrics.alignment import RegionAlignment, region_alignment_accuracy
from vlm3d_ct.evaluation.metrics.bootstrap import Interval, interval, resample
from vlm3d_ct.evaluation.metrics.ranking import (
    OF_RANKS,
    RECALL_AT,
    Ranks,
    chance_recall,
    group_sizes,
    label_only_recall,
    rank_pool,
    summarise,
    summarise_weighted,
)

Direction = Literal["image_to_text", "text_to_image"]
DIRECTIONS: tuple[Direction, Direction] = ("image_to_text", "text_to_image")
ALWAYS_AT = 10
"""R@K is given for K up to this, and for larger K that the pool exceeds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RetrievalResult:
    """Ranks of all cases of a pool in both directions.

    Attributes:
        ranks: of the best right item of every query, 1 is best.
        right_ids: equal ids mark items that are right for each other.
        num_shared_texts: cases whose text another case of the pool has too.
        chance: expected R@K of a random order of the pool, under the same rule.
        label_only: R@K of one who knows the labels of scans and reports and nothing else; None without labels.
        regions: region alignment within the cases of the same pool.
    """

    ranks: Ranks
    right_ids: Int64[np.ndarray, " n"]
    num_shared_texts: int
    chance: dict[str, float]
    label_only: dict[str, float] | None
    regions: RegionAlignment

    @property
    def size(self) -> int:
        """Number of cases in the pool."""
        return len(self.right_ids)

    @property
    def recall_at(self) -> tuple[int, ...]:
        """The K of the R@K that are given."""
        return recall_at(self.size)

    @property
    def one_right_item(self) -> bool:
        """Whether every query has exactly one right item."""
        return len(np.unique(self.right_ids)) == self.size

    def ranks_of(self, direction: Direction) -> Int64[np.ndarray, " n"]:
        """The ranks of one direction."""
        return self.ranks.volume_to_text if direction == "image_to_text" else self.ranks.text_to_volume

    @property
    def image_to_text(self) -> dict[str, float]:
        """R@K, MRR, median_rank, mean_rank of finding the report of a scan."""
        return summarise(self.ranks.volume_to_text, self.recall_at)

    @property
    def text_to_image(self) -> dict[str, float]:
        """R@K, MRR, median_rank, mean_rank of finding the scan of a report."""
        return summarise(self.ranks.text_to_volume, self.recall_at)

    def as_log(self) -> dict[str, float]:
        """Flat names for a metrics log: ``image_to_text/R@5`` and so on, and ``region_alignment_accuracy``."""
        flat = {f"image_to_text/{name}": value for name, value in self.image_to_text.items()}
        flat |= {f"text_to_image/{name}": value for name, value in self.text_to_image.items()}
        return flat | {"region_alignment_accuracy": self.regions.accuracy}


def recall_at(size: int) -> tuple[int, ...]:
    """The K of R@K that a pool of this size is measured at: 1, 5, 10, and 50 and 100 where the pool is larger."""
    return tuple(k for k in RECALL_AT if k <= ALWAYS_AT or k < size)


def measure_retrieval(
    embeddings: EmbeddingSet,
    right_ids: Int64[np.ndarray, " n"] | None = None,
    labels: Bool[np.ndarray, "n c"] | None = None,
) -> RetrievalResult:
    """Rank every report for every scan and the other way round.

    Args:
        embeddings: of the pool; every case has a text.
        right_ids: equal ids mark items that are right for each other; None: the own item only.
        labels: the abnormalities of every case, for the label-only baseline.

    It measures telling this pool's cases apart, not whether a report is clinically right for a scan.

    Raises:
        DataError: the pool is empty.
        ValueError: a case has no text.
    """
    if not len(embeddings):
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
    if not embeddings.has_text.all():
        raise ValueError("a case without a text cannot take part in retrieval; choose a pool first")
    ids = np.arange(len(embeddings), dtype=np.int64) if right_ids is None else right_ids
    at = recall_at(len(embeddings))
    num_right = group_sizes(ids)
    return RetrievalResult(
        ranks=rank_pool(embeddings.volume, embeddings.text, ids),
        right_ids=ids,
        num_shared_texts=int(np.count_nonzero(group_sizes(embeddings.text_groups) > 1)),
        chance={f"R@{k}": chance_recall(len(embeddings), k, num_right) for k in at},
        label_only=None if labels is None else label_only_recall(labels, ids, at),
        regions=region_alignment_accuracy(
            embeddings.region_volume, embeddings.region_text, embeddings.region_mentions, embeddings.region_groups
        ),
    )


def retrieval_intervals(
    result: RetrievalResult, patient_ids: Sequence[str], num_samples: int, seed: int
) -> dict[Direction, dict[str, Interval]]:
    """95 % intervals of every score of both directions: patients are drawn with replacement, the ranks stay.

    The pool in which a query is ranked is the same in every sample: an interval says how far the mean over queries
    would move with other patients as queries. Where the items are drawn anew, too, intervals of R@K and MRR hold the
    truth as often as they should, those of a mean rank somewhat less often (decision 0013). Empty for no samples.
    """
    if not num_samples:
        return {}
    at, num_patients = result.recall_at, len(set(patient_ids))
    samples: dict[Direction, dict[str, list[np.ndarray]]] = {direction: {} for direction in DIRECTIONS}
    for weights in resample(patient_ids, num_samples, seed):
        for direction in DIRECTIONS:
            scores = summarise_weighted(result.ranks_of(direction), weights, at)
            for name, values in scores.items():
                samples[direction].setdefault(name, []).append(values)
    found: dict[Direction, dict[str, Interval]] = {}
    for direction in DIRECTIONS:
        estimates: Mapping[str, float] = summarise(result.ranks_of(direction), at)
        found[direction] = {
            name: interval(
                value, np.concatenate(samples[direction][name]), num_patients, "rank" if name in OF_RANKS else "share"
            )
            for name, value in estimates.items()
        }
    return found
