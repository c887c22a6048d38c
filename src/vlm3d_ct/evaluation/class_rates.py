"""Numbers of classes and their means: on how many patients each rests, and which classes a mean is over.

A rate of few cases is known badly however many patients were seen: the recall of a finding that three patients have
rests on three patients. Intervals count those (`bootstrap.interval`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int8

Behind = dict[str, Bool[np.ndarray, " p"]]
"""By number, which of the patients it rests on."""


class Patients:
    """The patients of n cases.

    Args:
        patient_ids: the patient of each case.
    """

    def __init__(self, patient_ids: Sequence[str]):
        names, places = np.unique(np.asarray(patient_ids, dtype=np.str_), return_inverse=True)
        self._places, self._count = places.reshape(-1), len(names)

    def of(self, cases: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " p"]:
        """Which patients have one of the chosen cases."""
        chosen: Bool[np.ndarray, " p"] = np.zeros(self._count, np.bool_)
        chosen[self._places[cases]] = True
        return chosen


def behind_ranking(labels: Int8[np.ndarray, " n"], patients: Patients) -> Behind:
    """Of AUROC, which pairs positive with negative cases, the fewer of both; of average precision the positive ones.

    Args:
        labels: 1, 0, or -1 where unknown.
        patients: of the cases.
    """
    positive, negative = patients.of(labels == 1), patients.of(labels == 0)
    fewer = positive if np.count_nonzero(positive) <= np.count_nonzero(negative) else negative
    return {"auroc": fewer, "average_precision": positive}


def behind_rates(labels: Int8[np.ndarray, " n"], called: Bool[np.ndarray, " n"], patients: Patients) -> Behind:
    """Of what a threshold makes of the cases (`binary.RATES`): the patients of the cases that are divided by.

    Of F1 those with a positive case, for its hits are among them; to divide by the false alarms, too, makes it no
    surer.

    Args:
        labels: 1, 0, or -1 where unknown.
        called: positive.
        patients: of the cases.
    """
    known, positive = patients.of(labels >= 0), patients.of(labels == 1)
    return {
        "precision": patients.of(called & (labels >= 0)),
        "recall": positive,
        "specificity": patients.of(labels == 0),
        "f1": positive,
        "f1_weighted": known,
        "accuracy": known,
    }


def mean_over_classes(found: Sequence[Mapping[str, Float64[np.ndarray, " b"]]]) -> dict[str, Float64[np.ndarray, " b"]]:
    """Mean of every number over the classes with positive and negative cases, which are those with an AUROC.

    In each of b samples they are those of the sample. Where nothing is called positive the precision counts as 0, so
    that all rates are over the same classes; where a class has no threshold, it takes no part in the rates at that
    threshold. NaN where no class is left.

    Args:
        found: the numbers of each class; ``auroc`` among them, and ``recall@CUT`` beside ``precision@CUT``.
    """
    means = {}
    for key in found[0]:
        values = np.stack([_counted(of_class, key) for of_class in found])
        defined = np.isfinite(values)
        count, total = defined.sum(axis=0), np.where(defined, values, 0.0).sum(axis=0)
        means[key] = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return means


def has_part(of_class: Mapping[str, Float64[np.ndarray, " 1"]], key: str) -> bool:
    """Whether a class counts in the mean of a number (`mean_over_classes`)."""
    return bool(np.isfinite(_counted(of_class, key)[0]))


def _counted(of_class: Mapping[str, Float64[np.ndarray, " b"]], key: str) -> Float64[np.ndarray, " b"]:
    """What counts of a class in each sample; NaN where it takes no part."""
    values = of_class[key]
    if key.startswith("precision@"):
        has_threshold = np.isfinite(of_class[key.replace("precision@", "recall@")])
        values = np.where(np.isnan(values) & has_threshold, 0.0, values)
    counted: Float64[np.ndarray, " b"] = np.where(np.isfinite(of_class["auroc"]), values, np.nan)
    return counted


def count_behind_mean(behind: Sequence[Bool[np.ndarray, " p"]]) -> int:
    """On how many patients a mean over classes rests: as many times the fewest of a class as there are classes.

    But not on more than there are patients behind any of them. At 0 and 1 that is a valid bound whichever class the
    mean owes most to: (1 - c d)^n <= (1 - d)^(c n). Classes that rest on nobody (nothing was called positive) are
    constants and do not count.
    """
    counts = [int(np.count_nonzero(each)) for each in behind]
    counts = [count for count in counts if count]
    return min(len(counts) * min(counts), int(np.count_nonzero(np.any(behind, axis=0)))) if counts else 0
