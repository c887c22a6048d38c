"""The retrieval evaluation from embeddings, a pool and labels to numbers and files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from vlm3d_ct.data.labels import UNKNOWN, LabelTable, complete_rows
from vlm3d_ct.embeddings import EmbeddingSet
from vlm3d_ct.evaluation.metrics.bootstrap import Interval
from vlm3d_ct.evaluation.metrics.ct_clip import report_to_volume, volume_to_volume
from vlm3d_ct.evaluation.metrics.ranking import exact_cosines
from vlm3d_ct.evaluation.pool import POOL_RULES, RIGHT_RULES, Pool
from vlm3d_ct.evaluation.results import CASES_FILE, format_share, write_cases, write_csv, write_results
from vlm3d_ct.evaluation.retrieval import (
    DIRECTIONS,
    Direction,
    RetrievalResult,
    measure_retrieval,
    retrieval_intervals,
)
from vlm3d_ct.health import measure_health

RANKS_FILE = "ranks.csv"


@dataclass(frozen=True, kw_only=True, eq=False)
class RetrievalEvaluation:
    """Everything that a retrieval evaluation found.

    Attributes:
        pool_name: folder and rule, in words.
        pool: the cases.
        embeddings: of the pool.
        result: ranks and baselines.
        intervals: of every score by direction; empty where none were asked for.
        ct_clip: ``report_to_volume`` and (with labels) ``volume_to_volume``, each ``compatible`` and ``corrected``.
        labels_note: why there are no labels; empty where there are.
        health: of the pool's embeddings.
        left_out: cases outside the pool, by reason.
        provenance: what made the numbers.
    """

    pool_name: str
    pool: Pool
    embeddings: EmbeddingSet
    result: RetrievalResult
    intervals: Mapping[Direction, Mapping[str, Interval]]
    ct_clip: Mapping[str, Mapping[str, Mapping[str, float]]]
    labels_note: str
    health: Mapping[str, float]
    left_out: Mapping[str, int]
    provenance: Mapping[str, str]

    @property
    def scores(self) -> dict[Direction, dict[str, Interval]]:
        """Every score with its interval, or with NaN for its ends."""
        found: dict[Direction, dict[str, Interval]] = {}
        for direction in DIRECTIONS:
            plain = self.result.image_to_text if direction == "image_to_text" else self.result.text_to_image
            known = self.intervals.get(direction, {})
            bare = {name: Interval(estimate=value, low=math.nan, high=math.nan) for name, value in plain.items()}
            found[direction] = bare | dict(known)
        return found


def evaluate_retrieval(
    embeddings: EmbeddingSet,
    pool: Pool,
    *,
    data_name: str,
    labels: LabelTable | None,
    left_out: Mapping[str, int],
    provenance: Mapping[str, str],
    num_bootstraps: int,
    seed: int,
) -> RetrievalEvaluation:
    """Measure a pool.

    Args:
        embeddings: what the pool was chosen from.
        pool: the cases and what is right.
        data_name: of the folder.
        labels: for the label-only baseline and the volume-to-volume score; None where the folder has none.
        left_out: cases that were left out before the pool was chosen, by reason.
        provenance: what made the embeddings.
        num_bootstraps: samples behind each interval; 0 for none.
        seed: of those samples.
    """
    chosen = embeddings.select(pool.indices)
    known, note = _known_labels(labels, pool)
    result = measure_retrieval(chosen, pool.right_ids, known)
    ct_clip: dict[str, Mapping[str, Mapping[str, float]]] = {
        "report_to_volume": report_to_volume(chosen.volume, chosen.text, chosen.text_groups)
    }
    if known is not None:
        ct_clip["volume_to_volume"] = volume_to_volume(chosen.volume, known, _patients(chosen))
    health = measure_health(chosen.volume, chosen.text)
    return RetrievalEvaluation(
        pool_name=f"{data_name}, {pool.name}",
        pool=pool,
        embeddings=chosen,
        result=result,
        intervals=retrieval_intervals(result, chosen.patient_ids, num_bootstraps, seed),
        ct_clip=ct_clip,
        labels_note=note,
        health=vars(health),
        left_out={**left_out, **pool.left_out},
        provenance=provenance,
    )


def write_retrieval(evaluation: RetrievalEvaluation, output_dir: Path) -> None:
    """Write ``pool_cases.txt``, ``ranks.csv`` and, last, ``results.json``."""
    pool, result = evaluation.pool, evaluation.result
    write_cases(output_dir, pool.case_ids)
    cosines = exact_cosines(evaluation.embeddings.volume, evaluation.embeddings.text)
    write_csv(
        output_dir / RANKS_FILE,
        ("case_id", "patient_id", "image_to_text_rank", "text_to_image_rank", "own_similarity"),
        zip(
            pool.case_ids,
            evaluation.embeddings.patient_ids,
            result.ranks.volume_to_text.tolist(),
            result.ranks.text_to_volume.tolist(),
            np.round(cosines, 6).tolist(),
            strict=True,
        ),
    )
    write_results(
        output_dir,
        "retrieval",
        {
            "pool": {"name": evaluation.pool_name, "size": len(pool), "cases_file": CASES_FILE},
            "image_to_text": result.image_to_text,
            "text_to_image": result.text_to_image,
            "chance": result.chance,
            "label_only": result.label_only,
            "intervals": evaluation.intervals,
            "protocol": {
                "pool": POOL_RULES[pool.name],
                "right_item": RIGHT_RULES[pool.right],
                "ties": "against the model",
                "cases_sharing_their_text": result.num_shared_texts,
                "labels": evaluation.labels_note or "known for every case",
            },
            "ct_clip": evaluation.ct_clip,
            "region_alignment": result.regions,
            "embedding_health": evaluation.health,
            "left_out": evaluation.left_out,
            "provenance": evaluation.provenance,
        },
    )


def format_table(evaluation: RetrievalEvaluation) -> str:
    """Both directions against the baselines, for a terminal."""
    result = evaluation.result
    names = [f"R@{k}" for k in result.recall_at]
    lines = [f"{'':18}" + "".join(f"{name:>9}" for name in names) + f"{'MRR':>9}{'median rank':>14}"]
    for title, row in (("volume to report", result.image_to_text), ("report to volume", result.text_to_image)):
        recalls = "".join(f"{format_share(row[name]):>9}" for name in names)
        lines.append(f"{title:18}{recalls}{row['MRR']:>9.3f}{row['median_rank']:>14g}")
    lines.append(f"{'chance':18}" + "".join(f"{format_share(result.chance[name]):>9}" for name in names))
    if result.label_only is not None:
        lines.append(f"{'labels only':18}" + "".join(f"{format_share(result.label_only[name]):>9}" for name in names))
    lines.append(
        f"region alignment {format_share(result.regions.accuracy)}, chance {format_share(result.regions.chance)} "
        f"({result.regions.num_cases} cases)"
    )
    shared = f"; {result.num_shared_texts} cases share their text with another" if result.num_shared_texts else ""
    lines.append(f"{result.size} cases; right is {RIGHT_RULES[evaluation.pool.right]}{shared}")
    return "\n".join(lines)


def _patients(embeddings: EmbeddingSet) -> Int64[np.ndarray, " n"]:
    _, ids = np.unique(np.asarray(embeddings.patient_ids), return_inverse=True)
    return ids.reshape(-1).astype(np.int64)


def _known_labels(labels: LabelTable | None, pool: Pool) -> tuple[Bool[np.ndarray, "n c"] | None, str]:
    """The labels of the pool's cases where every one is known, and why not otherwise."""
    if labels is None:
        return None, "the data folder has no labels (labels.csv, or --labels FILE)."
    values = labels.for_cases(pool.case_ids)
    known = complete_rows(values)
    if not known.all():
        return None, f"{np.count_nonzero(~known)} of {len(known)} cases have no complete labels."
    present: Bool[np.ndarray, "n c"] = values != 0
    assert UNKNOWN not in values
    return present, ""
