"""Results say of which kind they are: readers go by it, and no evaluation writes into another kind's folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from pools import make_pool

from vlm3d_ct.cli.main import run as main
from vlm3d_ct.errors import ConfigError, DataError
from vlm3d_ct.evaluation.compare import compare_runs, read_run
from vlm3d_ct.evaluation.compare_files import write_comparison
from vlm3d_ct.evaluation.pool import choose_pool
from vlm3d_ct.evaluation.probe import Labelled, measure_probe
from vlm3d_ct.evaluation.probe_files import ProbeEvaluation, write_probe
from vlm3d_ct.evaluation.prompt_scores import PromptScores
from vlm3d_ct.evaluation.prompts import PromptTable, Wording
from vlm3d_ct.evaluation.regions import RegionEvaluation, measure_alignment, write_regions
from vlm3d_ct.evaluation.results import refuse_other_kind, write_csv, write_results
from vlm3d_ct.evaluation.retrieval_files import evaluate_retrieval, write_retrieval
from vlm3d_ct.evaluation.zero_shot_files import ZeroShotEvaluation, evaluate_zero_shot, write_zero_shot
from vlm3d_ct.seeding import random_stream

CASES, NAMES = 40, ("Cyst", "Air")
CASE_IDS = tuple(f"c{number}" for number in range(CASES))
PATIENTS = tuple(f"p{number // 2}" for number in range(CASES))
ABOUT = {"left_out": {}, "provenance": {"checkpoint": "c.pth"}}


def labels_of() -> np.ndarray:
    return (random_stream("kinds").random((CASES, 2)) < 0.5).astype(np.int8)


def zero_shot(folder: Path, scale: float = 1.0) -> ZeroShotEvaluation:
    labels = labels_of()
    margins = scale * (labels + random_stream("margins").normal(size=labels.shape) + 1)
    wordings = {name: (Wording(name="w", positive=f"{name}.", negative=f"No {name}."),) for name in NAMES}
    scores = PromptScores(
        table=PromptTable(name="t", wordings=wordings),
        asked={},
        margins={"main": margins, "ensemble": margins[::-1].copy()},
        by_wording={name: {"w": margins[:, column]} for column, name in enumerate(NAMES)},
        positive=margins,
    )
    about = {"pool_name": "d", "label_set": "ct_rate", "exclusive": False, "tuned": None, **ABOUT}
    found = evaluate_zero_shot(scores, labels, CASE_IDS, PATIENTS, **about, num_bootstraps=30, seed=0)
    write_zero_shot(found, folder)
    return found


def probe(folder: Path, scale: float = 1.0) -> ProbeEvaluation:
    labels = labels_of()
    tokens = random_stream("tokens").normal(size=(CASES, 3, 4)).astype(np.float32)
    tokens[:, :, 0] += 2 * labels[:, :1]
    fitted = Labelled(tokens=tokens, labels=labels, patient_ids=tuple(f"q{number}" for number in range(CASES)))
    test = Labelled(tokens=np.float32(scale) * tokens[::-1].copy(), labels=labels, patient_ids=PATIENTS)
    found = ProbeEvaluation(
        pool_name="d",
        fit_name="f",
        names=NAMES,
        case_ids=CASE_IDS,
        patient_ids=PATIENTS,
        labels=labels,
        results={"linear": {1.0: measure_probe("linear", fitted, test, NAMES, 1.0, num_samples=30, seed=0)}},
        fit_left_out={},
        **ABOUT,
    )
    write_probe(found, folder)
    return found


def retrieval(folder: Path) -> None:
    pool = make_pool(CASES)
    about = {"data_name": "d", "labels": None, **ABOUT}
    write_retrieval(evaluate_retrieval(pool, choose_pool(pool), **about, num_bootstraps=0, seed=0), folder)


def regions(folder: Path) -> None:
    pool, names = make_pool(CASES), tuple("abcd")
    found = RegionEvaluation(
        name="d",
        case_ids=pool.case_ids,
        patient_ids=pool.patient_ids,
        region_names=names,
        alignment={"true": measure_alignment(pool, names, num_samples=0, seed=0)},
        phrases={},
        heat_maps={},
        heat_maps_by_finding={},
        **ABOUT,
    )
    write_regions(found, folder)


WRITERS = {"retrieval": retrieval, "zero-shot": zero_shot, "regions": regions, "probe": probe}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_evaluation_and_comparison_states_its_kind_and_is_read_by_it(kind: str, tmp_path: Path):
    WRITERS[kind](tmp_path / "a")
    assert next(iter(json.loads((tmp_path / "a" / "results.json").read_text()).items())) == ("kind", kind)
    for other in ("ranks.csv", "region_cases.csv", "predictions.csv"):  # left behind by another kind
        if not (tmp_path / "a" / other).exists():
            (tmp_path / "a" / other).write_text("case_id,patient_id\nx,y\n")
    runs = [read_run(tmp_path / "a", name) for name in ("a", "again")]
    assert runs[0].kind == kind
    write_comparison(compare_runs(runs, 20, seed=0), runs, {}, tmp_path / "compared")
    written = json.loads((tmp_path / "compared" / "results.json").read_text())
    assert (written["kind"], written["kind_of_runs"]) == ("compare", kind)
    with pytest.raises(DataError, match=r"results\.json: kind compare"):
        read_run(tmp_path / "compared", "c")


def test_numbers_of_files_that_saturate_as_probabilities_are_those_of_the_evaluation(tmp_path: Path):
    """Margins of some hundreds: their probabilities are 1, or 0, for most cases."""
    evaluation = zero_shot(tmp_path / "z", scale=200.0)
    assert len(np.unique(evaluation.scores.probabilities("main"))) < CASES
    fitted = probe(tmp_path / "p", scale=300.0)
    whole = fitted.results["linear"][1.0]
    scored = {"z": dict(evaluation.scored), "p": {"linear": whole.scored}}
    for folder, by_scoring in scored.items():
        runs = [read_run(tmp_path / folder, name) for name in ("one", "two")]
        compared = compare_runs(runs, 30, seed=0)
        for scoring, found in by_scoring.items():
            for name, result in found.classes.items():
                assert compared[f"{scoring}/auroc/{name}"].runs["one"] == result.numbers["auroc"]
            for metric in ("auroc", "average_precision"):
                assert compared[f"{scoring}/macro {metric}"].runs["one"] == found.macro[metric]
    for metric, value in whole.macro.items():  # of one draw
        assert vars(value) == pytest.approx(vars(whole.scored.macro[metric])), metric


def test_what_an_earlier_version_wrote_is_to_be_evaluated_again(tmp_path: Path):
    header = ("case_id", "patient_id", "class", "label", "probability_main")
    write_csv(tmp_path / "predictions.csv", header, [("c", "p", "Cyst", 1, 0.5)])
    write_results(tmp_path, "zero-shot", {"provenance": {}})
    with pytest.raises(DataError, match=r"no column margin_.* of an earlier version, evaluate again"):
        read_run(tmp_path, "a")
    (tmp_path / "results.json").write_text('{"provenance": {}}')
    with pytest.raises(DataError, match="names no kind"):
        read_run(tmp_path, "a")


def test_zero_shot_and_probe_do_not_compare(tmp_path: Path):
    zero_shot(tmp_path / "z")
    probe(tmp_path / "p")
    with pytest.raises(DataError, match=r"another kind \(zero-shot\)"):
        compare_runs([read_run(tmp_path / name, name) for name in "zp"], 0, 0)


def test_a_folder_with_results_of_another_kind_is_refused_and_left_as_it_is(tmp_path: Path):
    zero_shot(tmp_path / "z")
    before = {path: path.read_bytes() for path in (tmp_path / "z").iterdir()}
    words = f"--output_dir {tmp_path / 'z'}: holds the results of `evaluate zero-shot`"
    with pytest.raises(ConfigError, match=re.escape(words) + r".* --embeddings FILE\.npz"):
        refuse_other_kind(tmp_path / "z", "probe")
    assert main(["evaluate", "compare", *[str(tmp_path / "z")] * 2, "--output_dir", str(tmp_path / "z")]) == 2
    assert {path: path.read_bytes() for path in (tmp_path / "z").iterdir()} == before


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"kind": "probe"}'])
def test_a_folder_without_results_or_of_the_same_kind_or_none_is_taken(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    refuse_other_kind(tmp_path, "probe")
    refuse_other_kind(tmp_path / "new", "probe")
