"""The zero-shot evaluation from scores and labels to numbers and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int8

from vlm3d_ct.evaluation.metrics.binary import RATES
from vlm3d_ct.evaluation.prompt_scores import SCORINGS, PromptScores, Scoring
from vlm3d_ct.evaluation.results import (
    CASES_FILE,
    format_interval,
    format_number,
    write_cases,
    write_csv,
    write_results,
)
from vlm3d_ct.evaluation.tuned import THRESHOLDS_FILE, TunedThresholds
from vlm3d_ct.evaluation.zero_shot import (
    TUNED,
    Scored,
    measure_scoring,
    prompt_sensitivity,
    top_k,
)

PREDICTION_COLUMNS = tuple(f"{what}_{scoring}" for scoring in SCORINGS for what in ("probability", "margin"))
"""Of ``predictions.csv``: margins rank the cases, also where probabilities are equal because they saturate."""
CLASSES_FILE, PREDICTIONS_FILE, WORDINGS_FILE = "classes.csv", "predictions.csv", "wordings.csv"
NOT_TUNED = "no thresholds were tuned: give --validation_dir (other patients), or --thresholds of an earlier run"


@dataclass(frozen=True, kw_only=True, eq=False)
class ZeroShotEvaluation:
    """Everything that a zero-shot evaluation found.

    Attributes:
        pool_name: folder and rule, in words.
        label_set: name of the label set.
        case_ids: of the cases, each with at least one known label.
        patient_ids: of them.
        labels: 1, 0, -1 unknown.
        scores: what the prompts say.
        scored: by scoring.
        wordings: AUROC of every wording alone, by class.
        top: share of cases whose class is among the first K, where every case has exactly one; else empty.
        tuned: the thresholds; None where there are none, then ``tuned_note`` says why.
        tuned_note: where they are from, or why there are none.
        left_out: cases and classes that do not take part, by reason.
        provenance: what made the numbers.
    """

    pool_name: str
    label_set: str
    case_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    labels: Int8[np.ndarray, "n c"]
    scores: PromptScores
    scored: Mapping[Scoring, Scored]
    wordings: Mapping[str, Mapping[str, float]]
    top: Mapping[str, float]
    tuned: TunedThresholds | None
    tuned_note: str
    left_out: Mapping[str, int]
    provenance: Mapping[str, str]

    @property
    def scoring_names(self) -> dict[Scoring, str]:
        """The scorings in words."""
        num = max(len(wordings) for wordings in self.scores.table.wordings.values())
        return {"main": self.scores.table.main, "ensemble": f"ensemble of {num}"}


def evaluate_zero_shot(
    scores: PromptScores,
    labels: Int8[np.ndarray, "n c"],
    case_ids: Sequence[str],
    patient_ids: Sequence[str],
    *,
    pool_name: str,
    label_set: str,
    exclusive: bool,
    tuned: TunedThresholds | None,
    left_out: Mapping[str, int],
    provenance: Mapping[str, str],
    num_bootstraps: int,
    seed: int,
) -> ZeroShotEvaluation:
    """Compare the scores of the cases with their labels.

    Args:
        scores: of the cases.
        labels: 1, 0, -1 unknown; every case has a known one.
        case_ids: of the cases.
        patient_ids: of the cases.
        pool_name: folder and rule, in words.
        label_set: its name.
        exclusive: whether every case has exactly one class.
        tuned: thresholds of other cases.
        left_out: what does not take part, by reason.
        provenance: what made the scores.
        num_bootstraps: samples behind each interval; 0 for none.
        seed: of those samples.
    """
    return ZeroShotEvaluation(
        pool_name=pool_name,
        label_set=label_set,
        case_ids=tuple(case_ids),
        patient_ids=tuple(patient_ids),
        labels=labels,
        scores=scores,
        scored={
            scoring: measure_scoring(
                scores,
                scoring,
                labels,
                patient_ids,
                thresholds=None if tuned is None else tuned.values,
                num_samples=num_bootstraps,
                seed=seed,
            )
            for scoring in SCORINGS
        },
        wordings=prompt_sensitivity(scores, labels),
        top=top_k(scores.positive, labels) if exclusive else {},
        tuned=tuned,
        tuned_note=NOT_TUNED if tuned is None else f"tuned on {tuned.source} by the rule {tuned.rule}",
        left_out=left_out,
        provenance=provenance,
    )


def write_zero_shot(evaluation: ZeroShotEvaluation, output_dir: Path) -> None:
    """Write the case list, the CSV files, the thresholds if any, and, last, ``results.json``."""
    write_cases(output_dir, evaluation.case_ids)
    write_csv(
        output_dir / CLASSES_FILE, ("scoring", "class", "metric", "estimate", "low", "high"), _class_rows(evaluation)
    )
    write_csv(
        output_dir / PREDICTIONS_FILE,
        ("case_id", "patient_id", "class", "label", *PREDICTION_COLUMNS),
        _predictions(evaluation),
    )
    rows = [
        (name, wording.name, wording.positive, wording.negative, evaluation.wordings[name][wording.name])
        for name, wordings in evaluation.scores.table.wordings.items()
        for wording in wordings
    ]
    write_csv(output_dir / WORDINGS_FILE, ("class", "wording", "positive", "negative", "auroc"), rows)
    if evaluation.tuned is not None:
        evaluation.tuned.save(output_dir / THRESHOLDS_FILE)
    write_results(output_dir, "zero-shot", _results(evaluation))


def spread(evaluation: ZeroShotEvaluation, name: str) -> tuple[float, float]:
    """Lowest and highest AUROC of a class over its wordings; NaN where none is defined."""
    defined = [value for value in evaluation.wordings[name].values() if not np.isnan(value)]
    return (min(defined), max(defined)) if defined else (float("nan"), float("nan"))


def mean_spread(evaluation: ZeroShotEvaluation) -> float:
    """Mean over the classes of highest minus lowest AUROC over the wordings."""
    spans = [high - low for low, high in (spread(evaluation, name) for name in evaluation.wordings) if low == low]
    return float(np.mean(spans)) if spans else float("nan")


def format_table(evaluation: ZeroShotEvaluation) -> str:
    """Macro numbers of both scorings, for a terminal."""
    lines = [f"{'':24}{'AUROC':>26}{'average precision':>26}{'F1 at 0.5':>12}{'F1 tuned':>12}{'ECE':>8}"]
    for scoring, found in evaluation.scored.items():
        macro = found.macro
        tuned = format_number(macro[f"f1@{TUNED}"].estimate) if f"f1@{TUNED}" in macro else "absent"
        lines.append(
            f"{evaluation.scoring_names[scoring]:24}{format_interval(macro['auroc']):>26}"
            f"{format_interval(macro['average_precision']):>26}{format_number(macro['f1@0.5'].estimate):>12}"
            f"{tuned:>12}{format_number(found.macro_ece):>8}"
        )
    lines += [f"{name}: {value:.3f}" for name, value in evaluation.top.items()]
    num = evaluation.scored["main"].num_auroc_classes
    lines.append(
        f"{len(evaluation.case_ids)} cases, {len(evaluation.scores.table.classes)} classes; means over the {num} with "
        f"positive and negative cases; "
        f"spread of AUROC over wordings {format_number(mean_spread(evaluation))}; {evaluation.tuned_note}"
    )
    return "\n".join(lines)


def _results(evaluation: ZeroShotEvaluation) -> dict[str, Any]:
    return {
        "pool": {"name": evaluation.pool_name, "size": len(evaluation.case_ids), "cases_file": CASES_FILE},
        "label_set": evaluation.label_set,
        "prompts": {
            "table": evaluation.scores.table.name,
            "sha256": evaluation.scores.table.identity,
            "main": evaluation.scores.table.main,
            "regions": {name: list(regions) for name, regions in evaluation.scores.asked.items()} or None,
        },
        "macro": {scoring: _macro(found) for scoring, found in evaluation.scored.items()},
        "top_k": dict(evaluation.top) or None,
        "classes": {
            scoring: {name: _class(result) for name, result in found.classes.items()}
            for scoring, found in evaluation.scored.items()
        },
        "calibration": {scoring: _curve(found) for scoring, found in evaluation.scored.items()},
        "prompt_sensitivity": {
            "mean_spread": mean_spread(evaluation),
            "classes": {
                name: {
                    "lowest": spread(evaluation, name)[0],
                    "highest": spread(evaluation, name)[1],
                    "auroc": dict(found),
                }
                for name, found in evaluation.wordings.items()
            },
        },
        "thresholds": {"note": evaluation.tuned_note, "file": THRESHOLDS_FILE if evaluation.tuned else None},
        "left_out": evaluation.left_out,
        "provenance": evaluation.provenance,
    }


def _macro(found: Scored) -> dict[str, Any]:
    return {
        "num_auroc_classes": found.num_auroc_classes,
        "num_rate_classes": found.num_rate_classes,
        **_nested(found.macro),
        "ece": found.macro_ece,
        "crg": dict(found.crg),
        "num_crg_cases": found.num_crg_cases,
    }


def _class(result: Any) -> dict[str, Any]:
    return {
        "num_cases": result.num_cases,
        "num_positive": result.num_positive,
        **_nested(result.numbers),
        "ece": result.ece,
        "brier": result.brier,
        "thresholds": dict(result.cuts),
    }


def _nested(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """``auroc``, ``average_precision``, then ``at`` by cut with the rates."""
    cuts = list(dict.fromkeys(key.split("@")[1] for key in numbers if "@" in key))
    plain: dict[str, Any] = {key: value for key, value in numbers.items() if "@" not in key}
    return plain | {"at": {cut: {name: numbers[f"{name}@{cut}"] for name in RATES} for cut in cuts}}


def _curve(found: Scored) -> dict[str, list[float]]:
    return {
        "mean_probability": found.curve.mean_probability.tolist(),
        "share_positive": found.curve.share_positive.tolist(),
        "count": found.curve.count.tolist(),
    }


def _class_rows(evaluation: ZeroShotEvaluation) -> Iterator[tuple[object, ...]]:
    for scoring, found in evaluation.scored.items():
        for name, numbers in (("macro", found.macro), *((n, r.numbers) for n, r in found.classes.items())):
            for metric, value in numbers.items():
                yield scoring, name, metric, value.estimate, value.low, value.high


def _predictions(evaluation: ZeroShotEvaluation) -> Iterator[tuple[object, ...]]:
    scores = evaluation.scores
    columns = [each for scoring in SCORINGS for each in (scores.probabilities(scoring), scores.margins[scoring])]
    for row, (case_id, patient_id) in enumerate(zip(evaluation.case_ids, evaluation.patient_ids, strict=True)):
        for column, name in enumerate(evaluation.scores.table.classes):
            label = int(evaluation.labels[row, column])
            values = (float(each[row, column]) for each in columns)
            yield case_id, patient_id, name, "" if label < 0 else label, *values
