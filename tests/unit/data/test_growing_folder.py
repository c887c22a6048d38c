"""A folder that grows while a run goes on: nothing half written is used, and the run keeps its cases."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from data_folders import slice_record, volume_record, write_ctrate, write_omniabnorm, write_records, write_volume

from tiny import tiny_config
from vlm3d_ct.config import Config
from vlm3d_ct.data.begun import CASES_FILE, read_begun, write_begun
from vlm3d_ct.data.cohort import find_cohort
from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.data.records import UNFINISHED, read_records
from vlm3d_ct.errors import DataError

RECORDS = [
    {**volume_record("train_1_a_1"), "more": [-1.5e10, True, False, None, 'a "quoted" \\ text \u2028']},
    volume_record("train_2_a_1"),
]


@pytest.mark.parametrize("as_ascii", [True, False])
def test_every_beginning_of_a_list_is_unfinished_and_none_of_it_is_used(tmp_path: Path, as_ascii: bool) -> None:
    content = json.dumps(RECORDS, ensure_ascii=as_ascii).encode()
    path = tmp_path / "batch.json"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        records, problems = read_records([path])
        assert records == []
        assert [problem.code for problem in problems] == [UNFINISHED], content[:length]


def test_of_growing_json_lines_the_complete_ones_are_used(tmp_path: Path) -> None:
    first, second = (json.dumps(record).encode() + b"\n" for record in RECORDS)
    path = tmp_path / "batch.jsonl"
    for length in range(2, len(second) - 1):
        path.write_bytes(first + second[:length])
        records, problems = read_records([path])
        assert [record.fields["volumename"] for record in records] == ["train_1_a_1.nii.gz"]
        assert [problem.code for problem in problems] == [UNFINISHED]


def test_a_file_that_ends_early_and_is_not_the_newest_is_damaged(tmp_path: Path) -> None:
    for name in ("old.json", "new.json"):
        (tmp_path / name).write_text('[{"volumename": ')
    os.utime(tmp_path / "old.json", (1, 1))
    _, problems = read_records(sorted(tmp_path.iterdir()))
    assert [(Path(problem.file).name, problem.code) for problem in problems] == [
        ("new.json", UNFINISHED),
        ("old.json", "json"),
    ]


@pytest.mark.parametrize("wrong", ["[1]]", '{"a" 1}', "[1, nothing]", '[{"answer": "a"} {"answer": "b"}]'])
def test_what_is_wrong_before_its_end_is_never_unfinished(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "x.json").write_text(wrong)
    assert [problem.code for problem in read_records([tmp_path / "x.json"])[1]] == ["json"]


def _config(folder: Path, *overrides: str) -> Config:
    return tiny_config(
        f"data.ctrate_dir={folder / 'volumes_of'}",
        f"data.omniabnorm_dir={folder / 'slices_of'}",
        "data.validation_fraction=0.4",
        *overrides,
    )


def _write_folders(folder: Path) -> None:
    write_ctrate(folder / "volumes_of", 12)
    write_omniabnorm(folder / "slices_of", 12)


def test_a_file_being_written_stops_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write_folders(tmp_path)
    before = find_cohort(_config(tmp_path))
    (tmp_path / "slices_of" / "cot" / "batch_0001.json").write_text('[{"case_id": "980_1_0_1", "cot_reas')
    assert find_cohort(_config(tmp_path)) == before
    assert "left for the next run" in capsys.readouterr().err


def test_a_run_goes_on_with_the_cases_that_it_began_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write_folders(tmp_path)
    began = find_cohort(_config(tmp_path))
    write_begun(tmp_path, began.training, began.validation)
    for number in (50, 0):  # in front of the others, and behind them
        write_volume(tmp_path / "volumes_of", f"train_1{number}_b_1")
    write_records(
        tmp_path / "volumes_of", [volume_record("train_150_b_1"), volume_record("train_10_b_1")], "cot_0001.json"
    )
    record = {**slice_record("970_1_0_177"), "case_id": "100_1_0_1"}
    write_records(tmp_path / "slices_of", [record], "batch_0001.json")
    found = find_cohort(_config(tmp_path))
    assert len(found.training) + len(found.validation) == len(began.training) + len(began.validation) + 3
    assert found.identity != began.identity
    begun = read_begun(tmp_path)
    assert begun is not None
    again = found.restricted_to(begun)
    assert again == began
    assert again.identity == began.identity
    assert "3 cases are new since this run began" in capsys.readouterr().out
    sides = {case.patient_id: side for side in ("training", "validation") for case in getattr(found, side)}
    assert all(sides[case.patient_id] == side for side in ("training", "validation") for case in getattr(began, side))


def test_cases_that_are_gone_are_named(tmp_path: Path) -> None:
    _write_folders(tmp_path)
    config = _config(tmp_path, "data.on_invalid=skip")
    began = find_cohort(config)
    write_begun(tmp_path, began.training, began.validation)
    (tmp_path / "volumes_of" / "volumes" / "train_3_a_1.nii.gz").unlink()
    begun = read_begun(tmp_path)
    assert begun is not None
    with pytest.raises(DataError, match="volume = train_3_a_1") as caught:
        find_cohort(config).restricted_to(begun)
    assert [problem.code for problem in caught.value.problems] == ["case-vanished"]


def test_other_texts_of_the_same_cases_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write_folders(tmp_path)
    began = find_cohort(_config(tmp_path))
    write_begun(tmp_path, began.training, began.validation)
    write_records(tmp_path / "volumes_of", [volume_record("train_3_a_1")], "again.json")
    begun = read_begun(tmp_path)
    assert begun is not None
    assert find_cohort(_config(tmp_path)).restricted_to(begun).identity == began.identity
    assert "the texts of 1 cases are not those that this run began with (train_3_a_1)" in capsys.readouterr().err


def test_the_list_of_cases_holds_no_text(tmp_path: Path) -> None:
    write_ctrate(tmp_path, 2)
    write_begun(tmp_path, read_cases(tmp_path).cases, ())
    assert "Findings" not in (tmp_path / CASES_FILE).read_text()


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": 2}', '{"format": 1, "training": [["volume", "a"]], "validation": []}',
     '{"format": 1, "training": [["head", "a", "b"]], "validation": []}', '{"format": 1, "training": 5}'],
)  # fmt: skip
def test_a_damaged_list_of_cases_is_refused(tmp_path: Path, content: str) -> None:
    assert read_begun(tmp_path) is None
    (tmp_path / CASES_FILE).write_text(content)
    with pytest.raises(DataError, match=r"cases\.json"):
        read_begun(tmp_path)
