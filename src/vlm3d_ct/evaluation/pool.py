"""The pool of a retrieval: which cases are in it, what counts as right, and what was left out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int64

from vlm3d_ct.data.names import reconstruction_of, scan_of
from vlm3d_ct.embeddings import EmbeddingSet
from vlm3d_ct.errors import DataError, Problem

PoolName = Literal["all", "first_reconstruction", "chest_only", "unique_text", "patient_unique"]
RightItem = Literal["own", "text", "scan"]
POOLS: tuple[PoolName, ...] = get_args(PoolName)
RIGHT: tuple[RightItem, ...] = get_args(RightItem)
POOL_RULES: dict[PoolName, str] = {
    "all": "every volume that has a text",
    "first_reconstruction": "the first reconstruction of every scan",
    "chest_only": "the first reconstruction of every scan that the data set's lists do not name as showing no chest",
    "unique_text": "the first volume of every distinct text",
    "patient_unique": "the first volume of every patient",
}
"""What is in each pool, in words. Published pools of CT-RATE's validation split: 3,039 (all), 1,564 (first
reconstruction), 1,551 (chest only), 1,493 (equal findings removed; here it is the folder's texts that must differ)."""
RIGHT_RULES: dict[RightItem, str] = {
    "own": "the case's own index only",
    "text": "any case with the identical text",
    "scan": "any reconstruction of the same scan",
}
"""What counts as right under each rule, in words."""
WITHOUT_TEXT = "without a text"


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """Some cases of an embedding set, and which items are right for which queries.

    Attributes:
        name: the rule that chose the cases.
        right: the rule that says what is right.
        indices: places of the cases in the embedding set, rising.
        case_ids: of these cases.
        right_ids: equal ids mark items that are right for each other.
        left_out: how many cases of the set are not in the pool, by reason.
    """

    name: PoolName
    right: RightItem
    indices: Int64[np.ndarray, " n"]
    case_ids: tuple[str, ...]
    right_ids: Int64[np.ndarray, " n"]
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.case_ids)


def choose_pool(
    embeddings: EmbeddingSet,
    pool: PoolName = "all",
    right: RightItem = "own",
    *,
    no_chest: Collection[str] = (),
    need_text: bool = True,
) -> Pool:
    """The cases of a pool.

    Args:
        embeddings: what to choose from.
        pool: see `POOL_RULES`. Of several cases the first is the one whose scan comes first in the alphabet (numbers as
            numbers) and whose reconstruction has the smallest number.
        right: see `RIGHT_RULES`.
        no_chest: ids of the cases that the data set's lists name as showing no chest.
        need_text: leave out the cases without a text.

    Raises:
        DataError: no case is left.
    """
    case_ids = embeddings.case_ids
    kept = list(range(len(case_ids)))
    left_out: dict[str, int] = {}

    def keep(reason: str, wanted: Callable[[int], bool]) -> None:
        before = len(kept)
        kept[:] = [i for i in kept if wanted(i)]
        if len(kept) < before:
            left_out[reason] = before - len(kept)

    if need_text:
        keep(WITHOUT_TEXT, lambda i: bool(embeddings.has_text[i]))
    if pool == "chest_only":
        keep("shows no chest, by the lists of the data set", lambda i: case_ids[i] not in no_chest)
    if pool in ("first_reconstruction", "chest_only"):
        first = _firsts(kept, case_ids, [scan_of(case_id) for case_id in case_ids])
        keep("not the first reconstruction of its scan", first.__contains__)
    elif pool == "unique_text":
        groups = [i if embeddings.text_groups[i] < 0 else (embeddings.text_groups[i],) for i in range(len(case_ids))]
        keep("its text is another case's too", _firsts(kept, case_ids, groups).__contains__)
    elif pool == "patient_unique":
        keep("not the first volume of its patient", _firsts(kept, case_ids, embeddings.patient_ids).__contains__)
    if not kept:
        raise DataError(_empty(pool, len(case_ids), left_out))
    indices = np.array(kept, dtype=np.int64)
    return Pool(
        name=pool,
        right=right,
        indices=indices,
        case_ids=tuple(case_ids[i] for i in kept),
        right_ids=_right_ids(embeddings, indices, right),
        left_out=left_out,
    )


def _right_ids(embeddings: EmbeddingSet, indices: Int64[np.ndarray, " n"], right: RightItem) -> Int64[np.ndarray, " n"]:
    if right == "own":
        return np.arange(len(indices), dtype=np.int64)
    if right == "text":
        groups: Int64[np.ndarray, " n"] = embeddings.text_groups[indices]
        return groups
    _, ids = np.unique([scan_of(embeddings.case_ids[i]) for i in indices], return_inverse=True)
    return ids.astype(np.int64)


def _firsts(kept: Sequence[int], case_ids: Sequence[str], groups: Sequence[Hashable]) -> set[int]:
    """The first case of every group."""
    first: dict[Hashable, int] = {}
    for i in sorted(kept, key=lambda i: reconstruction_of(case_ids[i])):
        first.setdefault(groups[i], i)
    return set(first.values())


def _empty(pool: str, total: int, left_out: dict[str, int]) -> Problem:
    reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
    return Problem(
        code="empty-pool",
        file="the evaluation pool",
        field=f"pool {pool}",
        value=f"0 of {total} cases",
        message=f"No case is left to evaluate{': ' + reasons if reasons else ''}.",
        remedy="Give a data folder with cases that the checkpoint was not trained on, with texts, or another --pool.",
    )
