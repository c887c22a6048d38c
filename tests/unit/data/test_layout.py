"""Data folders: what is recognised, what belongs together, and what is reported."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data_folders import (
    slice_record,
    volume_record,
    write_ctrate,
    write_grey,
    write_omniabnorm,
    write_records,
    write_volume,
)

from vlm3d_ct.data.layout import CaseIndex, read_cases
from vlm3d_ct.data.names import confined, slice_patient, volume_patient, volume_stem
from vlm3d_ct.errors import Problem


def _only_problem(index: CaseIndex) -> Problem:
    (problem,) = index.problems
    assert problem.file
    assert problem.field
    assert problem.value
    assert problem.remedy
    return problem


def test_a_folder_of_volumes_in_the_plans_layout(tmp_path: Path) -> None:
    write_ctrate(tmp_path, 3)
    index = read_cases(tmp_path)
    assert index.problems == ()
    assert "3 volumes" in index.description
    case = index.cases[1]
    assert (case.case_id, case.patient_id, case.kind, case.mask_labels) == (
        "train_2_a_1",
        "train_2",
        "volume",
        "regions",
    )
    assert case.image_paths == (tmp_path / "volumes" / "train_2_a_1.nii.gz",)
    assert case.mask_paths == (tmp_path / "masks" / "train_2_a_1.nii.gz",)
    assert case.reports[0].answer == "Findings of train_2_a_1."
    assert case.split is None


def test_a_volume_without_mask_is_a_case(tmp_path: Path) -> None:
    write_volume(tmp_path, "scan", with_mask=False)
    write_records(tmp_path, [volume_record("scan")])
    index = read_cases(tmp_path)
    assert index.problems == ()
    assert index.cases[0].mask_paths == ()
    assert "masks: 1 none" in index.description


def test_a_folder_of_slices_in_the_plans_layout(tmp_path: Path) -> None:
    write_omniabnorm(tmp_path, 2)
    index = read_cases(tmp_path)
    assert index.problems == ()
    case = index.cases[0]
    assert (case.case_id, case.patient_id, case.kind, case.mask_labels) == (
        "970_1_0_177",
        "omni_970",
        "slice",
        "lesion",
    )
    assert [path.stem for path in case.image_paths] == ["-1", "0", "1", "1"]
    assert case.mask_paths == (tmp_path / "masks" / "970_1_0_177.jpg",)
    assert len(case.reports[0].steps) == 2


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        ((0,), "0 0 0 0"),
        ((-4, -3, -2, -1, 0, 1, 2, 3, 4), "-1 0 1 2"),
        ((0, 2), "0 0 0 2"),
        ((-2, 0), "0 0 0 0"),
        ((-1, 0, 3), "-1 0 0 3"),
    ],
)
def test_missing_neighbours_are_replaced_by_the_nearest(
    tmp_path: Path, offsets: tuple[int, ...], expected: str
) -> None:
    write_omniabnorm(tmp_path, 1, offsets)
    assert " ".join(path.stem for path in read_cases(tmp_path).cases[0].image_paths) == expected


def test_a_slice_may_be_one_file_with_any_ending(tmp_path: Path) -> None:
    write_grey(tmp_path / "images" / "c_1.jpeg", np.eye(8, dtype=np.uint8))
    record = slice_record("c_1")
    del record["image_path"], record["mask_path"]
    write_records(tmp_path, [record])
    (case,) = read_cases(tmp_path).cases
    assert case.image_paths == (tmp_path / "images" / "c_1.jpeg",) * 4
    assert case.mask_paths == ()


def test_batches_of_records_may_lie_beside_the_images(tmp_path: Path) -> None:
    write_omniabnorm(tmp_path, 2)
    shutil.move(tmp_path / "cot" / "batch_0000.json", tmp_path / "batch_0000.json")
    (tmp_path / "cot").rmdir()
    assert len(read_cases(tmp_path).cases) == 2


def test_a_folder_of_folders_and_a_mixed_folder_hold_the_same_cases(tmp_path: Path) -> None:
    for volumes, slices in (("apart/first", "apart/second"), ("mixed", "mixed")):
        write_ctrate(tmp_path / volumes, 2)
        write_omniabnorm(tmp_path / slices, 2)
    apart, mixed = read_cases(tmp_path / "apart"), read_cases(tmp_path / "mixed")
    assert apart.problems == mixed.problems == ()
    assert [case.case_id for case in apart.cases] == [case.case_id for case in mixed.cases]
    assert Counter(case.kind for case in mixed.cases) == {"volume": 2, "slice": 2}
    assert apart.description.splitlines()[1].startswith("second: CT slices")


def test_names_match_whatever_their_case_ending_and_folder(tmp_path: Path) -> None:
    write_volume(tmp_path, "Train_1_a_1")
    write_records(tmp_path, [{**volume_record("x"), "volumename": "dataset/train/TRAIN_1_A_1"}])
    index = read_cases(tmp_path)
    assert index.problems == ()
    assert index.cases[0].patient_id == "train_1"


def test_a_volume_without_text_is_reported(tmp_path: Path) -> None:
    write_ctrate(tmp_path, 2)
    path = write_volume(tmp_path, "train_9_a_1")
    index = read_cases(tmp_path)
    problem = _only_problem(index)
    assert (problem.code, problem.file) == ("volume-without-text", str(path))
    assert len(index.cases) == 2
    (textless,) = index.without_text
    assert (textless.case_id, textless.reports) == ("train_9_a_1", ())
    assert all(case.reports for case in index.cases)


def test_a_text_without_volume_is_reported(tmp_path: Path) -> None:
    write_ctrate(tmp_path, 2)
    (tmp_path / "volumes" / "train_1_a_1.nii.gz").unlink()
    (tmp_path / "masks" / "train_1_a_1.nii.gz").unlink()
    problem = _only_problem(read_cases(tmp_path))
    assert (problem.code, problem.field, problem.value) == (
        "text-without-volume",
        "[0] volumename",
        "train_1_a_1.nii.gz",
    )


def test_a_mask_without_volume_is_reported(tmp_path: Path) -> None:
    write_ctrate(tmp_path, 1)
    path = (tmp_path / "masks" / "train_1_a_1.nii.gz").rename(tmp_path / "masks" / "train_1_a_l.nii.gz")
    index = read_cases(tmp_path)
    assert (_only_problem(index).code, _only_problem(index).file) == ("mask-without-volume", str(path))


def test_other_formats_and_doubles_are_reported(tmp_path: Path) -> None:
    write_ctrate(tmp_path, 1)
    (tmp_path / "volumes" / "train_2_a_1.nii").write_bytes(b"")
    (tmp_path / "volumes" / "readme.txt").write_bytes(b"")
    (tmp_path / "volumes" / "deeper").mkdir()
    shutil.copy(tmp_path / "volumes" / "train_1_a_1.nii.gz", tmp_path / "volumes" / "deeper")
    assert [problem.code for problem in read_cases(tmp_path).problems] == ["format", "duplicate"]


def test_names_unfit_for_a_file_are_reported(tmp_path: Path) -> None:
    write_volume(tmp_path, "my scan", with_mask=False)
    write_records(tmp_path, [volume_record("my scan"), slice_record("../up")])
    assert [problem.code for problem in read_cases(tmp_path).problems] == ["case-id", "case-id"]


def test_missing_slices_and_masks_are_reported(tmp_path: Path) -> None:
    first, second = write_omniabnorm(tmp_path, 2)
    shutil.rmtree(tmp_path / "images" / first)
    (tmp_path / "masks" / f"{second}.jpg").unlink()
    index = read_cases(tmp_path)
    assert [(p.code, p.field) for p in index.problems] == [
        ("missing-slice", "[0] image_path"),
        ("missing-mask", "[1] mask_path"),
    ]


def test_two_folders_with_one_case_id_are_reported(tmp_path: Path) -> None:
    write_ctrate(tmp_path / "a", 1)
    write_ctrate(tmp_path / "b", 2)
    index = read_cases(tmp_path)
    assert _only_problem(index).code == "duplicate"
    assert len(index.cases) == 2


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda folder: None, "missing-folder"),
        (lambda folder: folder.write_text(""), "missing-folder"),
        (lambda folder: folder.mkdir(), "empty-folder"),
        (lambda folder: (folder / "pictures").mkdir(parents=True), "unrecognised-folder"),
        (lambda folder: (folder / "volumes").mkdir(parents=True), "empty-folder"),
    ],
)
def test_a_folder_without_cases_is_one_problem(tmp_path: Path, make: object, code: str) -> None:
    make(tmp_path / "data")  # type: ignore[operator]
    index = read_cases(tmp_path / "data")
    assert index.cases == ()
    assert (_only_problem(index).code, _only_problem(index).file) == (code, str(tmp_path / "data"))


ESCAPES = [
    "/etc/passwd", "../secret.jpg", "images/../../secret.jpg", "images/a/../../../secret.jpg", "..\\secret.jpg",
    "C:\\secret.jpg", "c:/secret.jpg", "\\\\host\\share\\x.jpg", "", ".", "..", "images/link/secret.jpg", "a\x00b",
    "x" * 5000, "\ud800.jpg", "../images/../../secret.jpg",
]  # fmt: skip


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("field", ["image_path", "mask_path"])
def test_no_path_in_a_record_leaves_the_folder(tmp_path: Path, name: str, field: str) -> None:
    write_grey(tmp_path / "secret.jpg", np.eye(8, dtype=np.uint8))
    (case_id,) = write_omniabnorm(tmp_path / "data", 1)
    (tmp_path / "data" / "images" / "link").symlink_to(tmp_path)
    write_records(tmp_path / "data", [{**slice_record(case_id), field: name}], "batch_0000.json")
    index = read_cases(tmp_path / "data")
    assert index.cases == ()
    problem = _only_problem(index) if name else index.problems[0]
    assert (problem.code, problem.field) == ("path-escapes", f"[0] {field}")
    assert str(problem).isprintable()


def test_images_on_another_disk_may_be_linked(tmp_path: Path) -> None:
    write_omniabnorm(tmp_path / "data", 1)
    shutil.move(tmp_path / "data" / "images", tmp_path / "elsewhere")
    (tmp_path / "data" / "images").symlink_to(tmp_path / "elsewhere")
    assert len(read_cases(tmp_path / "data").cases) == 1
    assert confined(tmp_path / "data", "images/970_1_0_177/0.jpg") is not None


def test_names_and_patients() -> None:
    assert volume_stem("a\\b/train_1_a_2.NII.GZ") == "train_1_a_2"
    assert volume_patient("train_12_a_1") == volume_patient("train_12_bc_3") == "train_12"
    assert volume_patient("valid_12_a_1") == "valid_12"
    assert volume_patient("scan7_left") == "scan7"
    assert slice_patient("973_1_0_177") == "omni_973"
    assert volume_patient("test_007_a_1") == "test_007"
    assert volume_patient("MRN12-1") == volume_patient("MRN12-2") == "MRN12"
    assert volume_patient("smith_1_chest_1") == volume_patient("smith_2_chest_1") == "smith"


@pytest.mark.parametrize(
    ("stems", "count"), [("case_{}", 4), ("case_{}", 21), ("scan-{}", 40), ("koeln_2021_ct_{}", 30)]
)
def test_names_that_tell_no_patients_apart_are_refused(tmp_path: Path, stems: str, count: int) -> None:
    names = [stems.format(number) for number in range(count)]
    others = ["train_1_a_1", "anna_1"] if count > 20 else []
    for name in [*names, *others]:
        write_volume(tmp_path, name, with_mask=False)
    write_records(tmp_path, [volume_record(name) for name in [*names, *others]])
    found = _only_problem(read_cases(tmp_path))
    assert found.code == "patients-unclear"
    assert f"{count} of {count + len(others)} volumes" in found.value
    rows = [f"{name}.nii.gz,P{number // 2}" for number, name in enumerate(names)] + ["anna_1,Anna"]
    (tmp_path / "patients.csv").write_text("\ufeffVolumeName,PatientID\r\n" + "\r\n".join(rows), encoding="utf-8")
    index = read_cases(tmp_path)
    assert not index.problems
    assert len({case.patient_id for case in index.cases}) == (count + 1) // 2 + len(others)
    assert f"of {(count + 1) // 2 + len(others)} patients" in index.description


def test_a_volume_that_the_table_of_patients_does_not_name_is_no_case(tmp_path: Path) -> None:
    for name in ("a_1", "a_2", "b_1", "train_7_a_1"):
        write_volume(tmp_path, name, with_mask=False)
    write_records(tmp_path, [volume_record(name) for name in ("a_1", "a_2", "b_1", "train_7_a_1")])
    (tmp_path / "patients.csv").write_text("VolumeName,PatientID\nA_1.nii.gz,P1\nb_1,P1\nelsewhere_1,P9\n")
    index = read_cases(tmp_path)
    found = _only_problem(index)
    assert (found.code, found.value) == ("patients-unclear", "1 of 4 volumes, such as a_2")
    assert {case.case_id: case.patient_id for case in index.cases} == {
        "a_1": "P1",
        "b_1": "P1",
        "train_7_a_1": "train_7",
    }


def test_a_few_scans_of_one_patient_are_no_fault(tmp_path: Path) -> None:
    for name in ("anna_1", "anna_2", "anna_3"):
        write_volume(tmp_path, name, with_mask=False)
    write_records(tmp_path, [volume_record(f"anna_{number}") for number in (1, 2, 3)])
    assert not read_cases(tmp_path).problems


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("VolumeName,PatientID\na_1,\n", "names no patient"),
        ("VolumeName,PatientID\na_1,P1\na_1.nii.gz,P2\n", "another patient"),
        ("VolumeName,Person\na_1,P1\n", "no column PatientID"),
        ("VolumeName;PatientID\na_1;P1\n", "no column VolumeName"),
    ],
)
def test_a_table_of_patients_that_says_nothing_is_refused(tmp_path: Path, rows: str, told: str) -> None:
    write_volume(tmp_path, "a_1", with_mask=False)
    write_records(tmp_path, [volume_record("a_1")])
    (tmp_path / "patients.csv").write_text(rows)
    index = read_cases(tmp_path)
    assert not index.cases
    assert told in index.problems[0].message
    assert index.problems[1].code == "patients-unclear"
