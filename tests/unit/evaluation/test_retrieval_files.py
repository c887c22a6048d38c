from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pools import make_example, make_pool

from vlm3d_ct.data.labels import LabelTable
from vlm3d_ct.embeddings import EmbeddingSet
from vlm3d_ct.evaluation.examples import Example, choose_examples
from vlm3d_ct.evaluation.metrics_log import MetricsLog, read_metrics
from vlm3d_ct.evaluation.pool import choose_pool
from vlm3d_ct.evaluation.results import REPORT_FILE, write_text
from vlm3d_ct.evaluation.retrieval_files import (
    RetrievalEvaluation,
    evaluate_retrieval,
    format_table,
    write_retrieval,
)
from vlm3d_ct.evaluation.retrieval_page import MAX_TEXT_CHARACTERS, retrieval_page, shorten
from vlm3d_ct.seeding import random_stream

HOSTILE = "<script>alert(1)</script> \" ' & <img src=x onerror=alert(2)>"


def evaluate(embeddings: EmbeddingSet, pool: str = "all", right: str = "own", **changes: Any) -> RetrievalEvaluation:
    arguments: dict[str, Any] = {
        "data_name": "made-up validation",
        "labels": None,
        "left_out": {"seen in training": 3},
        "provenance": embeddings.provenance,
        "num_bootstraps": 20,
        "seed": 0,
    }
    return evaluate_retrieval(embeddings, choose_pool(embeddings, pool, right), **(arguments | changes))


def write(
    evaluation: RetrievalEvaluation,
    output_dir: Path,
    examples: Sequence[Example] = (),
    logs: Sequence[MetricsLog] = (),
) -> str:
    page = retrieval_page(
        evaluation,
        examples=examples,
        logs=logs,
        window_hu=(40.0, 400.0),
        region_names=[f"region {i}" for i in range(1, 21)],
    ).render()
    write_text(output_dir / REPORT_FILE, page)
    write_retrieval(evaluation, output_dir)
    return page


def examples_for(evaluation: RetrievalEvaluation) -> list[Example]:
    chosen = choose_examples(evaluation.embeddings, evaluation.result)
    return [make_example(case_id, HOSTILE) for case_id in chosen]


def label_table(pool: EmbeddingSet, classes: int = 3) -> LabelTable:
    values = random_stream("labels").integers(0, 2, (len(pool), classes)).astype(np.int8)
    names = tuple(f"class {number}" for number in range(classes))
    return LabelTable(names=names, case_ids=pool.case_ids, values=values)


class Page(HTMLParser):
    """Collects tags, addresses and text of a page."""

    def __init__(self, content: str):
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words = ""
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data):
        self.words += data


def test_results_have_the_promised_keys_and_the_measured_values(tmp_path: Path):
    evaluation = evaluate(make_pool(12))
    write(evaluation, tmp_path / "new" / "folder")
    written = json.loads((tmp_path / "new" / "folder" / "results.json").read_text())
    assert written["pool"] == {"name": "made-up validation, all", "size": 12, "cases_file": "pool_cases.txt"}
    assert list(written["image_to_text"]) == ["R@1", "R@5", "R@10", "MRR", "median_rank", "mean_rank"]
    assert written["image_to_text"] == evaluation.result.image_to_text
    assert written["text_to_image"] == evaluation.result.text_to_image
    assert written["chance"] == {"R@1": 1 / 12, "R@5": 5 / 12, "R@10": 10 / 12}
    for direction in ("image_to_text", "text_to_image"):
        for name, interval in written["intervals"][direction].items():
            assert interval["estimate"] == written[direction][name]
            assert interval.keys() == {"estimate", "low", "high"}
    assert written["label_only"] is None
    assert "no labels" in written["protocol"]["labels"]
    assert {"accuracy", "chance", "num_cases"} <= written["region_alignment"].keys()
    assert written["provenance"]["checkpoint"] == "checkpoint_best.pth"
    assert written["left_out"] == {"seen in training": 3}
    assert set(written["ct_clip"]) == {"report_to_volume"}
    assert written["embedding_health"]


def test_labels_add_the_baseline_and_the_volume_to_volume_score(tmp_path: Path):
    pool = make_pool(30)
    evaluation = evaluate(pool, labels=label_table(pool))
    write(evaluation, tmp_path)
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["label_only"]["R@1"] > written["chance"]["R@1"]
    assert set(written["ct_clip"]) == {"report_to_volume", "volume_to_volume"}
    for measure in written["ct_clip"].values():
        assert {"compatible", "corrected"} <= measure.keys()
    assert "labels only" in format_table(evaluation)
    few = label_table(pool.select(np.arange(20)))
    assert evaluate(pool, labels=few).labels_note == "10 of 30 cases have no complete labels."


