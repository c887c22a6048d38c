"""Zero-shot classification: how what prompts say of each case compares with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int8

from vlm3d_ct.evaluation.metrics.binary import (
    auroc,
    auroc_weighted,
    average_precision_weighted,
    crg_score,
    rates_weighted,
)
from vlm3d_ct.evaluation.metrics.bootstrap import Interval, interval, resample
from vlm3d_ct.evaluation.metrics.calibration import Reliability, brier, expected_calibration_error, reliability
from vlm3d_ct.evaluation.metrics.thresholds import ARGMAX
from vlm3d_ct.evaluation.prompt_scores import PromptScores, Scoring

FIXED_CUTS: Mapping[str, float] = {"0.5": 0.5, "argmax": ARGMAX}
"""Thresholds that nobody chose. The argmax of a pair is its threshold 0.5: the two differ for no pair of prompts."""
TUNED = "tuned"


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassResult:
    """One class under one scoring.

    Attributes:
        num_cases: cases whose label is known.
        num_positive: of those.
        numbers: ``auroc``, ``average_precision``, and ``precision@CUT``, ``recall@CUT``, ``specificity@CUT``,
            ``f1@CUT``, ``f1_weighted@CUT``, ``accuracy@CUT`` for every cut; fractions 0..1, NaN where undefined.
        ece: expected calibration error of the probabilities.
        brier: mean squared error of the probabilities.
        cuts: the thresholds by name.
    """

    num_cases: int
    num_positive: int
    numbers: Mapping[str, Interval]
    ece: float
    brier: float
    cuts: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """All classes under one scoring.

    Attributes:
        classes: by name.
        macro: mean over the classes where a number is defined; ``num_auroc_classes`` says how many have an AUROC.
        macro_ece: mean expected calibration error.
        num_auroc_classes: classes with positive and negative cases.
        crg: CRG of all classes together by cut; NaN where a label is unknown.
        curve: reliability of all known probabilities together.
    """

    classes: Mapping[str, ClassResult]
    macro: Mapping[str, Interval]
    macro_ece: float
    num_auroc_classes: int
    crg: Mapping[str, float]
    curve: Reliability


Thresholds = Mapping[Scoring, Mapping[str, float]]
"""Tuned thresholds by scoring and class; NaN where none could be tuned."""


def measure_scoring(
    scores: PromptScores,
    scoring: Scoring,
    labels: Int8[np.ndarray, "n c"],
    patient_ids: Sequence[str],
    *,
    thresholds: Thresholds | None,
    num_samples: int,
    seed: int,
) -> Scored:
    """Compare one scoring with the labels.

    AUROC and average precision are taken from the margins: as of the probabilities, which in floating point are equal
    where they saturate. Intervals draw patients with replacement.

    Args:
        scores: of the cases.
        scoring: main wording or ensemble.
        labels: 1, 0, or -1 where unknown; those cases do not count for the class.
        patient_ids: of the cases.
        thresholds: tuned on other cases; None: the tuned numbers are absent.
        num_samples: behind each interval; 0 for none.
        seed: of the samples.
    """
    return measure_classes(
        scores.table.classes,
        scores.margins[scoring],
        scores.probabilities(scoring),
        labels,
        patient_ids,
        cuts=[_cuts(name, scoring, thresholds) for name in scores.table.classes],
        num_samples=num_samples,
        seed=seed,
    )


def measure_classes(
    names: Sequence[str],
    margins: Float64[np.ndarray, "n c"],
    probabilities: Float64[np.ndarray, "n c"],
    labels: Int8[np.ndarray, "n c"],
    patient_ids: Sequence[str],
    *,
    cuts: Sequence[Mapping[str, float]],
    num_samples: int,
    seed: int,
) -> Scored:
    """Compare scores of every class with its labels.

    Args:
        names: of the classes.
        margins: what ranks the cases; any rising function of the probabilities, without their saturation.
        probabilities: 0..1.
        labels: 1, 0, or -1 where unknown.
        patient_ids: of the cases.
        cuts: thresholds of every class by name.
        num_samples: behind each interval; 0 for none.
        seed: of the samples.
    """

    def numbers(weights: Float64[np.ndarray, "b n"]) -> list[dict[str, Float64[np.ndarray, " b"]]]:
        found = []
        for column in range(labels.shape[1]):
            known = labels[:, column] >= 0
            present = labels[known, column] == 1
            args = (present, margins[known, column], probabilities[known, column])
            found.append(_numbers(*args, cuts[column], np.ascontiguousarray(weights[:, known])))
        return found

    estimates = numbers(np.ones((1, len(labels))))
    blocks = [numbers(np.asarray(w, dtype=np.float64)) for w in resample(patient_ids, num_samples, seed)]
    classes = {}
    for column, name in enumerate(names):
        known = labels[:, column] >= 0
        present, probable = labels[known, column] == 1, probabilities[known, column]
        classes[name] = ClassResult(
            num_cases=int(np.count_nonzero(known)),
            num_positive=int(np.count_nonzero(present)),
            numbers=_intervals(estimates[column], [block[column] for block in blocks], _count(known, patient_ids)),
            ece=expected_calibration_error(present, probable),
            brier=brier(present, probable),
            cuts=cuts[column],
        )
    return Scored(
        classes=classes,
        macro=_intervals(_macro(estimates), [_macro(block) for block in blocks], len(set(patient_ids))),
        macro_ece=_mean_defined([found.ece for found in classes.values()]),
        num_auroc_classes=sum(bool(np.isfinite(found["auroc"][0])) for found in estimates),
        crg=_crg(labels, probabilities, cuts),
        curve=reliability(labels[labels >= 0] == 1, probabilities[labels >= 0]),
    )


def _numbers(
    present: Bool[np.ndarray, " n"],
    margins: Float64[np.ndarray, " n"],
    probabilities: Float64[np.ndarray, " n"],
    cuts: Mapping[str, float],
    weights: Float64[np.ndarray, "b n"],
) -> dict[str, Float64[np.ndarray, " b"]]:
    """Every number of a class in each of b samples."""
    found = {
        "auroc": auroc_weighted(present, margins, weights),
        "average_precision": average_precision_weighted(present, margins, weights),
    }
    rates: dict[float, dict[str, Float64[np.ndarray, " b"]]] = {}
    for cut, threshold in cuts.items():
        if threshold not in rates:
            rates[threshold] = rates_weighted(present, probabilities, threshold, weights)
        found |= {f"{name}@{cut}": values for name, values in rates[threshold].items()}
    return found


def _cuts(name: str, scoring: Scoring, thresholds: Thresholds | None) -> dict[str, float]:
    tuned = {} if thresholds is None else {TUNED: thresholds[scoring][name]}
    return {**FIXED_CUTS, **tuned}


def _intervals(
    estimates: Mapping[str, Float64[np.ndarray, " 1"]],
    blocks: Sequence[Mapping[str, Float64[np.ndarray, " _"]]],
    num_patients: int,
) -> dict[str, Interval]:
    found = {}
    for key, estimate in estimates.items():
        samples = np.concatenate([block[key] for block in blocks]) if blocks else np.zeros(0)
        found[key] = interval(float(estimate[0]), samples, num_patients)
    return found


def _count(chosen: Bool[np.ndarray, " n"], patient_ids: Sequence[str]) -> int:
    """The number of patients of the chosen cases."""
    return len({patient for patient, use in zip(patient_ids, chosen.tolist(), strict=True) if use})


def _macro(found: Sequence[Mapping[str, Float64[np.ndarray, " b"]]]) -> dict[str, Float64[np.ndarray, " b"]]:
    """Mean over the classes where a number is defined, in every sample."""
    means = {}
    for key in found[0]:
        values = np.stack([of_class[key] for of_class in found])
        defined = np.isfinite(values)
        count, total = defined.sum(axis=0), np.where(defined, values, 0.0).sum(axis=0)
        means[key] = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return means


def _mean_defined(values: Sequence[float]) -> float:
    defined = [value for value in values if np.isfinite(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _crg(
    labels: Int8[np.ndarray, "n c"], probabilities: Float64[np.ndarray, "n c"], cuts: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """CRG by cut, of the cases whose every label is known; NaN where none is or a class has no threshold."""
    complete = (labels >= 0).all(axis=1)
    found = {}
    for cut in cuts[0]:
        limits = np.array([of_class[cut] for of_class in cuts])
        usable = complete.any() and bool(np.isfinite(limits).all())
        called = probabilities[complete] >= limits
        found[cut] = crg_score(labels[complete] == 1, called) if usable else float("nan")
    return found


def prompt_sensitivity(scores: PromptScores, labels: Int8[np.ndarray, "n c"]) -> dict[str, dict[str, float]]:
    """AUROC of every wording alone, by class; NaN where a class has no positive or no negative case."""
    found: dict[str, dict[str, float]] = {}
    for column, (name, wordings) in enumerate(scores.by_wording.items()):
        known = labels[:, column] >= 0
        present = labels[known, column] == 1
        found[name] = {wording: auroc(present, margins[known]) for wording, margins in wordings.items()}
    return found


def top_k(
    positive: Float64[np.ndarray, "n c"], labels: Int8[np.ndarray, "n c"], at: Sequence[int] = (1, 5)
) -> dict[str, float]:
    """Share of cases whose class is among the first K by cosine with the positive ensemble; ties count against us.

    For label sets in which every case has exactly one class. Chance is K / number of classes.

    Raises:
        ValueError: a case has none or several classes.
    """
    if ((labels == 1).sum(axis=1) != 1).any():
        raise ValueError("every case must have exactly one class")
    own = np.where(labels == 1, positive, -np.inf).max(axis=1)
    ranks = (positive >= own[:, None]).sum(axis=1)
    return {f"top{k}": float(np.mean(ranks <= k)) for k in at if k < labels.shape[1] or k == 1}
