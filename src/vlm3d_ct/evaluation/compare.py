"""Evaluations side by side, from their files: what each run scores, and how it differs from the first, in pairs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.evaluation.compare_regions import RegionScores
from vlm3d_ct.evaluation.metrics.binary import auroc_weighted, average_precision_weighted
from vlm3d_ct.evaluation.metrics.bootstrap import Difference, Interval, interval, paired_difference, resample
from vlm3d_ct.evaluation.metrics.ranking import summarise_weighted
from vlm3d_ct.evaluation.results import RESULTS_FILE
from vlm3d_ct.evaluation.retrieval import DIRECTIONS, recall_at

Scores = Callable[[Float64[np.ndarray, "b n"]], dict[str, Float64[np.ndarray, " b"]]]
"""From how often each unit counts in b samples to every number in each of them."""
LOWER_IS_BETTER = ("median_rank", "mean_rank")


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One evaluation, read from its folder.

    Attributes:
        name: of the folder.
        kind: ``retrieval``, ``predictions`` (zero-shot and probes), or ``regions``.
        units: what is counted, in order: case ids.
        patient_ids: of the units.
        scores: the numbers of the run.
        conditions: what must be alike in runs that are compared: what counts as right, the classes, their labels.
        provenance: as its results say.
    """

    name: str
    kind: str
    units: tuple[str, ...]
    patient_ids: tuple[str, ...]
    scores: Scores
    conditions: Mapping[str, str]
    provenance: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One number of all runs.

    Attributes:
        runs: by run, with its interval.
        differences: by run but the first: that run minus the first.
    """

    runs: Mapping[str, Interval]
    differences: Mapping[str, Difference]


def read_run(directory: Path, name: str) -> Run:
    """Read an evaluation from its folder.

    Raises:
        DataError: the folder holds no finished evaluation, or one that cannot be compared case by case.
    """
    try:
        results = json.loads((directory / RESULTS_FILE).read_text("utf-8"))
        provenance = {str(key): str(value) for key, value in results["provenance"].items()}
        for file, reader in _READERS.items():
            if (directory / file).is_file():
                kind, units, patients, scores, conditions = reader(directory / file)
                if not units:
                    break
                right = results.get("protocol", {}).get("right_item", "")
                return Run(
                    name=name,
                    kind=kind,
                    units=units,
                    patient_ids=patients,
                    scores=scores,
                    conditions={**conditions, "what counts as right": right},
                    provenance=provenance,
                )
        fault = f"none of {', '.join(_READERS)} with rows"
    except OSError as error:
        fault = f"{Path(str(error.filename)).name}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fault = f"{type(error).__name__}: {error}"
    message = "The folder holds no finished evaluation that can be compared case by case."
    remedy = "Give the output folders of `evaluate retrieval`, `zero-shot`, `regions` or `probe`."
    raise DataError(_problem(str(directory), "content", fault, message, remedy))


def compare_runs(runs: Sequence[Run], num_samples: int, seed: int) -> dict[str, Compared]:
    """Every number that all runs have, with intervals, and the paired differences from the first run.

    The same patients are drawn for all runs, so what makes a case hard for both cancels.

    Args:
        runs: two or more, of one kind and on the same units.
        num_samples: bootstrap samples.
        seed: of them.

    Raises:
        DataError: the runs are of different kinds, on different units, or have other classes, labels or another rule of
            what is right: their numbers do not compare.
    """
    first = runs[0]
    for other in runs[1:]:
        _refuse_others(first, other)
    count, num_patients = len(first.units), len(set(first.patient_ids))
    estimates = [run.scores(np.ones((1, count))) for run in runs]
    shared = [key for key in estimates[0] if all(key in found for found in estimates)]
    if not shared:
        message = f"It has no number in common with {first.name}."
        raise DataError(_problem(runs[-1].name, "numbers", "0", message, "Compare evaluations of one kind."))
    blocks: list[list[dict[str, Float64[np.ndarray, " _"]]]] = [[] for _ in runs]
    for weights in resample(first.patient_ids, num_samples, seed):
        for run, kept in zip(runs, blocks, strict=True):
            kept.append(run.scores(weights))
    compared = {}
    for key in shared:
        values = [float(found[key][0]) for found in estimates]
        samples = [np.concatenate([block[key] for block in kept]) if kept else np.zeros(0) for kept in blocks]
        compared[key] = Compared(
            runs={
                run.name: interval(v, s, num_patients, "rank" if key.endswith(LOWER_IS_BETTER) else "share")
                for run, v, s in zip(runs, values, samples, strict=True)
            },
            differences={
                run.name: paired_difference(v, values[0], s, samples[0], num_patients)
                for run, v, s in zip(runs[1:], values[1:], samples[1:], strict=True)
            },
        )
    return compared


def _refuse_others(first: Run, other: Run) -> None:
    if first.kind != other.kind:
        message = f"{first.name} is an evaluation of another kind ({first.kind})."
        raise DataError(_problem(other.name, "kind", other.kind, message, "Compare evaluations of one kind."))
    if first.units != other.units or first.patient_ids != other.patient_ids:
        missing, more = len(set(first.units) - set(other.units)), len(set(other.units) - set(first.units))
        message = f"It is not on the same cases as {first.name}: {missing} are missing and {more} are others."
        remedy = "Evaluate both with the same data and the same --pool."
        raise DataError(_problem(other.name, "cases", f"{len(other.units)} of {len(first.units)}", message, remedy))
    keys = dict.fromkeys((*first.conditions, *other.conditions))
    if differing := [key for key in keys if first.conditions.get(key) != other.conditions.get(key)]:
        message = f"It differs from {first.name} in {', '.join(differing[:5])}."
        remedy = "Evaluate both with the same labels, classes and rule of what is right."
        raise DataError(_problem(other.name, "conditions", f"{len(differing)} differ", message, remedy))


Rows = list[dict[str, str]]
Read = tuple[str, tuple[str, ...], tuple[str, ...], Scores, Mapping[str, str]]


def _read_ranks(path: Path) -> Read:
    rows = _rows(path)
    ranks = {name: np.array([int(row[f"{name}_rank"]) for row in rows], dtype=np.int64) for name in DIRECTIONS}

    def scores(weights: Float64[np.ndarray, "b n"]) -> dict[str, Float64[np.ndarray, " b"]]:
        return {
            f"{name}/{metric}": values
            for name in DIRECTIONS
            for metric, values in summarise_weighted(ranks[name], weights, recall_at(len(rows))).items()
        }

    return "retrieval", *_units(rows, lambda row: row["case_id"]), scores, {}


def _read_predictions(path: Path) -> Read:
    """Cases by class, as zero-shot evaluations and probes write them."""
    rows = _rows(path)
    scorings = [name for name in (rows[0] if rows else {}) if name.startswith("probability_")]
    classes = list(dict.fromkeys(row["class"] for row in rows))
    of_class = {name: [row for row in rows if row["class"] == name] for name in classes}
    columns = {}
    for name, found in of_class.items():
        labels = np.array([{"": -1, "0": 0, "1": 1}[row["label"]] for row in found])
        columns[name] = labels, {s: np.array([float(row[s]) for row in found]) for s in scorings}
    units, patients = _units(of_class[classes[0]] if classes else [], lambda row: row["case_id"])
    if any(_units(found, lambda row: row["case_id"])[0] != units for found in of_class.values()):
        raise ValueError("the classes have different cases")

    def scores(weights: Float64[np.ndarray, "b n"]) -> dict[str, Float64[np.ndarray, " b"]]:
        found: dict[str, Float64[np.ndarray, " b"]] = {}
        for scoring in scorings:
            by_class: dict[str, list[Float64[np.ndarray, " b"]]] = {"auroc": [], "average_precision": []}
            for labels, probabilities in columns.values():
                known = labels >= 0
                args = (labels[known] == 1, probabilities[scoring][known], np.ascontiguousarray(weights[:, known]))
                by_class["auroc"].append(auroc_weighted(*args))
                by_class["average_precision"].append(average_precision_weighted(*args))
            label = scoring.removeprefix("probability_")
            found |= {f"{label}/macro {metric}": _mean_defined(values) for metric, values in by_class.items()}
            found |= {f"{label}/auroc/{name}": v for name, v in zip(columns, by_class["auroc"], strict=True)}
        return found

    truth = {f"the labels of {name}": ",".join(row["label"] for row in found) for name, found in of_class.items()}
    return "predictions", units, patients, scores, {"the classes": ", ".join(classes), **truth}


def _read_regions(path: Path) -> Read:
    """Regions by case, and the scores of phrases where a lesion is known, by use of the masks."""
    phrases = path.with_name("phrases.csv")
    found = RegionScores(_rows(path), _rows(phrases) if phrases.is_file() else [])
    return "regions", found.case_ids, found.patient_ids, found, {}


_READERS: Mapping[str, Callable[[Path], Read]] = {
    "ranks.csv": _read_ranks,
    "predictions.csv": _read_predictions,
    "region_cases.csv": _read_regions,
}


def _rows(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _units(rows: Rows, name: Callable[[dict[str, str]], str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(name(row) for row in rows), tuple(row["patient_id"] for row in rows)


def _mean_defined(values: Sequence[Float64[np.ndarray, " b"]]) -> Float64[np.ndarray, " b"]:
    stacked = np.stack(values)
    defined = np.isfinite(stacked)
    total, count = np.where(defined, stacked, 0.0).sum(axis=0), defined.sum(axis=0)
    mean: Float64[np.ndarray, " b"] = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return mean


def _problem(file: str, field: str, value: Any, message: str, remedy: str) -> Problem:
    return Problem(code="compare", file=file, field=field, value=str(value), message=message, remedy=remedy)
