"""Numbers rest on the patients of the cases that they divide by, and means on the classes that have both kinds."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics

from vlm3d_ct.evaluation.class_rates import Patients, behind_ranking, behind_rates, count_behind_mean
from vlm3d_ct.evaluation.metrics.binary import RATES
from vlm3d_ct.evaluation.metrics.calibration import expected_calibration_error
from vlm3d_ct.evaluation.zero_shot import FIXED_CUTS, Scored, measure_classes
from vlm3d_ct.seeding import random_stream

CASES = 60
PATIENTS = tuple(f"p{case // 2}" for case in range(CASES))


def made_up() -> tuple[np.ndarray, np.ndarray]:
    """Margins and labels of six classes: usual, rare, never called, without positives, without negatives, unknown."""
    stream = random_stream("class rates")
    labels = (stream.random((CASES, 6)) < 0.4).astype(np.int8)
    labels[:, 1] = np.arange(CASES) < 3
    labels[:, 3], labels[:, 4], labels[:, 5] = 0, 1, -1
    labels[stream.random((CASES, 6)) < 0.1] = -1
    margins = 1.5 * labels + stream.normal(size=(CASES, 6)) - 0.5
    margins[:, 2] -= 100
    return margins, labels


def measure(margins: np.ndarray, labels: np.ndarray, patients: tuple[str, ...] = PATIENTS, **changes: int) -> Scored:
    sampling = {"num_samples": 100, "seed": 0} | changes
    names = [str(column) for column in range(labels.shape[1])]
    probabilities = 1 / (1 + np.exp(-margins))
    return measure_classes(names, margins, probabilities, labels, patients, cuts=[FIXED_CUTS] * len(names), **sampling)


def test_a_number_rests_on_the_patients_of_the_cases_that_it_divides_by():
    _, labels = made_up()
    called = random_stream("called").random(CASES) < 0.2
    for column in labels.T:
        found = behind_ranking(column, Patients(PATIENTS)) | behind_rates(column, called, Patients(PATIENTS))
        assert set(found) == {"auroc", "average_precision", *RATES}

        def of(*kinds: int, column: np.ndarray = column) -> set[str]:
            return {patient for patient, label in zip(PATIENTS, column, strict=True) if label in kinds}

        expected = {
            "auroc": min(of(1), of(0), key=len),
            "average_precision": of(1),
            "precision": {p for p, label, call in zip(PATIENTS, column, called, strict=True) if call and label >= 0},
            "recall": of(1),
            "specificity": of(0),
            "f1": of(1),
            "f1_weighted": of(0, 1),
            "accuracy": of(0, 1),
        }
        names = np.unique(PATIENTS)
        assert {key: set(names[chosen]) for key, chosen in found.items()} == expected


def test_a_mean_rests_on_no_more_than_its_weakest_class_allows_and_not_on_more_than_all_patients():
    patients = np.arange(10)
    assert count_behind_mean([patients < 3, patients >= 7]) == 6
    assert count_behind_mean([patients < 3, patients < 8]) == 6
    assert count_behind_mean([patients < 3, patients < 3]) == 3
    assert count_behind_mean([patients < 3, patients < 0]) == 3
    assert count_behind_mean([patients < 0]) == 0
    assert count_behind_mean([]) == 0


def test_what_three_patients_show_is_bounded_as_by_three_patients():
    """A thousand patients, three with the finding, all found without a false alarm; ten others are called wrongly."""
    labels = (np.arange(1000)[:, None] < 3).astype(np.int8)
    patients = tuple(f"p{number}" for number in range(1000))
    exact = {n: binomtest(n, n).proportion_ci(0.95, "exact").low for n in (3, 1000)}
    numbers = measure(np.where(labels == 1, 3.0, -3.0), labels, patients).classes["0"].numbers
    for name, low in {
        "auroc": exact[3],
        "average_precision": exact[3],
        "recall@0.5": exact[3],
        "precision@0.5": exact[3],
        "f1@0.5": 2 * exact[3] / (1 + exact[3]),
        "accuracy@0.5": exact[1000],
    }.items():
        found = numbers[name]
        assert (found.estimate, found.low, found.high) == (1.0, pytest.approx(low, abs=1e-9), 1.0), name
    missed = measure(np.where(np.arange(1000)[:, None] < 13, 3.0, -3.0) * (1 - 2 * labels), labels, patients)
    for name, high in {"recall@0.5": 1 - exact[3], "f1@0.5": 2 * (1 - exact[3]) / (2 - exact[3])}.items():
        found = missed.classes["0"].numbers[name]
        assert (found.estimate, found.low, found.high) == (0.0, 0.0, pytest.approx(high, abs=1e-9)), name


def test_what_one_patient_shows_has_no_interval():
    labels = (np.arange(CASES)[:, None] < 2).astype(np.int8)  # two scans of one patient
    found = measure(np.where(labels == 1, 3.0, -3.0), labels).classes["0"].numbers
    for name in ("auroc", "average_precision", "recall@0.5", "precision@0.5", "f1@0.5"):
        assert found[name].estimate == 1
        assert np.isnan(found[name].low), name
    assert found["specificity@0.5"].low < 1


def test_means_over_classes_are_those_of_scikit_learn_over_one_set_of_classes():
    margins, labels = made_up()
    found = measure(margins, labels)
    rows: dict[str, list[float]] = {}
    errors = []
    for column in range(labels.shape[1]):
        known = labels[:, column] >= 0
        truth, scores = labels[known, column], margins[known, column]
        if len(np.unique(truth)) < 2:
            continue
        called, probable = scores >= 0, 1 / (1 + np.exp(-scores))
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            truth, called, average="binary", zero_division=0
        )
        row = {
            "auroc": metrics.roc_auc_score(truth, scores),
            "average_precision": metrics.average_precision_score(truth, scores),
            "precision@0.5": precision,
            "recall@0.5": recall,
            "specificity@0.5": metrics.recall_score(truth, called, pos_label=0),
            "f1@0.5": f1,
            "f1_weighted@0.5": metrics.f1_score(truth, called, average="weighted", zero_division=0),
            "accuracy@0.5": metrics.accuracy_score(truth, called),
        }
        for name, value in row.items():
            rows.setdefault(name, []).append(float(value))
        errors.append(expected_calibration_error(truth == 1, probable))
    assert found.num_auroc_classes == len(errors) == 3
    assert found.num_rate_classes == {"0.5": 3, "argmax": 3}
    assert {0.0} < set(rows["precision@0.5"])
    for name, values in rows.items():
        assert found.macro[name].estimate == pytest.approx(np.mean(values), abs=1e-12), name
    assert found.macro_ece == pytest.approx(np.mean(errors), abs=1e-12)
    assert np.isnan(found.classes["2"].numbers["precision@0.5"].estimate)


def test_classes_of_one_kind_change_no_mean_and_no_interval_of_one():
    margins, labels = made_up()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, without = measure(margins, labels), measure(margins[:, :3], labels[:, :3])
    assert found.macro == without.macro
    assert found.macro_ece == without.macro_ece
    assert found.macro["precision@0.5"].low > 0


def test_classes_without_a_threshold_take_no_part_at_that_threshold():
    margins, labels = made_up()
    cuts = [{"tuned": 0.5}, {"tuned": np.nan}, {"tuned": 0.5}]
    probabilities = 1 / (1 + np.exp(-margins[:, :3]))
    found = measure_classes(
        "abc", margins[:, :3], probabilities, labels[:, :3], PATIENTS, cuts=cuts, num_samples=0, seed=0
    )
    assert (found.num_auroc_classes, found.num_rate_classes) == (3, {"tuned": 2})
    for rate in ("recall", "f1", "accuracy"):
        own = [found.classes[name].numbers[f"{rate}@tuned"].estimate for name in "ac"]
        assert found.macro[f"{rate}@tuned"].estimate == pytest.approx(np.mean(own))
    assert found.macro["precision@tuned"].estimate == found.classes["a"].numbers["precision@tuned"].estimate / 2


def test_crg_is_of_the_cases_whose_every_label_is_known():
    margins, labels = made_up()
    found, complete = measure(margins[:, :5], labels[:, :5], num_samples=0), (labels[:, :5] >= 0).all(axis=1)
    patients = tuple(np.array(PATIENTS)[complete])
    known = measure(margins[complete, :5], labels[complete, :5], patients, num_samples=0)
    assert found.num_crg_cases == complete.sum() < CASES
    assert found.crg == known.crg
    nobody = measure(margins, labels, num_samples=0)  # the sixth class is known of nobody
    assert nobody.num_crg_cases == 0
    assert np.isnan(nobody.crg["0.5"])
