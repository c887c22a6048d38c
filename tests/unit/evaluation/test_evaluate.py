from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from pools import make_example, make_pool

from vlm3d_ct.embeddings import EmbeddingSet
from vlm3d_ct.errors import DataError
from vlm3d_ct.evaluation import Example, choose_examples, evaluate_retrieval, format_table, measure_retrieval
from vlm3d_ct.evaluation.report import MAX_TEXT_CHARACTERS, shorten
from vlm3d_ct.seeding import random_stream

HOSTILE = "<script>alert(1)</script> \" ' & <img src=x onerror=alert(2)>"


def evaluate(pool: EmbeddingSet, output_dir: Path, **changes):
    arguments = {
        "pool_name": "made-up validation",
        "output_dir": output_dir,
        "examples": [],
        "metrics_logs": [],
        "left_out": {"seen in training": 3},
        "region_names": [f"region {i}" for i in range(1, 21)],
    }
    return evaluate_retrieval(pool, **(arguments | changes))


def examples_for(pool: EmbeddingSet) -> list[Example]:
    return [make_example(case_id, HOSTILE) for case_id in choose_examples(pool)]


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
    pool = make_pool(12)
    result = evaluate(pool, tmp_path / "new" / "folder")
    written = json.loads((tmp_path / "new" / "folder" / "results.json").read_text())
    assert list(written) == ["pool", "image_to_text", "text_to_image", "chance", "region_alignment", "provenance"]
    assert written["pool"] == {"name": "made-up validation", "size": 12, "cases_file": "pool_cases.txt"}
    assert list(written["image_to_text"]) == ["R@1", "R@5", "R@10", "MRR", "median_rank"]
    assert written["image_to_text"] == result.image_to_text
    assert written["text_to_image"] == result.text_to_image
    assert written["chance"] == {"R@1": 1 / 12, "R@5": 5 / 12, "R@10": 10 / 12}
    assert set(written["region_alignment"]) == {"accuracy", "chance", "num_cases"}
    assert written["provenance"]["checkpoint"] == "checkpoint_best.pth"
    assert written["provenance"]["left_out"] == {"seen in training": 3}


def test_cases_and_ranks_are_listed_in_order(tmp_path: Path):
    pool = make_pool(12)
    result = evaluate(pool, tmp_path)
    assert (tmp_path / "pool_cases.txt").read_text().splitlines() == list(pool.case_ids)
    with (tmp_path / "ranks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case_id"] for row in rows] == list(pool.case_ids)
    assert [int(row["image_to_text_rank"]) for row in rows] == result.image_to_text_ranks.tolist()
    assert [int(row["text_to_image_rank"]) for row in rows] == result.text_to_image_ranks.tolist()
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "pool_cases.txt", "ranks.csv", "report.html"}


def test_what_could_not_be_measured_is_null(tmp_path: Path):
    result = evaluate(make_pool(5, region_mentions=np.zeros((5, 4), dtype=bool)), tmp_path)
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["region_alignment"] == {"accuracy": None, "chance": None, "num_cases": 0}
    assert "n/a" in format_table(result)


def test_an_empty_pool_writes_nothing(tmp_path: Path):
    with pytest.raises(DataError, match="empty-pool"):
        evaluate(make_pool(0), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_example_from_elsewhere_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="stranger"):
        evaluate(make_pool(5), tmp_path, examples=[make_example("stranger")])


def test_the_page_holds_everything_it_shows_and_runs_nothing(tmp_path: Path):
    groups = np.array([0, 0, *range(2, 12)])
    pool = make_pool(12, noise=3.0, text_groups=groups, provenance={"checkpoint": HOSTILE, HOSTILE: HOSTILE})
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1, "epoch": 0.5, "kind": "train", "loss": 2.0, "lr": 1e-4}\n{"st')
    logs = [("Pre-training", log), (HOSTILE, log)]
    evaluate(pool, tmp_path, pool_name=HOSTILE, metrics_logs=logs, left_out={HOSTILE: 1}, examples=examples_for(pool))
    content = (tmp_path / "report.html").read_text()
    assert not re.search(r"https?://|@import|url\(", content)
    page = Page(content)
    assert page.addresses
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert page.words.count(HOSTILE) > 5
    assert "Right is any case with the identical text" in page.words
    assert "Unreadable lines of the log, left out: 1." in page.words


def test_the_page_says_what_was_evaluated(tmp_path: Path):
    pool = make_pool(12, noise=3.0)
    result = evaluate(pool, tmp_path, examples=examples_for(pool))
    words = " ".join(Page((tmp_path / "report.html").read_text()).words.split())
    assert "checkpoint_best.pth" in words
    assert "made-up validation : 12 cases" in words or "made-up validation: 12 cases" in words
    assert "Left out: 3 (seen in training)" in words
    assert f"{100 * result.image_to_text['R@5']:.1f} %" in words
    assert f"{100 * 5 / 12:.1f} %" in words
    assert "Wrongly preferred report" in words
    assert "Wrongly preferred volume" in words


def test_a_page_without_examples_and_logs_is_complete(tmp_path: Path):
    evaluate(make_pool(1), tmp_path, left_out={})
    words = Page((tmp_path / "report.html").read_text()).words
    assert "Training" not in words
    assert "Single cases" not in words
    assert "Provenance" in words


def test_the_page_stays_small_with_full_size_noise(tmp_path: Path):
    pool = make_pool(30, noise=4.0)
    stream = random_stream("noise")
    voxels = stream.normal(40, 120, size=(64, 256, 256)).astype(np.int16)
    labels = stream.integers(0, 21, size=voxels.shape).astype(np.uint8)
    examples = [
        Example(case_id=case_id, voxels_hu=voxels, labels=labels, spacing_mm=(4.7, 1.4, 1.4), text="word " * 2000)
        for case_id in choose_examples(pool)
    ]
    evaluate(pool, tmp_path, examples=examples)
    assert (tmp_path / "report.html").stat().st_size < 3_000_000


def test_a_long_text_is_cut_visibly():
    assert shorten("short") == "short"
    cut = shorten("word " * 1000)
    assert len(cut) <= MAX_TEXT_CHARACTERS + 2
    assert cut.endswith("word …")


def test_the_table_shows_both_directions_against_chance():
    lines = format_table(measure_retrieval(make_pool(200, noise=0.0))).splitlines()
    assert lines[1].split() == ["volume", "to", "report", *["100.0", "%"] * 3, "1.000", "1"]
    assert lines[2].split()[:5] == ["report", "to", "volume", "100.0", "%"]
    assert lines[3].split() == ["chance", "0.5", "%", "2.5", "%", "5.0", "%"]
    assert lines[-1].startswith("200 cases; right is the case's own index only")
