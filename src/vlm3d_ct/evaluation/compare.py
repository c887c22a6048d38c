"""Evaluations side by side, from their files: what each run scores, and how it differs from the first, in pairs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int8

from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.evaluation.class_rates import Patients, behind_ranking, count_behind_mean, mean_over_classes
from vlm3d_ct.evaluation.compare_regions import RegionScores
from vlm3d_ct.evaluation.metrics.binary import auroc_weighted, average_precision_weighted
from vlm3d_ct.evaluation.metrics.bootstrap import (
    Difference,
    Interval,
    Scale,
    interval,
    paired_difference,
    resample,
)
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
        kind: ``retrieval``, ``zero-shot``, ``regions`` or ``probe``.
        units: what is counted, in order: case ids.
        patient_ids: of the units.
        scores: the numbers of the run.
        num_patients: by number, how many patients it rests on.
        conditions: what must be alike in runs that are compared: what counts as right, the classes, their labels.
        provenance: as its results say.
    """

    name: str
    kind: str
    units: tuple[str, ...]
    patient_ids: tuple[str, ...]
    scores: Scores
    num_patients: Mapping[str, int]
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
        kind = results.get("kind")
        if kind in _READERS:
            file, reader = _READERS[kind]
            units, patients, scores, num_patients, conditions = reader(directory / file)
            right = results.get("protocol", {}).get("right_item", "")
            if units:
                return Run(
                    name=name,
                    kind=kind,
                    units=units,
                    patient_ids=patients,
                    scores=scores,
                    num_patients=num_patients,
                    conditions={**conditions, "what counts as right": right},
                    provenance={str(key): str(value) for key, value in results["provenance"].items()},
                )
            fault = f"{file} without rows"
        else:
            fault = f"{RESULTS_FILE}: kind {kind}" if kind else f"{RESULTS_FILE} names no kind: of an earlier version"
    except OSError as error:
        fault = f"{Path(str(error.filename)).name}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fault = f"{type(error).__name__}: {error}"
    message = "The folder holds no finished evaluation that can be compared case by case."
    remedy = f"Give output folders of `evaluate {', '.join(_READERS)}`; what is of an earlier version, evaluate again."
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
    estimates = [run.scores(np.ones((1, len(first.units)))) for run in runs]
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
        counts = [run.num_patients[key] for run in runs]
        scale: Scale = "rank" if key.endswith(LOWER_IS_BETTER) else "share"
        compared[key] = Compared(
            runs={
                run.name: interval(v, s, n, scale) for run, v, s, n in zip(runs, values, samples, counts, strict=True)
            },
            differences={
                run.name: paired_difference(v, values[0], s, samples[0], min(n, counts[0]), scale)
                for run, v, s, n in zip(runs[1:], values[1:], samples[1:], counts[1:], strict=True)
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
Read = tuple[tuple[str, ...], tuple[str, ...], Scores, Mapping[str, int], Mapping[str, str]]
"""Units, their patients, the numbers, the patients that each rests on, and the conditions."""


def _read_ranks(path: Path) -> Read:
    rows = _rows(path)
    ranks = {name: np.array([int(row[f"{name}_rank"]) for row in rows], dtype=np.int64) for name in DIRECTIONS}

    def scores(weights: Float64[np.ndarray, "b n"]) -> dict[str, Float64[np.ndarray, " b"]]:
        return {
            f"{name}/{metric}": values
            for name in DIRECTIONS
            for metric, values in summarise_weighted(ranks[name], weights, recall_at(len(rows))).items()
        }

    units, patients = _units(rows)
    num_patients = dict.fromkeys(scores(np.ones((1, len(rows)))) if rows else (), len(set(patients)))
    return units, patients, scores, num_patients, {}


def _read_predictions(path: Path) -> Read:
    """Cases by class, as zero-shot evaluations and probes write them; their margins rank the cases.

    Raises:
        ValueError: the classes have different cases, or the file is of an earlier version, without margins.
    """
    rows = _rows(path)
    scorings = [name for name in (rows[0] if rows else {}) if name.startswith("margin_")]
    if rows and not scorings:
        raise ValueError(f"{path.name} has no column margin_...: it is of an earlier version")
    of_class: dict[str, Rows] = {}
    for row in rows:
        of_class.setdefault(row["class"], []).append(row)
    units, patients = _units(next(iter(of_class.values()), []))
    if any(_units(found)[0] != units for found in of_class.values()):
        raise ValueError("the classes have different cases")
    labels = {
        name: np.array([{"": -1, "0": 0, "1": 1}[row["label"]] for row in found], dtype=np.int8)
        for name, found in of_class.items()
    }
    margins = {
        scoring: {name: np.array([float(row[scoring]) for row in found]) for name, found in of_class.items()}
        for scoring in scorings
    }

    def scores(weights: Float64[np.ndarray, "b n"]) -> dict[str, Float64[np.ndarray, " b"]]:
        found: dict[str, Float64[np.ndarray, " b"]] = {}
        for scoring, of_scoring in margins.items():
            by_class = {name: _areas(labels[name], of_scoring[name], weights) for name in labels}
            label, macro = scoring.removeprefix("margin_"), mean_over_classes(list(by_class.values()))
            found |= {f"{label}/macro {metric}": values for metric, values in macro.items()}
            found |= {f"{label}/auroc/{name}": of_one["auroc"] for name, of_one in by_class.items()}
        return found

    truth = {f"the labels of {name}": ",".join(row["label"] for row in found) for name, found in of_class.items()}
    conditions = {"the classes": ", ".join(of_class), **truth}
    return units, patients, scores, _count_behind(labels, patients, scorings), conditions


def _areas(
    labels: Int8[np.ndarray, " n"], margins: Float64[np.ndarray, " n"], weights: Float64[np.ndarray, "b n"]
) -> dict[str, Float64[np.ndarray, " b"]]:
    known = labels >= 0
    args = labels[known] == 1, margins[known], np.ascontiguousarray(weights[:, known])
    return {"auroc": auroc_weighted(*args), "average_precision": average_precision_weighted(*args)}


def _count_behind(
    labels: Mapping[str, Int8[np.ndarray, " n"]], patient_ids: Sequence[str], scorings: Sequence[str]
) -> dict[str, int]:
    """The patients that the numbers of predictions rest on, alike for all scorings."""
    patients = Patients(patient_ids)
    behind = {name: behind_ranking(column, patients) for name, column in labels.items()}
    mixed = [behind[name] for name, column in labels.items() if {0, 1} <= set(column.tolist())]
    found = {}
    for label in (scoring.removeprefix("margin_") for scoring in scorings):
        for metric in ("auroc", "average_precision"):
            found[f"{label}/macro {metric}"] = count_behind_mean([each[metric] for each in mixed])
        found |= {f"{label}/auroc/{name}": int(np.count_nonzero(each["auroc"])) for name, each in behind.items()}
    return found


def _read_regions(path: Path) -> Read:
    """Regions by case, and the scores of phrases where a lesion is known, by use of the masks."""
    phrases = path.with_name("phrases.csv")
    found = RegionScores(_rows(path), _rows(phrases) if phrases.is_file() else [])
    return found.case_ids, found.patient_ids, found, found.num_patients, {}


_READERS: Mapping[str, tuple[str, Callable[[Path], Read]]] = {
    "retrieval": ("ranks.csv", _read_ranks),
    "zero-shot": ("predictions.csv", _read_predictions),
    "regions": ("region_cases.csv", _read_regions),
    "probe": ("predictions.csv", _read_predictions),
}
"""By kind of evaluation, the file of its cases and what reads it."""


def _rows(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _units(rows: Rows) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(row["case_id"] for row in rows), tuple(row["patient_id"] for row in rows)


def _problem(file: str, field: str, value: Any, message: str, remedy: str) -> Problem:
    return Problem(code="compare", file=file, field=field, value=str(value), message=message, remedy=remedy)
