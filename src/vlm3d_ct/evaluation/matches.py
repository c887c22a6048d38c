"""Single cases of a retrieval: where the right item came, and which wrong one came nearest or before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from vlm3d_ct.embeddings import EmbeddingSet
from vlm3d_ct.evaluation.metrics.ranking import exact_cosines
from vlm3d_ct.evaluation.retrieval import Direction, RetrievalResult


@dataclass(frozen=True, kw_only=True)
class Match:
    """One query of a retrieval.

    Attributes:
        case_id: the query: a scan (image to text) or a report (text to image).
        rank: rank of its own item.
        own_similarity: cosine (-1..1) with its own item.
        rival_id: the case of the most similar item whose text differs; None where all texts are identical.
        rival_similarity: cosine with that item.
    """

    case_id: str
    rank: int
    own_similarity: float
    rival_id: str | None
    rival_similarity: float | None

    @property
    def lost(self) -> bool:
        """Whether the rival was preferred to (or tied with) the own item."""
        return self.rival_similarity is not None and self.rival_similarity >= self.own_similarity


def best_first(embeddings: EmbeddingSet, result: RetrievalResult, direction: Direction) -> Int64[np.ndarray, " n"]:
    """Indices of the cases by rank, among equal ranks by similarity with the own item, best first."""
    return np.lexsort((-exact_cosines(embeddings.volume, embeddings.text), result.ranks_of(direction))).astype(np.int64)


def match_of(embeddings: EmbeddingSet, result: RetrievalResult, direction: Direction, index: int) -> Match:
    """The match of the case at ``index``."""
    image_to_text = direction == "image_to_text"
    query = (embeddings.volume if image_to_text else embeddings.text)[index].astype(np.float64)
    items = embeddings.text if image_to_text else embeddings.volume
    similarity = np.asarray(items @ query, dtype=np.float32)
    own = float(similarity[index])
    others = np.flatnonzero(embeddings.text_groups != embeddings.text_groups[index])
    rival = int(others[np.argmax(similarity[others])]) if others.size else None
    return Match(
        case_id=embeddings.case_ids[index],
        rank=int(result.ranks_of(direction)[index]),
        own_similarity=own,
        rival_id=None if rival is None else embeddings.case_ids[rival],
        rival_similarity=None if rival is None else float(similarity[rival]),
    )


def best_and_worst(
    embeddings: EmbeddingSet, result: RetrievalResult, direction: Direction, count: int
) -> tuple[list[Match], list[Match]]:
    """The ``count`` best and the ``count`` worst matches of the pool, the very best and the very worst first.

    No case is in both lists; of a pool that is too small for both the best come first.
    """
    order = [int(index) for index in best_first(embeddings, result, direction)]
    best, worst = order[:count], order[count:][::-1][:count]
    return (
        [match_of(embeddings, result, direction, index) for index in best],
        [match_of(embeddings, result, direction, index) for index in worst],
    )
