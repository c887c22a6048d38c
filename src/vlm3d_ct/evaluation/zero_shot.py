"""Zero-shot classification: how what prompts say of each case compares with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int8

from vlm3d_ct.evaluation.class_rates import (
    Behind,
    Patients,
    behind_ranking,
    behind_rates,
    count_behind_mean,
    has_part,
    mean_over_classes,
)
from vlm3d_ct.evaluation.metrics.binary import (
    auroc,
    auroc_weighted,
    average_precision_weighted,
    crg_score,
    rates_weighted,
)
from vlm3d_ct.evaluation.metrics.bootstrap import Interval, Scale, interval, resample
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
        macro: means over the classes with positive and negative cases; a precision of nothing called counts as 0.
        macro_ece: mean expected calibration error of the same classes.
        num_auroc_classes: how many classes these are.
        num_rate_classes: how many of them have a threshold, by cut; the means of rates are over those.
        crg: CRG of all classes together by cut, of the cases whose every label is known; NaN where there is no such
            case, all their labels are alike, or a class has no threshold.
        num_crg_cases: how many cases these are.
        curve: reliability of all known probabilities together.
    """

    classes: Mapping[str, ClassResult]
    macro: Mapping[str, Interval]
    macro_ece: float
    num_auroc_classes: int
    num_rate_classes: Mapping[str, int]
    crg: Mapping[str, float]
    num_crg_cases: int
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
    scored = (labels, margins, probabilities, cuts)
    estimates = _numbers(*scored, np.ones((1, len(labels))))
    blocks = [_numbers(*scored, weights) for weights in resample(patient_ids, num_samples, seed)]
    behind = _behind(labels, probabilities, cuts, Patients(patient_ids))
    classes = {}
    for column, name in enumerate(names):
        known = labels[:, column] >= 0
        present, probable = labels[known, column] == 1, probabilities[known, column]
        counts = {key: int(np.count_nonzero(chosen)) for key, chosen in behind[column].items()}
        classes[name] = ClassResult(
            num_cases=len(present),
            num_positive=int(np.count_nonzero(present)),
            numbers=_intervals(estimates[column], [block[column] for block in blocks], counts),
            ece=expected_calibration_error(present, probable),
            brier=brier(present, probable),
            cuts=cuts[column],
        )
    takes_part = {key: [has_part(found, key) for found in estimates] for key in estimates[0]}
    eces = [found.ece for found, part in zip(classes.values(), takes_part["auroc"], strict=True) if part]
    return Scored(
        classes=classes,
        macro=_intervals(
            mean_over_classes(estimates),
            [mean_over_classes(block) for block in blocks],
            {key: count_behind_mean(_chosen(behind, key, parts)) for key, parts in takes_part.items()},
        ),
        macro_ece=float(np.mean(eces)) if eces else float("nan"),
        num_auroc_classes=sum(takes_part["auroc"]),
        num_rate_classes={cut: sum(takes_part[f"recall@{cut}"]) for cut in cuts[0]},
        crg=_crg(labels, probabilities, cuts),
        num_crg_cases=int(np.count_nonzero((labels >= 0).all(axis=1))),
        curve=reliability(labels[labels >= 0] == 1, probabilities[labels >= 0]),
    )


def _numbers(
    labels: Int8[np.ndarray, "n c"],
    margins: Float64[np.ndarray, "n c"],
    probabilities: Float64[np.ndarray, "n c"],
    cuts: Sequence[Mapping[str, float]],
    weights: Float64[np.ndarray, "b n"],
) -> list[dict[str, Float64[np.ndarray, " b"]]]:
    """Every number of every class in each of b samples."""
    found = []
    for column, thresholds in enumerate(cuts):
        known = labels[:, column] >= 0
        args = (labels[known, column] == 1, margins[known, column], probabilities[known, column])
        found.append(_numbers_of_class(*args, thresholds, np.ascontiguousarray(weights[:, known])))
    return found


def _numbers_of_class(
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


def _behind(
    labels: Int8[np.ndarray, "n c"],
    probabilities: Float64[np.ndarray, "n c"],
    cuts: Sequence[Mapping[str, float]],
    patients: Patients,
) -> list[Behind]:
    """The patients that every number of every class rests on."""
    behind = []
    for column, thresholds in enumerate(cuts):
        found = behind_ranking(labels[:, column], patients)
        for cut, threshold in thresholds.items():
            rates = behind_rates(labels[:, column], probabilities[:, column] >= threshold, patients)
            found |= {f"{name}@{cut}": chosen for name, chosen in rates.items()}
        behind.append(found)
    return behind


def _chosen(behind: Sequence[Behind], key: str, parts: Sequence[bool]) -> list[Bool[np.ndarray, " p"]]:
    """The patients behind a number in each class that takes part in its mean."""
    return [found[key] for found, part in zip(behind, parts, strict=True) if part]


def _cuts(name: str, scoring: Scoring, thresholds: Thresholds | None) -> dict[str, float]:
    tuned = {} if thresholds is None else {TUNED: thresholds[scoring][name]}
    return {**FIXED_CUTS, **tuned}


def _intervals(
    estimates: Mapping[str, Float64[np.ndarray, " 1"]],
    blocks: Sequence[Mapping[str, Float64[np.ndarray, " _"]]],
    num_patients: Mapping[str, int],
) -> dict[str, Interval]:
    found = {}
    for key, estimate in estimates.items():
        samples = np.concatenate([block[key] for block in blocks]) if blocks else np.zeros(0)
        scale: Scale = "f1" if key.startswith("f1@") else "share"
        found[key] = interval(float(estimate[0]), samples, num_patients[key], scale)
    return found


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
