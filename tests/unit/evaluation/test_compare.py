from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pools import make_pool
from scipy.stats import binomtest

from vlm3d_ct.cli.main import run as main
from vlm3d_ct.embeddings import EmbeddingSet
from vlm3d_ct.errors import DataError
from vlm3d_ct.evaluation.compare import compare_runs, read_run
from vlm3d_ct.evaluation.compare_files import comparison_page, format_comparison, write_comparison
from vlm3d_ct.evaluation.metrics.binary import auroc
from vlm3d_ct.evaluation.metrics.bootstrap import interval, paired_difference, resample
from vlm3d_ct.evaluation.pool import choose_pool
from vlm3d_ct.evaluation.results import write_csv, write_results
from vlm3d_ct.evaluation.retrieval_files import evaluate_retrieval, write_retrieval
from vlm3d_ct.seeding import random_stream


def retrieval(folder: Path, pool: EmbeddingSet, right: str = "own") -> dict[str, float]:
    evaluation = evaluate_retrieval(
        pool,
        choose_pool(pool, right=right),
        data_name="d",
        labels=None,
        left_out={},
        provenance={"checkpoint": folder.name},
        num_bootstraps=0,
        seed=0,
    )
    write_retrieval(evaluation, folder)
    return evaluation.result.image_to_text


def predictions(folder: Path, noise: float, cases: int = 60) -> np.ndarray:
    stream = random_stream("truth")
    labels = stream.integers(0, 2, (cases, 2))
    margins = labels - 0.5 + noise * random_stream("noise", str(noise)).normal(size=(cases, 2))
    rows = [
        (f"c{i}", f"p{i // 2}", name, "" if (i, k) == (3, 1) else int(labels[i, k]), margins[i, k])
        for i in range(cases)
        for k, name in enumerate(("Cyst", "Air"))
    ]
    write_csv(folder / "predictions.csv", ("case_id", "patient_id", "class", "label", "margin_main"), rows)
    write_results(folder, "zero-shot", {"provenance": {"checkpoint": folder.name}})
    return np.array([auroc(labels[:, 0] == 1, margins[:, 0])])


def test_runs_have_the_numbers_of_their_evaluations_and_paired_differences(tmp_path: Path):
    scores = [retrieval(tmp_path / name, make_pool(60, noise=noise)) for name, noise in (("a", 3.0), ("b", 1.0))]
    runs = [read_run(tmp_path / name, name) for name in "ab"]
    compared = compare_runs(runs, 300, seed=0)
    for metric, value in scores[0].items():
        found = compared[f"image_to_text/{metric}"]
        assert found.runs["a"].estimate == pytest.approx(value, abs=1e-12)
        gap = found.differences["b"]
        assert gap.interval.estimate == pytest.approx(scores[1][metric] - value, abs=1e-12)
    mrr = compared["image_to_text/MRR"].differences["b"]
    assert mrr.interval.low > 0
    assert mrr.p_value < 0.05


def test_a_run_does_not_differ_from_itself(tmp_path: Path):
    for name in ("a", "b"):
        retrieval(tmp_path / name, make_pool(30, noise=2.0))
    compared = compare_runs([read_run(tmp_path / name, name) for name in "ab"], 100, seed=0)
    for found in compared.values():
        gap = found.differences["b"]
        assert (gap.interval.estimate, gap.interval.low, gap.interval.high, gap.p_value) == (0, 0, 0, 1)


def test_predictions_are_compared_by_class_and_in_the_mean(tmp_path: Path):
    values = [predictions(tmp_path / name, noise) for name, noise in (("a", 3.0), ("b", 0.5))]
    compared = compare_runs([read_run(tmp_path / name, name) for name in "ab"], 200, seed=0)
    assert compared["main/auroc/Cyst"].runs["a"].estimate == pytest.approx(values[0][0], abs=1e-9)
    macro = compared["main/macro auroc"].runs["b"].estimate
    assert macro == pytest.approx(np.mean([compared[f"main/auroc/{c}"].runs["b"].estimate for c in ("Cyst", "Air")]))
    assert compared["main/macro auroc"].differences["b"].interval.low > 0


