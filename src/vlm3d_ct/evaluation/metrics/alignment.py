"""Region-text alignment: does a region of a scan find the sentences that speak of it?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

CASES_PER_BLOCK = 256


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
    correct = np.zeros(mentions.shape, dtype=bool)
    num_rivals = np.zeros(mentions.shape, dtype=np.int64)
    for start in range(0, len(mentions), CASES_PER_BLOCK):
        block = slice(start, start + CASES_PER_BLOCK)
        correct[block], num_rivals[block] = _compare(
            region_volume[block], region_text[block], mentions[block], groups[block]
        )
    counted = mentions & (num_rivals > 0)
    num_regions = int(np.count_nonzero(counted))
    return RegionAlignment(
        accuracy=float(correct[counted].mean()) if num_regions else float("nan"),
        chance=float((1.0 / (1 + num_rivals[counted])).mean()) if num_regions else float("nan"),
        num_cases=int(np.count_nonzero(counted.any(axis=1))),
        num_regions=num_regions,
    )


def _compare(
    region_volume: Float[np.ndarray, "b r d"],
    region_text: Float[np.ndarray, "b r d"],
    mentions: Bool[np.ndarray, "b r"],
    groups: Int64[np.ndarray, "b r"],
) -> tuple[Bool[np.ndarray, "b r"], Int64[np.ndarray, "b r"]]:
    """For every region: whether no rival reaches its own text, and how many rivals there are."""
    similarity = _unit(region_volume) @ _unit(region_text).transpose(0, 2, 1)
    # Rounded so that equal vectors tie exactly, whatever order a product was summed in.
    similarity = similarity.astype(np.float32)
    own = np.diagonal(similarity, axis1=1, axis2=2)[:, :, None]
    rival = mentions[:, None, :] & (groups[:, :, None] != groups[:, None, :])
    lost = rival & ~(similarity < own)  # not "similarity >= own": a NaN is counted against us
    return ~lost.any(axis=2), np.count_nonzero(rival, axis=2).astype(np.int64)


def _unit(vectors: Float[np.ndarray, "b r d"]) -> Float64[np.ndarray, "b r d"]:
    """Vectors of length 1; a zero vector stays zero (similarity 0 with everything)."""
    exact = vectors.astype(np.float64)
    length = np.linalg.norm(exact, axis=2, keepdims=True)
    unit: Float64[np.ndarray, "b r d"] = exact / np.where(length == 0, 1.0, length)
    return unit
