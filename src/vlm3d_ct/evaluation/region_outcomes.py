"""Every region of every case asked for its own sentences: among those of its case, and among those of all cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from vlm3d_ct.embeddings import EmbeddingSet
from vlm3d_ct.evaluation.metrics.ranking import group_sizes, rank_pool

CASES_PER_BLOCK = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """What became of every region of every case; only where ``counted`` the others have a meaning.

    Attributes:
        counted: the report speaks of the region, and there was something to confuse it with.
        correct: its own sentences came first; ties are lost.
        chance: the probability (0..1) of that for a random order.
        preference: share (0..1) of the wrong sentences that were less similar than the best right ones; ties are lost.
            Its mean is an AUROC taken query by query; 0.5 for a random order.
        rival: within a case: the other region (index) whose sentences came nearest; across cases: the region itself.
        margin: within a case: cosine (-2..2) with its own sentences minus that with the rival's; across cases: NaN.
    """

    counted: Bool[np.ndarray, "n r"]
    correct: Bool[np.ndarray, "n r"]
    chance: Float64[np.ndarray, "n r"]
    preference: Float64[np.ndarray, "n r"]
    rival: Int64[np.ndarray, "n r"]
    margin: Float64[np.ndarray, "n r"]

    @property
    def chosen(self) -> Int64[np.ndarray, "n r"]:
        """The region (index) whose sentences came first."""
        own = np.broadcast_to(np.arange(self.rival.shape[1]), self.rival.shape)
        return np.where(self.correct, own, self.rival)


def within_cases(embeddings: EmbeddingSet) -> Outcomes:
    """Each region against the sentences of the other regions of its own case.

    Rivals are the mentioned regions of another group (equal groups have the same sentences). An encoder that knows
    which organ is which, the same in every case, can be right everywhere: this is no measure of finding a lesion.
    `metrics.alignment.region_alignment_accuracy` is the mean of ``correct``.
    """
    shape = embeddings.region_mentions.shape
    wins = np.zeros(shape, dtype=np.int64)
    rivals = np.zeros(shape, dtype=np.int64)
    nearest = np.zeros(shape, dtype=np.int64)
    margin = np.full(shape, np.nan)
    for start in range(0, shape[0], CASES_PER_BLOCK):
        rows = slice(start, start + CASES_PER_BLOCK)
        similarity = _similarity(embeddings, rows)
        mentions, groups = embeddings.region_mentions[rows], embeddings.region_groups[rows]
        own = np.diagonal(similarity, axis1=1, axis2=2)[:, :, None]
        rival = mentions[:, None, :] & (groups[:, :, None] != groups[:, None, :])
        rivals[rows] = np.count_nonzero(rival, axis=2)
        wins[rows] = np.count_nonzero(rival & (similarity < own), axis=2)
        others = np.where(rival, similarity, -np.inf)
        nearest[rows] = others.argmax(axis=2)
        margin[rows] = own[:, :, 0] - others.max(axis=2)
    counted = embeddings.region_mentions & (rivals > 0)
    return Outcomes(
        counted=counted,
        correct=counted & (wins == rivals),
        chance=1.0 / (1 + rivals),
        preference=wins / np.maximum(rivals, 1),
        rival=nearest,
        margin=margin,
    )


def across_cases(embeddings: EmbeddingSet) -> Outcomes:
    """Each region of each scan against what all reports say of the same region.

    Right are the case's own sentences and equal ones of other cases. As all candidates speak of one organ, knowing
    organs does not help: what is asked for is the state of this organ in this patient.
    """
    n, r = embeddings.region_mentions.shape
    counted = np.zeros((n, r), dtype=bool)
    correct = np.zeros((n, r), dtype=bool)
    chance, preference = np.zeros((n, r)), np.zeros((n, r))
    for region in range(r):
        cases = np.flatnonzero(embeddings.region_mentions[:, region])
        if not len(cases):
            continue
        groups = embeddings.region_groups[cases, region]
        volume, text = (
            _unit(side[cases, region]).astype(np.float32) for side in (embeddings.region_volume, embeddings.region_text)
        )
        ranks = rank_pool(volume, text, groups).volume_to_text
        right = group_sizes(groups)
        wrong = len(cases) - right
        counted[cases, region] = wrong > 0
        correct[cases, region] = (wrong > 0) & (ranks == 1)
        chance[cases, region] = right / len(cases)
        preference[cases, region] = 1 - (ranks - 1) / np.maximum(wrong, 1)
    return Outcomes(
        counted=counted,
        correct=correct,
        chance=chance,
        preference=preference,
        rival=np.broadcast_to(np.arange(r, dtype=np.int64), (n, r)).copy(),
        margin=np.full((n, r), np.nan),
    )


def confusion(outcomes: Outcomes) -> Float64[np.ndarray, "r r"]:
    """Row: a region of a scan; column: the region whose sentences came first. Shares of the counted regions of the row.

    A row in which nothing was counted is NaN.
    """
    size = outcomes.counted.shape[1]
    counts = np.zeros((size, size))
    rows = np.broadcast_to(np.arange(size), outcomes.counted.shape)[outcomes.counted]
    np.add.at(counts, (rows, outcomes.chosen[outcomes.counted]), 1.0)
    total = counts.sum(axis=1, keepdims=True)
    shares: Float64[np.ndarray, "r r"] = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    return shares


def _similarity(embeddings: EmbeddingSet, rows: slice) -> Float64[np.ndarray, "b r r"]:
    """Cosines of regions (rows) and sentences (columns) of each case, rounded so that equal vectors tie exactly."""
    volume, text = _unit(embeddings.region_volume[rows]), _unit(embeddings.region_text[rows])
    product: Float64[np.ndarray, "b r r"] = (volume @ text.transpose(0, 2, 1)).astype(np.float32).astype(np.float64)
    return product


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1 in float64; a zero vector stays zero."""
    exact = vectors.astype(np.float64)
    length = np.linalg.norm(exact, axis=-1, keepdims=True)
    unit: np.ndarray = exact / np.where(length == 0, 1.0, length)
    return unit