def test_regions_and_phrases_are_compared_by_use_of_the_masks(tmp_path: Path):
    region_header = (
        "masks",
        "case_id",
        "patient_id",
        "region",
        "within_correct",
        "across_correct",
        "across_preference",
    )
    header = ("masks", "case_id", "patient_id", "heat_pointing", "phrase")
    for name, hits in (("a", (0, 0, 1)), ("b", (1, 1, 1))):
        regions = [("true", f"c{i}", f"p{i}", "heart", hit, "", "") for i, hit in enumerate(hits)]
        phrases = [("true", f"c{i}", f"p{i}", float(hit), "a, b") for i, hit in enumerate(hits)]
        write_csv(tmp_path / name / "region_cases.csv", region_header, regions)
        write_csv(tmp_path / name / "phrases.csv", header, phrases)
        write_results(tmp_path / name, "regions", {"provenance": {}})
    compared = compare_runs([read_run(tmp_path / name, name) for name in "ab"], 50, seed=0)
    assert set(compared) == {"true/within", "true/within/heart", "true/heat_pointing"}
    for found in compared.values():
        assert found.differences["b"].interval.estimate == pytest.approx(2 / 3)


def test_what_does_not_compare_is_refused(tmp_path: Path):
    retrieval(tmp_path / "a", make_pool(30))
    retrieval(tmp_path / "b", make_pool(31))
    predictions(tmp_path / "z", 1.0)
    runs = {name: read_run(tmp_path / name, name) for name in "abz"}
    with pytest.raises(DataError, match="not on the same cases as a: 0 are missing and 1 are others"):
        compare_runs([runs["a"], runs["b"]], 10, 0)
    with pytest.raises(DataError, match="another kind"):
        compare_runs([runs["a"], runs["z"]], 10, 0)
    with pytest.raises(DataError, match=r"results\.json: No such file"):
        read_run(tmp_path / "absent", "absent")
    (tmp_path / "a" / "ranks.csv").unlink()
    with pytest.raises(DataError, match=r"ranks\.csv: No such file"):
        read_run(tmp_path / "a", "a")
    (tmp_path / "b" / "results.json").write_text("[]")
    with pytest.raises(DataError, match="no finished evaluation"):
        read_run(tmp_path / "b", "b")


def test_other_labels_or_another_rule_of_what_is_right_are_refused(tmp_path: Path):
    for name in "abc":
        predictions(tmp_path / name, 1.0)
    table = (tmp_path / "b" / "predictions.csv").read_text()
    (tmp_path / "b" / "predictions.csv").write_text(table.replace("c3,p1,Air,,", "c3,p1,Air,1,"))
    (tmp_path / "c" / "predictions.csv").write_text(table.replace(",Air,", ",Fluid,"))
    a, b, c = (read_run(tmp_path / name, name) for name in "abc")
    with pytest.raises(DataError, match=r"differs from a in the labels of Air\."):
        compare_runs([a, b], 10, 0)
    with pytest.raises(DataError, match="differs from a in the classes, the labels of Air"):
        compare_runs([a, c], 10, 0)
    for name, right in (("own", "own"), ("text", "text")):
        retrieval(tmp_path / name, make_pool(30), right)
    with pytest.raises(DataError, match=r"differs from own in what counts as right\."):
        compare_runs([read_run(tmp_path / name, name) for name in ("own", "text")], 10, 0)


