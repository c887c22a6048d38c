"""Masks, reports and slices in the forms that others publish them in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_folders import slice_record, volume_record, write_grey, write_records, write_volume

from vlm3d_ct.data.case import Case
from vlm3d_ct.data.layout import CaseIndex, read_cases
from vlm3d_ct.volumes.stored import StoredScan


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def _only_case(index: CaseIndex) -> Case:
    assert index.problems == ()
    (case,) = index.cases
    return case


@pytest.mark.parametrize(
    "folder",
    ["seg_train_1_a_1", "train_1_a_1", "TRAIN_1_A_1", "train/train_1/train_1_a/seg_train_1_a_1", "train_1_a_1.nii.gz"],
)
def test_a_folder_named_by_a_volume_holds_its_structures(tmp_path: Path, folder: str) -> None:
    write_volume(tmp_path, "train_1_a_1", with_mask=False)
    write_records(tmp_path, [volume_record("train_1_a_1")])
    paths = tuple(tmp_path / "masks" / folder / f"{name}.nii.gz" for name in ("heart", "left lung"))
    _touch(*paths)
    case = _only_case(read_cases(tmp_path, mask_labels="totalsegmentator"))
    assert (case.mask_paths, case.mask_labels) == (paths, "structures")


def test_ids_in_folders_are_found_by_their_own_name(tmp_path: Path) -> None:
    write_volume(tmp_path, "train_1_a_1", with_mask=False)
    write_records(tmp_path, [volume_record("train_1_a_1")])
    path = tmp_path / "masks" / "train_1" / "train_1_a_1" / "train_1_a_1.nii.gz"
    _touch(path)
    case = _only_case(read_cases(tmp_path, mask_labels="totalsegmentator"))
    assert (case.mask_paths, case.mask_labels) == ((path,), "totalsegmentator")


def test_two_masks_of_a_volume_and_structures_of_none_are_problems(tmp_path: Path) -> None:
    write_volume(tmp_path, "train_1_a_1")
    write_records(tmp_path, [volume_record("train_1_a_1")])
    _touch(*(tmp_path / "masks" / f"seg_train_{n}_a_1" / "heart.nii.gz" for n in (1, 7)))
    index = read_cases(tmp_path)
    assert sorted(found.code for found in index.problems) == ["duplicate", "mask-without-volume"]
    assert [case.mask_labels for case in index.cases] == ["regions"]


def test_a_report_stands_in_where_there_is_no_reasoning_yet(tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        write_volume(tmp_path, f"train_{number}_a_1", with_mask=False)
    write_records(tmp_path, [volume_record("train_1_a_1")])
    rows = [
        "VOLUMENAME,Findings_EN,Impressions_EN",
        "train_1_a_1.nii.gz,Nothing.,None",
        "train_2_a_1.nii.gz,Not given.,Normal.",
    ]
    (tmp_path / "reports.csv").write_text("\n".join([*rows, "train_9_a_1.nii.gz,Elsewhere.,"]), encoding="utf-16")
    (tmp_path / "radiology_text_reports").mkdir()
    sentences = [
        "Volumename,Anatomy,Sentence",
        "train_3_a_1,lung,Clear.",
        "train_3_a_1,heart,Large.",
        "train_3_a_1,lung,Clear.",
    ]
    (tmp_path / "radiology_text_reports" / "sentences.csv").write_text("\n".join(sentences))
    (tmp_path / "vqa").mkdir()
    turns = [{"from": "human", "value": "<image>Anything?"}, {"from": "gpt", "value": "No."}]
    vqa = [{"image": f"train_{n}_a_1.nii.gz", "conversations": turns} for n in (1, 4, 8)]
    (tmp_path / "vqa" / "vqa.json").write_text(json.dumps(vqa))
    index = read_cases(tmp_path)
    assert index.problems == ()
    assert [case.reports[0].answer for case in index.cases] == [
        "Findings of train_1_a_1.", "Normal.", "Clear. Large.", "No.",
    ]  # fmt: skip
    assert "texts: 1 VQA, 1 chain of thought, 2 report" in index.description
    assert "1 volumes of the report tables are not there" in index.description


def test_a_table_beside_phantoms_with_blank_headers_and_a_list_of_no_chests(tmp_path: Path) -> None:
    for stem in ("train_1_a_1", "train_2_a_1"):
        write_volume(tmp_path, stem, with_mask=False)
    write_records(tmp_path, [volume_record(stem) for stem in ("train_1_a_1", "train_2_a_1")])
    table = tmp_path / "metadata.csv"
    table.write_text(
        'VolumeName,XYSpacing,RescaleIntercept,RescaleSlope,ZSpacing\ntrain_1_a_1.nii.gz,"[0.7, 0.8]",-1024,1,2\n'
    )
    (tmp_path / "no_chest_train.txt").write_text("train_2_a_1.nii.gz\r\n")
    index = read_cases(tmp_path)
    case = _only_case(index)
    assert case.stored == StoredScan(slope=1.0, intercept_hu=-1024.0, spacing_mm=(2.0, 0.7, 0.8), table=table)
    assert [(each.case_id, each.shows_chest) for each in index.no_chest] == [("train_2_a_1", False)]


@pytest.mark.parametrize(
    "content",
    ["VolumeName,Findings_EN,findings_en\na,b,c\n", "VolumeName,Other\na,b\n", "", "VolumeName,Findings_EN\na,b,c\n",
     'VolumeName,Findings_EN\na,"' + "x" * 140_000 + '"\n', "VolumeName,Findings_EN\na,\x00\n"],
)  # fmt: skip
def test_a_table_that_is_not_as_it_should_be_is_one_problem(tmp_path: Path, content: str) -> None:
    write_volume(tmp_path, "train_1_a_1", with_mask=False)
    write_records(tmp_path, [volume_record("train_1_a_1")])
    (tmp_path / "reports.csv").write_text(content)
    (found,) = read_cases(tmp_path).problems
    assert found.code in ("table", "encoding")
    assert found.file == str(tmp_path / "reports.csv")


def _published(case_id: str, **fields: object) -> dict[str, object]:
    abnormalities = [
        {"id": 1, "group_id": 0, "label": "", "category": ["nodule", "mass"], "description": "A nodule."},
        {"id": 2, "group_id": 0, "label": "", "category": [], "description": "A nodule."},
        {"id": 3, "group_id": 1, "label": "effusion", "category": [], "description": "An effusion."},
    ]
    record = {"image": f"image/{case_id}", "mask": f"mask/{case_id}", "context": [-1, 0, 1]}
    return {**record, "abnormality": abnormalities, **fields}


def _write_published(root: Path, *case_ids: str, suffix: str = "jpeg") -> None:
    ramp = np.linspace(60, 90, 32 * 40).reshape(32, 40).astype(np.uint8)
    for case_id in case_ids:
        for offset in (-1, 0, 2):
            write_grey(root / "image" / case_id / f"{offset}.{suffix}", ramp)
        for number in (1, 2, 3):
            write_grey(root / "mask" / case_id / f"{number}.{suffix}", ramp)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg"])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_the_published_slices_are_recognised_by_what_their_file_holds(tmp_path: Path, suffix: str, plane: str) -> None:
    _write_published(tmp_path, "973_1_0_177", suffix=suffix)
    (tmp_path / plane).mkdir()
    (tmp_path / plane / f"{plane}_train.json").write_text(json.dumps({"973_1_0_177": _published("973_1_0_177")}))
    case = _only_case(read_cases(tmp_path))
    assert (case.case_id, case.patient_id, case.kind, case.plane) == ("973_1_0_177", "omni_973", "slice", plane)
    assert (case.category, case.mask_labels) == ("nodule", "lesion")
    assert [path.name for path in case.image_paths] == [f"{k}.{suffix}" for k in (-1, 0, 0, 2)]
    assert [path.name for path in case.mask_paths] == [f"{k}.{suffix}" for k in (1, 2, 3)]
    assert case.reports[0].answer == "A nodule. An effusion."
    assert case.reports[0].steps == ()


def test_reasoning_takes_the_place_of_published_descriptions(tmp_path: Path) -> None:
    ids = ("1_1_0_1", "2_1_0_1", "3_1_0_1")
    _write_published(tmp_path, *ids)
    published = {case_id: _published(case_id) for case_id in ids[:2]} | {ids[2]: _published(ids[2], abnormality=[])}
    (tmp_path / "valid.json").write_text(json.dumps(published))
    (tmp_path / "valid_grouped.json").write_text(json.dumps(published))
    write_records(tmp_path, [slice_record(ids[0])])
    index = read_cases(tmp_path)
    assert index.problems == ()
    assert [(case.case_id, len(case.reports[0].steps)) for case in index.cases] == [(ids[0], 2), (ids[1], 0)]
    assert index.cases[0].category == "pulmonary nodule"
    assert all("image" in case.image_paths[0].parts for case in index.cases)
    assert "texts: 1 chain of thought, 1 description, 1 none" in index.description
    assert "3 records repeat a case" in index.description


def test_paths_may_begin_with_the_name_of_the_data_folder(tmp_path: Path) -> None:
    root = tmp_path / "OmniAbnorm-CT-14K"
    _write_published(root, "1_1_0_1")
    fields = {"image": "OmniAbnorm-CT-14K/image/1_1_0_1", "mask": "OmniAbnorm-CT-14K/mask/1_1_0_1"}
    (root / "axial_train.json").write_text(json.dumps({"1_1_0_1": _published("1_1_0_1", **fields)}))
    assert len(_only_case(read_cases(root)).mask_paths) == 3


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"image": "image/absent"}, "missing-slice"),
        ({"mask": "mask/absent"}, "missing-mask"),
        ({"image": "../image"}, "path-escapes"),
        ({"mask": "/etc"}, "path-escapes"),
        ({"image": 5}, "path-escapes"),
        ({"plane": "oblique"}, "record-fields"),
        ({"abnormality": "nodule"}, "record-fields"),
        ({"abnormality": [{"id": "../1"}]}, "record-fields"),
        ({"abnormality": [{"id": 1, "description": 5}]}, "record-fields"),
        ({"abnormality": [{"id": 1, "category": {"a": 1}}]}, "record-fields"),
    ],
)
def test_a_published_record_that_is_wrong_is_one_problem(tmp_path: Path, fields: dict[str, object], code: str) -> None:
    _write_published(tmp_path, "1_1_0_1")
    (tmp_path / "train.json").write_text(json.dumps({"1_1_0_1": _published("1_1_0_1", **fields)}))
    (found,) = read_cases(tmp_path).problems
    assert found.code == code


def test_slices_of_many_cases_in_one_folder_are_no_neighbours(tmp_path: Path) -> None:
    for number in (101, 102):
        write_grey(tmp_path / "images" / f"{number}.jpg", np.eye(8, dtype=np.uint8))
    record = slice_record("101")
    del record["image_path"], record["mask_path"]
    write_records(tmp_path, [record])
    assert _only_case(read_cases(tmp_path)).image_paths == (tmp_path / "images" / "101.jpg",) * 4
