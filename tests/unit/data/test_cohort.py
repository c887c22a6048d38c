"""The cases of a run: patients never cross, faults stop the run or are counted, every rank keeps the same cases."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from data_folders import volume_record, write_ctrate, write_omniabnorm, write_records, write_volume

from tiny import tiny_config
from vlm3d_ct.config import Config
from vlm3d_ct.data.cohort import find_cohort, hash_patient, prepare_cohort
from vlm3d_ct.data.dataset import open_cache
from vlm3d_ct.errors import ConfigError, DataError


def config_of(folder: Path, *overrides: str) -> Config:
    return tiny_config(f"data.ctrate_dir={folder}", f"data.cache_dir={folder / 'cache'}", *overrides)


def test_all_scans_of_a_patient_are_on_one_side(tmp_path: Path):
    stems = [f"train_{p}_{scan}_{n}" for p in range(1, 25) for scan in "ab" for n in (1, 2)]
    for number, stem in enumerate(stems):
        write_volume(tmp_path, stem, seed=number, with_mask=False)
    write_records(tmp_path, [volume_record(stem) for stem in stems])
    for fraction in (0.1, 0.3, 0.5):
        cohort = find_cohort(config_of(tmp_path, f"data.validation_fraction={fraction}"))
        sides = [{case.patient_id for case in side} for side in (cohort.training, cohort.validation)]
        assert not sides[0] & sides[1]
        assert len(cohort.training) + len(cohort.validation) == len(stems)
        assert all(sides)
        assert len(cohort.validation) % 4 == 0
    assert len(find_cohort(config_of(tmp_path, "data.validation_fraction=0")).validation) == 0


def test_the_identity_tells_cohorts_apart(tmp_path: Path):
    write_ctrate(tmp_path, 12)
    half, again, tenth = (find_cohort(config_of(tmp_path, f"data.validation_fraction={f}")) for f in (0.5, 0.5, 0.1))
    assert half.identity == again.identity
    assert half.identity != tenth.identity


def test_patients_leave_as_hashes_only(tmp_path: Path):
    write_ctrate(tmp_path, 4)
    cohort = find_cohort(config_of(tmp_path, "data.validation_fraction=0"))
    hashes = cohort.training_patients
    assert hashes == sorted(hash_patient(case.patient_id) for case in cohort.training)
    assert all(len(digest) == 16 and "train" not in digest for digest in hashes)


def test_each_folder_gives_its_own_kind(tmp_path: Path):
    write_ctrate(tmp_path / "a", 3)
    write_omniabnorm(tmp_path / "b", 2)
    config = config_of(tmp_path / "a", f"data.omniabnorm_dir={tmp_path / 'b'}", "data.validation_fraction=0")
    assert [case.kind for case in find_cohort(config).training] == ["volume"] * 3 + ["slice"] * 2
    with pytest.raises(DataError, match=r"data\.ctrate_dir = 0 of kind volume.*holds no volumes"):
        find_cohort(config_of(tmp_path / "b"))


def test_without_a_data_folder_there_is_no_run():
    with pytest.raises(ConfigError, match=r"data\.ctrate_dir is not set"):
        find_cohort(tiny_config())


def test_a_missing_or_empty_folder_is_a_fault(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        find_cohort(config_of(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="The folder is empty"):
        find_cohort(config_of(tmp_path / "empty"))


def damaged_folder(folder: Path) -> None:
    """Six volumes: one without text, one truncated."""
    stems = write_ctrate(folder, 5)
    write_volume(folder, "train_77_a_1")
    path = folder / "volumes" / f"{stems[2]}.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:600]))


def test_faults_stop_the_run_and_name_their_files(tmp_path: Path):
    damaged_folder(tmp_path)
    config = config_of(tmp_path)
    with pytest.raises(DataError, match=r"train_77_a_1\.nii\.gz.*No text speaks of this volume"):
        find_cohort(config)
    (tmp_path / "volumes" / "train_77_a_1.nii.gz").unlink()
    (tmp_path / "masks" / "train_77_a_1.nii.gz").unlink()
    with pytest.raises(DataError, match=r"train_3_a_1\.nii\.gz"):
        prepare_cohort(find_cohort(config), config, workers=0)


def test_faults_are_left_out_listed_and_counted_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    damaged_folder(tmp_path)
    config = config_of(tmp_path, "data.on_invalid=skip", "data.validation_fraction=0.5")
    found = find_cohort(config)
    assert len(found.training) + len(found.validation) == 5
    said = capsys.readouterr().err
    assert "train_77_a_1.nii.gz" in said
    assert "1 faults were left out (data.on_invalid = skip)" in said
    prepared = prepare_cohort(found, config, workers=0)
    kept = {case.case_id for case in (*prepared.training, *prepared.validation)}
    assert kept == {f"train_{i}_a_1" for i in (1, 2, 4, 5)}
    assert "train_3_a_1.nii.gz" in capsys.readouterr().err
    assert all(open_cache(config).is_current(case) for case in (*prepared.training, *prepared.validation))
    assert prepared.identity != found.identity