def test_cases_and_ranks_are_listed_in_order(tmp_path: Path):
    pool = make_pool(12)
    evaluation = evaluate(pool)
    write(evaluation, tmp_path)
    assert (tmp_path / "pool_cases.txt").read_text().splitlines() == list(pool.case_ids)
    with (tmp_path / "ranks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case_id"] for row in rows] == list(pool.case_ids)
    assert [row["patient_id"] for row in rows] == list(pool.patient_ids)
    assert [int(row["image_to_text_rank"]) for row in rows] == evaluation.result.ranks.volume_to_text.tolist()
    assert [int(row["text_to_image_rank"]) for row in rows] == evaluation.result.ranks.text_to_volume.tolist()
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "pool_cases.txt", "ranks.csv", "report.html"}


def test_the_files_are_the_same_bytes_twice(tmp_path: Path):
    for name in ("one", "two"):
        evaluation = evaluate(make_pool(15, noise=2.0))
        write(evaluation, tmp_path / name, examples_for(evaluation))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_what_could_not_be_measured_is_null(tmp_path: Path):
    evaluation = evaluate(make_pool(5, region_mentions=np.zeros((5, 4), dtype=bool)), num_bootstraps=0)
    write(evaluation, tmp_path)
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["region_alignment"]["accuracy"] is None
    assert written["intervals"] == {}
    assert "n/a" in format_table(evaluation)


def test_an_example_from_elsewhere_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="stranger"):
        write(evaluate(make_pool(5)), tmp_path, [make_example("stranger")])


def test_the_page_holds_everything_it_shows_and_runs_nothing(tmp_path: Path):
    groups = np.array([0, 0, *range(2, 12)])
    pool = make_pool(12, noise=3.0, text_groups=groups, provenance={"checkpoint": HOSTILE, HOSTILE: HOSTILE})
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1, "epoch": 0.5, "kind": "train", "loss": 2.0, "lr": 1e-4}\n{"st')
    evaluation = evaluate(pool, "all", "text", data_name=HOSTILE, left_out={HOSTILE: 1})
    logs = [read_metrics(name, log) for name in ("Pre-training", HOSTILE)]
    content = write(evaluation, tmp_path, examples_for(evaluation), logs)
    assert not re.search(r"https?://|@import|url\(", content)
    page = Page(content)
    assert page.addresses
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert page.words.count(HOSTILE) > 5
    assert "Right is any case with the identical text; 2 cases share their text" in page.words
    assert "Unreadable lines of the log, left out: 1." in page.words


def test_the_page_says_what_was_evaluated(tmp_path: Path):
    evaluation = evaluate(make_pool(12, noise=3.0))
    words = " ".join(Page(write(evaluation, tmp_path, examples_for(evaluation))).words.split())
    assert "checkpoint_best.pth" in words
    assert "made-up validation, all: 12 cases (every volume that has a text)" in words
    assert "Left out: 3 (seen in training)" in words
    assert f"{100 * evaluation.result.image_to_text['R@5']:.1f} % (" in words
    assert f"{100 * 5 / 12:.1f} %" in words
    assert "Wrongly preferred report" in words
    assert "Wrongly preferred volume" in words


def test_a_page_without_examples_and_logs_is_complete(tmp_path: Path):
    words = Page(write(evaluate(make_pool(2)), tmp_path)).words
    assert "Training" not in words
    assert "Single cases" not in words
    assert "Provenance" in words


def test_the_page_stays_small_with_full_size_noise(tmp_path: Path):
    evaluation = evaluate(make_pool(30, noise=4.0))
    stream = random_stream("noise")
    voxels = stream.normal(40, 120, size=(64, 256, 256)).astype(np.int16)
    labels = stream.integers(0, 21, size=voxels.shape).astype(np.uint8)
    examples = [
        Example(case_id=case_id, voxels_hu=voxels, labels=labels, spacing_mm=(4.7, 1.4, 1.4), text="word " * 2000)
        for case_id in choose_examples(evaluation.embeddings, evaluation.result)
    ]
    write(evaluation, tmp_path, examples)
    assert (tmp_path / "report.html").stat().st_size < 3_000_000


def test_a_long_text_is_cut_visibly():
    assert shorten("short") == "short"
    cut = shorten("word " * 1000)
    assert len(cut) <= MAX_TEXT_CHARACTERS + 2
    assert cut.endswith("word …")


def test_the_table_shows_both_directions_against_chance():
    lines = format_table(evaluate(make_pool(200, noise=0.0))).splitlines()
    assert lines[1].split() == ["volume", "to", "report", *["100.0", "%"] * 5, "1.000", "1"]
    assert lines[2].split()[:5] == ["report", "to", "volume", "100.0", "%"]
    assert lines[3].split()[:7] == ["chance", "0.5", "%", "2.5", "%", "5.0", "%"]
    assert lines[-1].startswith("200 cases; right is the case's own index only")
