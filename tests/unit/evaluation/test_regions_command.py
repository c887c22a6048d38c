"""``evaluate regions`` from a folder of phantoms to its files."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tiny import tiny_config, write_checkpoint
from vlm3d_ct.cli.main import run
from vlm3d_ct.evaluation.heatmap_scores import MEASURES
from vlm3d_ct.evaluation.localise import hits_and_misses


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint.pth"
    write_checkpoint(path, tiny_config())
    return path


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, phantom_cohort: Path) -> Path:
    """Five volumes with everything that belongs to them, and the slices."""
    folder = tmp_path_factory.mktemp("few")
    for name in ("ct_rate", "omniabnorm"):
        shutil.copytree(phantom_cohort / name, folder / name)
    for path in sorted((folder / "ct_rate" / "volumes").iterdir())[5:]:
        path.unlink()
        (folder / "ct_rate" / "masks" / path.name).unlink()
    return folder


def evaluate(checkpoint: Path, data: Path, output: Path, *flags: str) -> int:
    return run(
        [
            *("evaluate", "regions", "--checkpoint", str(checkpoint), "--data_dir", str(data)),
            *("--output_dir", str(output), "--cache_dir", str(output.parent / "cache"), "--skip_invalid"),
            *("--num_bootstraps", "20", *flags),
        ]
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory, checkpoint: Path, few: Path) -> Path:
    output = tmp_path_factory.mktemp("regions") / "out"
    assert evaluate(checkpoint, few / "ct_rate", output) == 0
    return output


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_uses_of_the_masks_are_measured_on_the_same_cases(written: Path):
    results = json.loads((written / "results.json").read_text())
    assert list(results) == ["kind", "pool", "masks", "alignment", "heat_maps", "left_out", "provenance"]
    assert list(results["masks"]) == ["true", "predicted", "none"]
    counts = {found["within"]["num_regions"] for found in results["alignment"].values()}
    assert len(counts) == 1
    assert len({found["all"]["num_phrases"] for found in results["heat_maps"].values()}) == 1
    assert results["pool"]["size"] == 5 == len((written / "pool_cases.txt").read_text().splitlines())
    for found in results["alignment"].values():
        assert 0 <= found["within"]["accuracy"]["low"] <= found["within"]["accuracy"]["high"] <= 1
        assert len(found["taken_for"]) == 20


def test_the_tables_hold_what_the_results_summarise(written: Path):
    results = json.loads((written / "results.json").read_text())
    phrases = _rows(written / "phrases.csv")
    for masks, found in results["heat_maps"].items():
        own = [row for row in phrases if row["masks"] == masks]
        assert len(own) == found["all"]["num_phrases"]
        for measure in MEASURES:
            for kind in ("heat", "region"):
                mean = np.mean([float(row[f"{kind}_{measure}"]) for row in own])
                assert found["all"][kind][measure]["estimate"] == pytest.approx(mean)
        for finding, summary in found["by_finding"].items():
            assert summary["num_phrases"] == sum(row["finding"] == finding for row in own)
    alignment = _rows(written / "alignment.csv")
    assert len(alignment) == 3 * 2 * 21
    for masks in results["alignment"]:
        cases = [row for row in _rows(written / "region_cases.csv") if row["masks"] == masks]
        for scope in ("within", "across"):
            values = [float(row[f"{scope}_correct"]) for row in cases if row[f"{scope}_correct"]]
            assert len(values) == results["alignment"][masks][scope]["num_regions"]
            assert np.mean(values) == pytest.approx(results["alignment"][masks][scope]["accuracy"]["estimate"])
    total = next(row for row in alignment if (row["masks"], row["scope"], row["region"]) == ("none", "across", "all"))
    assert float(total["accuracy"]) == results["alignment"]["none"]["across"]["accuracy"]["estimate"]


def test_the_page_shows_maps_and_holds_no_path_of_this_machine(written: Path, few: Path):
    page = (written / "report.html").read_text()
    assert page.count("Lesion and heat map") == 6
    for name in ("report.html", "results.json", "phrases.csv", "alignment.csv"):
        assert str(few.parent) not in (written / name).read_text()


def test_twice_the_same_bytes(tmp_path: Path, written: Path, checkpoint: Path, few: Path):
    assert evaluate(checkpoint, few / "ct_rate", tmp_path / "again") == 0
    for name in ("results.json", "report.html", "alignment.csv", "region_cases.csv", "phrases.csv", "pool_cases.txt"):
        assert (tmp_path / "again" / name).read_bytes() == (written / name).read_bytes(), name


def test_slices_are_evaluated_with_their_own_lesions(tmp_path: Path, checkpoint: Path, few: Path):
    assert evaluate(checkpoint, few / "omniabnorm", tmp_path / "out", "--slices") == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["alignment"]) == ["predicted"]
    assert results["heat_maps"]["predicted"]["all"]["num_phrases"] > 0
    assert {row["masks"] for row in _rows(tmp_path / "out" / "phrases.csv")} == {"predicted"}


def test_without_masks_and_lesions_the_rest_is_measured(tmp_path: Path, checkpoint: Path, few: Path):
    data = tmp_path / "data"
    shutil.copytree(few / "ct_rate", data)
    shutil.rmtree(data / "masks")
    (data / "truth.json").unlink()
    assert evaluate(checkpoint, data, tmp_path / "out") == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["alignment"]) == ["predicted", "none"]
    assert results["heat_maps"] == {}
    assert results["left_out"]["volumes without lesion mask"] == 5
    assert not (tmp_path / "out" / "phrases.csv").exists()
    assert "No lesion of these cases is known" in (tmp_path / "out" / "report.html").read_text()


def test_cases_without_a_mask_are_left_out_where_true_masks_are_asked_for(tmp_path: Path, checkpoint: Path, few: Path):
    data = tmp_path / "data"
    shutil.copytree(few / "ct_rate", data)
    next((data / "masks").iterdir()).unlink()
    assert evaluate(checkpoint, data, tmp_path / "out", "--masks", "predicted", "true") == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["pool"]["size"] == 4
    assert results["left_out"]["without a region mask"] == 1


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--slices", "--masks", "true"), 2, "slices have no region masks"),
        (("--masks", "true"), 3, "without a region mask"),
    ],
)
def test_what_is_not_possible_is_said(tmp_path: Path, checkpoint: Path, few: Path, capsys, flags, code, message):
    data = tmp_path / "data"
    shutil.copytree(few / "ct_rate", data)
    shutil.rmtree(data / "masks")
    assert evaluate(checkpoint, data, tmp_path / "out", *flags) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "results.json").exists()


def test_no_phrases_have_no_best():
    assert hits_and_misses([]) == ([], [])