def test_a_run_against_itself_differs_by_exactly_nothing(tmp_path: Path):
    retrieval(tmp_path / "r", make_pool(60, noise=3.0))
    predictions(tmp_path / "p", 1.0)
    for name in "rp":
        out = tmp_path / f"{name}_out"
        assert main(["evaluate", "compare", *[str(tmp_path / name)] * 2, "--output_dir", str(out)]) == 0
        found = json.loads((out / "results.json").read_text())
        assert list(found["runs"]) == [name, f"{name} (2)"]
        for metric in found["metrics"].values():
            gap = metric["differences"][f"{name} (2)"]
            assert gap == {"interval": {"estimate": 0.0, "low": 0.0, "high": 0.0}, "p_value": 1.0}


def rare(folder: Path, margins: np.ndarray, positives: int) -> None:
    """A zero-shot evaluation of one class that the first patients have."""
    rows = [(f"c{i}", f"p{i}", "Cyst", int(i < positives), float(margin)) for i, margin in enumerate(margins)]
    write_csv(folder / "predictions.csv", ("case_id", "patient_id", "class", "label", "margin_main"), rows)
    write_results(folder, "zero-shot", {"provenance": {}})


def test_numbers_and_differences_of_a_rare_class_rest_on_the_patients_that_have_it(tmp_path: Path):
    """All of 3 positive patients of 200 stand first in two runs, and one of them stands lower in a third."""
    margins = np.linspace(1, 0, 200)
    rare(tmp_path / "a", margins, 3)
    rare(tmp_path / "b", 5 * margins, 3)
    rare(tmp_path / "c", np.where(np.arange(200) == 2, 0.6, margins), 3)
    runs = [read_run(tmp_path / name, name) for name in "abc"]
    beyond = binomtest(0, 3).proportion_ci(0.95, "exact").high
    compared = compare_runs(runs, 200, seed=0)
    weights = np.concatenate(list(resample(runs[0].patient_ids, 200, 0)))
    drawn = [run.scores(weights) for run in runs]
    for metric in ("main/auroc/Cyst", "main/macro auroc", "main/macro average_precision"):
        found = compared[metric]
        for name in "ab":
            assert (found.runs[name].low, found.runs[name].high) == (pytest.approx(1 - beyond), 1)
        gap = found.differences["b"].interval
        assert (gap.low, gap.high) == (pytest.approx(-beyond), pytest.approx(beyond))
        last, estimate = drawn[2][metric], found.runs["c"].estimate
        assert found.runs["c"] == interval(estimate, last, 3)
        assert found.differences["c"] == paired_difference(estimate, 1.0, last, drawn[0][metric], 3)


def test_runs_stand_in_the_order_given_under_the_names_that_tell_them_apart(tmp_path: Path):
    paths = [tmp_path / part for part in ("b/eval", "a/eval", "c/eval")]
    for number, path in enumerate(paths):
        predictions(path, 1.0 + number)
    assert main(["evaluate", "compare", *map(str, paths), "--output_dir", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(found["runs"]) == ["b/eval", "a/eval", "c/eval"]
    assert found["first"] == "b/eval"


def test_one_run_is_not_compared(tmp_path: Path):
    predictions(tmp_path / "a", 1.0)
    assert main(["evaluate", "compare", str(tmp_path / "a"), "--output_dir", str(tmp_path / "out")]) == 2


def test_the_files_and_the_page_say_the_same(tmp_path: Path):
    for name, noise in (("a", 3.0), ("b", 1.0)):
        predictions(tmp_path / name, noise)
    runs = [read_run(tmp_path / name, name) for name in "ab"]
    compared = compare_runs(runs, 50, seed=0)
    write_comparison(compared, runs, {"seed": 0}, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    value = written["metrics"]["main/macro auroc"]["differences"]["b"]["interval"]["estimate"]
    assert value == compared["main/macro auroc"].differences["b"].interval.estimate
    assert len((tmp_path / "out" / "differences.csv").read_text().splitlines()) == 1 + 2 * len(compared)
    page = comparison_page(compared, runs).render()
    assert "main/auroc/Cyst" in page
    assert f"{value:.3f}" in page
    assert f"{value:+.3f}" in format_comparison(compared, runs)
