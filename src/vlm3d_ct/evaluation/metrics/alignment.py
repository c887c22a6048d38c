"""Region-text alignment: does a region of a scan find its own sentences, in its case and among all cases?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

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


def within_cases(
    region_volume: Float[np.ndarray, "n r d"],
    region_text: Float[np.ndarray, "n r d"],
    mentions: Bool[np.ndarray, "n r"],
    groups: Int64[np.ndarray, "n r"],
) -> Outcomes:
    """Each region against the sentences of the other regions of its own case.

    Rivals are the mentioned regions of another group (equal groups have the same sentences). An encoder that knows
    which organ is which, the same in every case, can be right everywhere: this is no measure of finding a lesion.
    """
    shape = mentions.shape
    wins = np.zeros(shape, dtype=np.int64)
    rivals = np.zeros(shape, dtype=np.int64)
    nearest = np.zeros(shape, dtype=np.int64)
    margin = np.full(shape, np.nan)
    for start in range(0, shape[0], CASES_PER_BLOCK):
        rows = slice(start, start + CASES_PER_BLOCK)
        similarity = _similarity(region_volume[rows], region_text[rows])
        own = np.diagonal(similarity, axis1=1, axis2=2)[:, :, None]
        rival = mentions[rows, None, :] & (groups[rows, :, None] != groups[rows, None, :])
        rivals[rows] = np.count_nonzero(rival, axis=2)
        wins[rows] = np.count_nonzero(rival & (similarity < own), axis=2)
        others = np.where(rival, similarity, -np.inf)
        nearest[rows] = others.argmax(axis=2)
        margin[rows] = own[:, :, 0] - others.max(axis=2)
    counted = mentions & (rivals > 0)
    return Outcomes(
        counted=counted,
        correct=counted & (wins == rivals),
        chance=1.0 / (1 + rivals),
        preference=wins / np.maximum(rivals, 1),
        rival=nearest,
        margin=margin,
    )


def across_cases(
    region_volume: Float[np.ndarray, "n r d"],
    region_text: Float[np.ndarray, "n r d"],
    mentions: Bool[np.ndarray, "n r"],
    groups: Int64[np.ndarray, "n r"],
) -> Outcomes:
    """Each region of each scan against what all reports say of the same region.

    Right are the case's own sentences and equal ones of other cases. As all candidates speak of one organ, knowing
    organs does not help: what is asked for is the state of this organ in this patient.
    """
    n, r = mentions.shape
    counted = np.zeros((n, r), dtype=bool)
    correct = np.zeros((n, r), dtype=bool)
    chance, preference = np.zeros((n, r)), np.zeros((n, r))
    for region in range(r):
        cases = np.flatnonzero(mentions[:, region])
        if not len(cases):
            continue
        same = groups[cases, region]
        volume, text = (_unit(side[cases, region]).astype(np.float32) for side in (region_volume, region_text))
        ranks = rank_pool(volume, text, same).volume_to_text
        right = group_sizes(same)
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


@dataclass(frozen=True, kw_only=True)
class RegionAlignment:
    """Region alignment accuracy of a pool.

    Attributes:
        accuracy: share (0..1) of the counted regions that prefer their own text; NaN where none was counted.
        chance: the accuracy (0..1) expected of random similarities; NaN where none was counted.
        num_cases: cases with at least one counted region.
        num_regions: counted regions of all cases.
    """

    accuracy: float
    chance: float
    num_cases: int
    num_regions: int


def region_alignment_accuracy(
    region_volume: Float[np.ndarray, "n r d"],
    region_text: Float[np.ndarray, "n r d"],
    mentions: Bool[np.ndarray, "n r"],
    groups: Int64[np.ndarray, "n r"],
) -> RegionAlignment:
    """Share of the mentioned regions whose own text is the most similar one within the case.

    A region of a scan is compared, by cosine, with the texts of all regions that the case's report mentions. Its
    rivals are those of another group (equal groups have the same text); a tie with a rival is lost. A region without
    a rival cannot fail and is left out, so a case with fewer than two mentioned regions does not count. Every counted
    region weighs the same; chance is the mean of 1 / (1 + rivals).

    It is not a measure of finding a lesion, nor of telling cases apart: an encoder that only knows which organ is
    which, the same in every case, can reach 1.
    """
    outcomes = within_cases(region_volume, region_text, mentions, groups)
    counted = outcomes.counted
    num_regions = int(np.count_nonzero(counted))
    return RegionAlignment(
        accuracy=float(outcomes.correct[counted].mean()) if num_regions else float("nan"),
        chance=float(outcomes.chance[counted].mean()) if num_regions else float("nan"),
        num_cases=int(np.count_nonzero(counted.any(axis=1))),
        num_regions=num_regions,
    )


def _similarity(
    region_volume: Float[np.ndarray, "b r d"], region_text: Float[np.ndarray, "b r d"]
) -> Float64[np.ndarray, "b r r"]:
    """Cosines of regions (rows) and sentences (columns) of each case.

    Rounded to float32, so that equal vectors tie exactly, whatever order a product was summed in.
    """
    product = _unit(region_volume) @ _unit(region_text).transpose(0, 2, 1)
    rounded: Float64[np.ndarray, "b r r"] = product.astype(np.float32).astype(np.float64)
    return rounded


def _unit(vectors: Float[np.ndarray, "*shape d"]) -> Float64[np.ndarray, "*shape d"]:
    """Vectors of length 1; a zero vector stays zero (similarity 0 with everything)."""
    exact = vectors.astype(np.float64)
    length = np.linalg.norm(exact, axis=-1, keepdims=True)
    unit: Float64[np.ndarray, "*shape d"] = exact / np.where(length == 0, 1.0, length)
    return unit
