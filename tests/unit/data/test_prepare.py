"""Preparing: everything good gets into the cache, everything bad into the summary, at whatever moment it is stopped."""

from __future__ import annotations

import json
import os
import re
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_folders import SPACING_MM, volume_record, write_ctrate, write_omniabnorm, write_records, write_volume

from vlm3d_ct.data.cache import Cache
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.data.left_out import left_out_lines, write_left_out
from vlm3d_ct.data.load import load_and_preprocess, load_case
from vlm3d_ct.data.prepare import prepare_case, prepare_cases
from vlm3d_ct.data.workers import map_cases
from vlm3d_ct.errors import ConfigError, DataError
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.volumes.nifti import write_nifti
from vlm3d_ct.volumes.preprocess import Preprocess

PREPROCESS = Preprocess(size=(4, 8, 8), slice_size=(4, 16, 16))


def _cache(folder: Path) -> Cache:
    return Cache(folder / "cache", PREPROCESS.fingerprint)


def _assert_complete(cache: Cache, cases: tuple[Case, ...]) -> None:
    for case in cases:
        assert cache.is_current(case)
        cached, fresh = cache.read(case), load_and_preprocess(case, PREPROCESS)
        np.testing.assert_array_equal(cached.voxels_hu, fresh.voxels_hu)
        np.testing.assert_array_equal(np.asarray(cached.labels), np.asarray(fresh.labels))


@pytest.mark.parametrize("workers", [0, 2])
def test_every_case_is_prepared_once(tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]) -> None:
    write_ctrate(tmp_path, 3)
    write_omniabnorm(tmp_path, 2)
    cases, cache = read_cases(tmp_path).cases, _cache(tmp_path)
    first = prepare_cases(cases, PREPROCESS, cache, workers=workers)
    assert (first.prepared, first.already, first.problems) == (5, 0, ())
    assert "5 of 5 cases to prepare, about 0.00 GB" in capsys.readouterr().out
    _assert_complete(cache, cases)
    second = prepare_cases(cases, PREPROCESS, cache, workers=workers)
    assert (second.prepared, second.already) == (0, 5)
    assert "All 5 cases are prepared" in capsys.readouterr().out


def test_shards_share_the_cases(tmp_path: Path) -> None:
    write_ctrate(tmp_path, 5)
    cases, cache = read_cases(tmp_path).cases, _cache(tmp_path)
    counts = [prepare_cases(cases, PREPROCESS, cache, workers=0, shard=(i, 3)).prepared for i in (1, 2, 3)]
    assert counts == [2, 2, 1]
    _assert_complete(cache, cases)
    with pytest.raises(ConfigError, match="--shard 0/3"):
        prepare_cases(cases, PREPROCESS, cache, workers=0, shard=(0, 3))


def test_bad_cases_are_listed_and_stop_nothing(tmp_path: Path) -> None:
    stems = write_ctrate(tmp_path, 5)
    (tmp_path / "volumes" / f"{stems[0]}.nii.gz").write_bytes(b"no scan")
    write_nifti(tmp_path / "masks" / f"{stems[1]}.nii.gz", np.full((6, 10, 8), 21), SPACING_MM, np.uint8)
    write_nifti(tmp_path / "masks" / f"{stems[2]}.nii.gz", np.zeros((6, 10, 9)), SPACING_MM, np.uint8)
    cases, cache = read_cases(tmp_path).cases, _cache(tmp_path)
    summary = prepare_cases(cases, PREPROCESS, cache, workers=0)
    assert (summary.prepared, [case.case_id for case in summary.unusable]) == (2, stems[:3])
    assert [problem.code for problem in summary.problems] == ["not-gzip", "label-range", "mask-shape"]
    assert len(list((tmp_path / "cache").rglob("*.*"))) == 2
    _assert_complete(cache, cases[3:])


def test_what_is_left_out_is_grouped_and_written(tmp_path: Path) -> None:
    stems = write_ctrate(tmp_path, 6)
    for stem in stems[:4]:
        (tmp_path / "volumes" / f"{stem}.nii.gz").write_bytes(b"no scan")
    write_nifti(tmp_path / "masks" / f"{stems[4]}.nii.gz", np.zeros((6, 10, 9)), SPACING_MM, np.uint8)
    cases, cache = read_cases(tmp_path).cases, _cache(tmp_path)
    summary = prepare_cases(cases, PREPROCESS, cache, workers=0)
    lines = left_out_lines(summary)
    assert lines[0] == f"  4 x not-gzip: {stems[0]}, {stems[1]}, {stems[2]}, ..."
    assert lines[2] == f"  1 x mask-shape: {stems[4]}"
    for shard, name in (((1, 1), "left_out.json"), ((2, 3), "left_out_2_of_3.json")):
        path = write_left_out(summary, cache, shard)
        assert path == cache.root / cache.fingerprint / name
        content = json.loads(path.read_text())
        assert content["by_code"] == {"mask-shape": 1, "not-gzip": 4}
        assert [entry["case_id"] for entry in content["cases"]] == stems[:5]
        assert content["cases"][4]["problems"][0]["file"].endswith(f"{stems[4]}.nii.gz")


