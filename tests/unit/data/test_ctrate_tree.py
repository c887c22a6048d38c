"""The tree that CT-RATE is published in."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from data_folders import SPACING_MM, chest

from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.volumes.nifti import write_nifti


def _write_volume(dataset: Path, folder: str, stem: str, mask: bool = True) -> None:
    split, patient, scan, _ = stem.split("_")
    inner = Path(f"{split}_{patient}", f"{split}_{patient}_{scan}", f"{stem}.nii.gz")
    for root in (dataset / folder, dataset / "ts_seg" / "ts_total" / folder) if mask else (dataset / folder,):
        (root / inner).parent.mkdir(parents=True, exist_ok=True)
        write_nifti(root / inner, chest(), SPACING_MM, np.int16)


def _write_reports(dataset: Path, name: str, rows: list[tuple[str, str, str]]) -> None:
    path = dataset / "radiology_text_reports" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [
                ("VolumeName", "ClinicalInformation_EN", "Technique_EN", "Findings_EN", "Impressions_EN"),
                *((volume, "Not given.", "CT", findings, impressions) for volume, findings, impressions in rows),
            ]
        )


def _write_tree(root: Path) -> Path:
    dataset = root / "dataset"
    for stem in ("train_1_a_1", "train_1_a_2", "train_2_a_1"):
        _write_volume(dataset, "train_fixed", stem)
    _write_volume(dataset, "valid_fixed", "valid_1_a_1", mask=False)
    rows = [
        (f"{stem}.nii.gz", f"Findings of {stem}.", "Normal.") for stem in ("train_1_a_1", "train_1_a_2", "train_9_a_1")
    ]
    _write_reports(dataset, "train_reports.csv", rows)
    _write_reports(dataset, "validation_reports.csv", [("valid_1_a_1.nii.gz", "Not given.", "Only an impression.")])
    turns = [{"from": "human", "value": "<image>Anything?"}, {"from": "gpt", "value": "Nothing."}]
    (dataset / "vqa").mkdir()
    vqa = [{"image": f"{stem}.nii.gz", "conversations": turns} for stem in ("train_1_a_1", "train_2_a_1")]
    (dataset / "vqa" / "train_vqa.json").write_text(json.dumps(vqa))
    return dataset


def test_the_published_tree_is_recognised_from_both_of_its_roots(tmp_path: Path) -> None:
    dataset = _write_tree(tmp_path)
    index = read_cases(tmp_path)
    assert index == read_cases(dataset)
    assert index.problems == ()
    assert [(case.case_id, case.patient_id, case.split, case.mask_labels) for case in index.cases] == [
        ("train_1_a_1", "train_1", "train", "totalsegmentator"),
        ("train_1_a_2", "train_1", "train", "totalsegmentator"),
        ("train_2_a_1", "train_2", "train", "totalsegmentator"),
        ("valid_1_a_1", "valid_1", "validation", "totalsegmentator"),
    ]
    assert [bool(case.mask_paths) for case in index.cases] == [True, True, True, False]


def test_the_text_is_the_report_else_the_vqa(tmp_path: Path) -> None:
    _write_tree(tmp_path)
    answers = [case.reports[0].answer for case in read_cases(tmp_path).cases]
    expected = [
        "Findings of train_1_a_1. Normal.",
        "Findings of train_1_a_2. Normal.",
        "Nothing.",
        "Only an impression.",
    ]
    assert answers == expected


def test_a_chain_of_thought_goes_before_the_report(tmp_path: Path) -> None:
    _write_tree(tmp_path)
    (tmp_path / "cot").mkdir()
    record = {"volumename": "train_1_a_1", "question": "Why?", "answer": "Because."}
    (tmp_path / "cot" / "cot.json").write_text(json.dumps([record]))
    first, second, *_ = read_cases(tmp_path).cases
    assert [(report.question, report.answer) for report in first.reports] == [("Why?", "Because.")]
    assert second.reports[0].answer == "Findings of train_1_a_2. Normal."


def test_folders_of_stored_values_are_refused_with_a_reason(tmp_path: Path) -> None:
    _write_volume(tmp_path / "dataset", "train", "train_1_a_1", mask=False)
    (problem,) = read_cases(tmp_path).problems
    assert (problem.code, problem.value) == ("v1-volumes", "train")
    assert "train_fixed" in problem.remedy


def test_folders_of_stored_values_beside_the_corrected_ones_are_left_aside(tmp_path: Path) -> None:
    _write_volume(_write_tree(tmp_path), "train", "train_1_a_1", mask=False)
    index = read_cases(tmp_path)
    assert index.problems == ()
    assert "train/ (stored values without header) left aside" in index.description
    assert all("train_fixed" in str(case.image_paths[0]) for case in index.cases if case.split == "train")


def test_scans_that_show_no_chest_are_left_out_and_said(tmp_path: Path) -> None:
    dataset = _write_tree(tmp_path)
    (dataset / "metadata").mkdir()
    (dataset / "metadata" / "no_chest_train.txt").write_text("train_2_a_1.nii.gz\n")
    index = read_cases(tmp_path)
    assert "train_2_a_1" not in [case.case_id for case in index.cases]
    assert "1 left out as they show no chest" in index.description
    (left_out,) = index.no_chest
    assert (left_out.case_id, left_out.shows_chest) == ("train_2_a_1", False)
    assert left_out.reports
    assert all(case.shows_chest for case in index.cases)


def test_a_table_without_names_is_one_problem(tmp_path: Path) -> None:
    dataset = _write_tree(tmp_path)
    (dataset / "radiology_text_reports" / "train_reports.csv").write_text("a,b\n1,2\n3,4\n")
    assert [problem.code for problem in read_cases(tmp_path).problems] == ["table", "volume-without-text"]
