"""The tree that CT-RATE is published in."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from data_folders import SPACING_MM, chest

from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.volumes.nifti import write_nifti
from vlm3d_ct.volumes.stored import StoredScan


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
        ("valid_1_a_1", "valid_1", "validation", "regions"),
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


def _write_metadata(dataset: Path, *rows: tuple[str, ...]) -> Path:
    path = dataset / "metadata" / "train_metadata.csv"
    path.parent.mkdir(exist_ok=True)
    columns = ("VolumeName", "XYSpacing", "RescaleIntercept", "RescaleSlope", "ZSpacing")
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def test_stored_values_come_with_their_row_of_the_metadata(tmp_path: Path) -> None:
    dataset = _write_tree(tmp_path)
    _write_volume(dataset, "train", "train_5_a_1", mask=False)
    _write_volume(dataset, "train", "train_5_a_2", mask=False)
    _write_reports(dataset, "more.csv", [(f"train_5_a_{n}.nii.gz", "More.", "") for n in (1, 2)])
    path = _write_metadata(
        dataset,
        ("train_5_a_1.nii.gz", "[0.683, 0.7]", "-8192", "1", "1.5"),
        ("train_5_a_2.nii.gz", "[0.683, 0.683]", "-1024.0", "1.0", "NaN"),
        ("train_1_a_1.nii.gz", "[0.5, 0.5]", "-1024", "1", "2"),
        ("train_8_a_1.nii.gz", "[0.5, 0.5]", "", "", "2"),
    )
    index = read_cases(tmp_path)
    assert index.problems == ()
    stored = {case.case_id: case.stored for case in index.cases}
    assert stored["train_5_a_1"] == StoredScan(
        slope=1.0, intercept_hu=-8192.0, spacing_mm=(1.5, 0.683, 0.7), table=path
    )
    assert stored["train_5_a_2"] == StoredScan(slope=1.0, intercept_hu=-1024.0, spacing_mm=None, table=path)
    assert stored["train_1_a_1"] is not None, "the reader decides by the file whether it needs the row"
    assert stored["train_2_a_1"] is None
    assert "2 of stored values (V1), 2 of them with a row of metadata" in index.description


@pytest.mark.parametrize(
    "row",
    [
        ("train_1_a_1.nii.gz", "[0.5, 0.5]", "minus 1024", "1", "2"),
        ("train_1_a_1.nii.gz", "[0.5]", "-1024", "1", "2"),
        ("train_1_a_1.nii.gz", "[0.5, 0.5]", "-1024", "0", "2"),
        ("train_1_a_1.nii.gz", "[0.5, 0.5]", "-1024", "1", "-2"),
        ("train_1_a_1.nii.gz", "[0.5, 0.5]", "-1024", "inf", "2"),
        ("train_1_a_1.nii.gz", "[0.5, 0.5]", "-1024", "1"),
    ],
)
def test_a_row_that_makes_no_sense_is_a_problem_and_not_used(tmp_path: Path, row: tuple[str, ...]) -> None:
    path = _write_metadata(_write_tree(tmp_path), row)
    index = read_cases(tmp_path)
    (found,) = index.problems
    assert (found.code, found.file) == ("table", str(path))
    assert found.field.startswith("line 2")
    assert all(case.stored is None for case in index.cases)


def test_rows_that_contradict_each_other_are_not_used(tmp_path: Path) -> None:
    good = ("train_1_a_1.nii.gz", "[0.5, 0.5]", "-1024", "1", "2")
    _write_metadata(_write_tree(tmp_path), good, good, ("train_1_a_1.nii.gz", "[0.5, 0.5]", "-8192", "1", "2"))
    index = read_cases(tmp_path)
    assert [found.code for found in index.problems] == ["table"]
    assert all(case.stored is None for case in index.cases)


def test_a_volume_in_both_versions_is_taken_from_the_corrected_one(tmp_path: Path) -> None:
    dataset = _write_tree(tmp_path)
    _write_volume(tmp_path, "train", "train_1_a_1", mask=False)
    index = read_cases(tmp_path)
    assert index.problems == ()
    assert "1 in both train and train_fixed: taken from train_fixed, which holds HU" in index.description
    assert all("train_fixed" in str(case.image_paths[0]) for case in index.cases if case.split == "train")
    assert index == read_cases(tmp_path)
    assert len(read_cases(dataset).cases) == len(index.cases)


def test_published_masks_are_not_laid_on_stored_values(tmp_path: Path) -> None:
    dataset = _write_tree(tmp_path)
    _write_volume(dataset, "train", "train_5_a_1")
    _write_reports(dataset, "more.csv", [("train_5_a_1.nii.gz", "More.", "")])
    index = read_cases(tmp_path)
    (case,) = [case for case in index.cases if case.case_id == "train_5_a_1"]
    assert case.mask_paths == ()
    assert "1 masks of V1 volumes left aside" in index.description


def test_ones_own_masks_go_before_the_published_ones(tmp_path: Path) -> None:
    dataset = _write_tree(tmp_path)
    for name in ("train_1_a_1.nii.gz", "seg_train_1_a_2/lung.nii.gz", "seg_train_1_a_2/heart.nii.gz"):
        path = dataset / "masks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    found = {case.case_id: (case.mask_labels, len(case.mask_paths)) for case in read_cases(tmp_path).cases}
    assert found["train_1_a_1"] == ("regions", 1)
    assert found["train_1_a_2"] == ("structures", 2)
    assert found["train_2_a_1"] == ("totalsegmentator", 1)


def test_the_meaning_of_ids_can_be_set(tmp_path: Path) -> None:
    _write_tree(tmp_path)
    cases = read_cases(tmp_path, mask_labels="totalsegmentator_v1").cases
    assert {case.mask_labels for case in cases if case.mask_paths} == {"totalsegmentator_v1"}


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