def test_the_time_is_said_after_the_first_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_ctrate(tmp_path, 4)
    prepare_cases(read_cases(tmp_path).cases, PREPROCESS, _cache(tmp_path), workers=0)
    assert re.search(r"takes about \d+ s more, 1 cases at a time \(measured on 1\)", capsys.readouterr().out)


def test_a_full_disk_is_named_and_what_was_made_stays(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the entry that does not fit leaves nothing behind."""
    write_ctrate(tmp_path, 3)
    large = replace(PREPROCESS, size=(32, 128, 128))
    cases, cache = read_cases(tmp_path).cases, Cache(tmp_path / "cache", large.fingerprint)
    prepare_cases(cases[:1], large, cache, workers=0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(ConfigError, match=r"cannot write the cache entry of \d{6} bytes: File too large"):
            prepare_cases(cases, large, cache, workers=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.stem for path in (tmp_path / "cache").rglob("*.*")] == [cases[0].case_id]
    assert cache.is_current(cases[0])


def test_a_worker_of_another_version_is_refused(tmp_path: Path) -> None:
    write_ctrate(tmp_path, 1)
    with pytest.raises(ConfigError, match="same version of vlm3d-ct on all machines"):
        prepare_case(read_cases(tmp_path).cases[0], preprocess=PREPROCESS, cache=Cache(tmp_path, "0123456789ab"))


def test_both_files_of_a_case_are_checked_at_once(tmp_path: Path) -> None:
    write_ctrate(tmp_path, 1)
    for name in ("volumes", "masks"):
        (tmp_path / name / "train_1_a_1.nii.gz").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load_case(read_cases(tmp_path).cases[0])
    assert [problem.code for problem in caught.value.problems] == ["not-gzip", "not-gzip"]


def test_totalsegmentator_labels_become_regions(tmp_path: Path) -> None:
    labels = np.zeros((6, 10, 8), np.uint8)
    labels[0], labels[1], labels[2] = 12, 52, 117
    write_volume(tmp_path, "train_1_a_1")
    write_nifti(tmp_path / "masks" / "train_1_a_1.nii.gz", labels, SPACING_MM, np.uint8)
    write_records(tmp_path, [volume_record("train_1_a_1")])
    (case,) = read_cases(tmp_path).cases
    with pytest.raises(DataError, match="label-range"):
        load_case(case)
    table = load_region_table()
    _, mask = load_case(replace(case, mask_labels="totalsegmentator"))
    assert mask is not None
    names = [table.names[mask.labels[z, 0, 0] - 1] for z in range(3)]
    assert names[0] == "right upper lobe"
    assert names[1] == "aorta"
    assert set(mask.present) == {1, 10, 16, 17}  # 17, the chest wall, is derived


def test_a_changed_source_is_prepared_again(tmp_path: Path) -> None:
    write_ctrate(tmp_path, 2)
    cases, cache = read_cases(tmp_path).cases, _cache(tmp_path)
    prepare_cases(cases, PREPROCESS, cache, workers=0)
    write_volume(tmp_path, "train_1_a_1", seed=77)
    summary = prepare_cases(cases, PREPROCESS, cache, workers=0)
    assert (summary.prepared, summary.already) == (1, 1)
    _assert_complete(cache, cases)


def test_a_disk_that_is_too_small_is_refused_before_the_start(tmp_path: Path) -> None:
    write_ctrate(tmp_path, 1)
    large = replace(PREPROCESS, size=(10**6, 10**6, 10**6))
    cache = Cache(tmp_path / "cache", large.fingerprint)
    with pytest.raises(ConfigError, match=r"about 1200000000000000000 bytes and \d+ are free"):
        prepare_cases(read_cases(tmp_path).cases, large, cache, workers=0)
    assert not (tmp_path / "cache").exists()


def _die_on_the_third(case: Case) -> str:
    if case.patient_id == "train_3":
        os._exit(9)
    return case.case_id


def test_a_dying_worker_costs_its_own_case_only(tmp_path: Path) -> None:
    write_ctrate(tmp_path, 6)
    cases = read_cases(tmp_path).cases
    results = {case.case_id: result for case, result in map_cases(_die_on_the_third, cases, 2)}
    died = results.pop("train_3_a_1")
    assert isinstance(died, DataError)
    assert died.problems[0].code == "worker-died"
    assert results == {case.case_id: case.case_id for case in cases if case.patient_id != "train_3"}
