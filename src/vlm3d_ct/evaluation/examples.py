"""The few cases that the report shows with pictures and text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int16, UInt8

from vlm3d_ct.embeddings import EmbeddingSet
from vlm3d_ct.evaluation.matches import best_and_worst
from vlm3d_ct.evaluation.retrieval import DIRECTIONS, RetrievalResult

MATCHES_PER_LIST = 2
"""Cases in each list of best and of worst matches."""
NUM_EXAMPLES = 6 * MATCHES_PER_LIST
"""In both directions the best, the worst, and what was preferred to them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """A case with what its pictures need.

    Attributes:
        case_id: as in the embeddings.
        voxels_hu: the prepared volume, axes as in `Volume`: HU, or the grey values 0..255 (uint8) of a slice.
        labels: on the same grid, 0 background: region ids of a volume, 1 for the lesion of a slice; None without mask.
        spacing_mm: distance of voxel centres along (z, y, x).
        text: the report.
    """

    case_id: str
    voxels_hu: Int16[np.ndarray, "z y x"] | UInt8[np.ndarray, "z y x"]
    labels: UInt8[np.ndarray, "z y x"] | None
    spacing_mm: tuple[float, float, float]
    text: str


def choose_examples(embeddings: EmbeddingSet, result: RetrievalResult, count: int = NUM_EXAMPLES) -> list[str]:
    """Ids of at most ``count`` cases that the report wants to show, the most telling first.

    In both directions the worst match, the case that was preferred to it, and the best match; then the second of each,
    and so on. The default is what the report has room for.
    """
    lists = [best_and_worst(embeddings, result, direction, MATCHES_PER_LIST) for direction in DIRECTIONS]
    wanted: list[str | None] = []
    for place in range(MATCHES_PER_LIST):
        for best, worst in lists:
            wanted += [case_id for match in worst[place : place + 1] for case_id in (match.case_id, match.rival_id)]
            wanted += [match.case_id for match in best[place : place + 1]]
    return list(dict.fromkeys(case_id for case_id in wanted if case_id is not None))[:count]
