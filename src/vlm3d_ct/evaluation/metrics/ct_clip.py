"""CT-CLIP's retrieval scores (github.com/ibrahimethemhamamci/CT-CLIP, scripts): as published, and as they are meant."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from vlm3d_ct.evaluation.metrics.ranking import exact_rows, rank_pool, row_blocks

RECALL_AT = (5, 10, 50, 100)
MAP_AT = (1, 5, 10, 50)


def report_to_volume(
    volume: Float32[np.ndarray, "n d"], text: Float32[np.ndarray, "n d"], text_ids: Int64[np.ndarray, " n"]
) -> dict[str, dict[str, float]]:
    """R@5, R@10, R@50, R@100 of finding the volume of a report, by variant.

    ``compatible``: only the own index is right, although reconstructions of a scan share their text, and of equal
    similarities the earlier index wins. ``corrected``: any volume with the identical text is right, ties count against
    the model. A K as large as the pool gives 1.
    """
    scan, report = exact_rows(volume, "volume"), exact_rows(text, "text")
    own = np.einsum("nd,nd->n", scan, report)
    compatible = np.empty(len(own), dtype=np.int64)
    places = np.arange(len(own))
    for rows in row_blocks(len(own)):
        similarity = report[rows] @ scan.T
        before = similarity > own[rows, None]
        before |= (similarity == own[rows, None]) & (places[None, :] < places[rows, None])
        compatible[rows] = 1 + np.count_nonzero(before, axis=1)
    corrected = rank_pool(volume, text, text_ids).text_to_volume
    return {
        name: {f"R@{k}": float(np.mean(ranks <= k)) for k in RECALL_AT}
        for name, ranks in (("compatible", compatible), ("corrected", corrected))
    }


def volume_to_volume(
    volume: Float32[np.ndarray, "n d"], labels: Bool[np.ndarray, "n c"], patients: Int64[np.ndarray, " n"]
) -> dict[str, dict[str, float]]:
    """``MAP@K``, K = 1, 5, 10, 50, by variant: mean Jaccard index of the labels of a query and its K nearest volumes.

    It is no mean average precision, whatever its name. The Jaccard index is |both| / |either|.

    ``compatible``: the gallery holds the query itself (the nearest of all) but no volume without a finding, and the
    value for a K is the mean over the queries of this and all smaller K, because the published code never empties its
    list. ``corrected``: the gallery is every volume of other patients, two volumes without any finding agree (1), and
    each K stands for itself. NaN where no gallery is left.
    """
    exact = exact_rows(volume, "volume")
    everyone = np.ones(len(exact), dtype=bool)
    with_finding: Bool[np.ndarray, " n"] = np.any(labels, axis=1)
    published = _jaccard_at(exact, labels, with_finding, None)
    own = _jaccard_at(exact, labels, everyone, patients)
    running = {}
    seen: list[Float64[np.ndarray, " n"]] = []
    for k in MAP_AT:
        seen.append(published[k])
        running[f"MAP@{k}"] = _mean(np.concatenate(seen))
    return {"compatible": running, "corrected": {f"MAP@{k}": _mean(own[k]) for k in MAP_AT}}


def _jaccard_at(
    exact: Float64[np.ndarray, "n d"],
    labels: Bool[np.ndarray, "n c"],
    in_gallery: Bool[np.ndarray, " n"],
    patients: Int64[np.ndarray, " n"] | None,
) -> dict[int, Float64[np.ndarray, " n"]]:
    """For every query the mean Jaccard index with its K nearest of the gallery, its patient's own left out if given."""
    found = {k: np.full(len(exact), np.nan) for k in MAP_AT}
    gallery = np.flatnonzero(in_gallery)
    if not len(gallery):
        return found
    for rows in row_blocks(len(exact)):
        similarity = exact[rows] @ exact[gallery].T
        if patients is not None:
            similarity[patients[rows][:, None] == patients[gallery][None, :]] = -np.inf
        for row, nearest in zip(range(rows.start, rows.stop), _nearest(similarity, max(MAP_AT)), strict=True):
            if len(nearest):
                both = (labels[row] & labels[gallery[nearest]]).sum(axis=1)
                either = (labels[row] | labels[gallery[nearest]]).sum(axis=1)
                jaccard = np.where(either > 0, both / np.maximum(either, 1), 1.0)
                for k in MAP_AT:
                    found[k][row] = jaccard[:k].mean()
    return found


def _nearest(similarity: Float64[np.ndarray, "b g"], count: int) -> Iterator[Int64[np.ndarray, " k"]]:
    """For every row the places of its ``count`` largest values, largest first, of equals the earlier; -inf left out."""
    size = similarity.shape[1]
    kept = min(count, size)
    limits = np.partition(similarity, size - kept, axis=1)[:, size - kept]
    for row, limit in zip(similarity, limits, strict=True):
        places = np.flatnonzero(row >= limit)
        order = places[np.argsort(-row[places], kind="stable")][:kept]
        yield order[np.isfinite(row[order])]


def _mean(values: Float64[np.ndarray, " n"]) -> float:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if len(defined) else math.nan
