"""A cohort has the plan's file formats, tells one truth everywhere, and is a function of its seed."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from vlm3d_ct.errors import ConfigError
from vlm3d_ct.phantom.cohort import write_cohort, write_volume
from vlm3d_ct.text.findings import ABNORMALITIES
from vlm3d_ct.volumes.nifti import read_mask, read_volume

PATIENTS, SLICES = 6, 3


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("cohort") / "demo"
    write_cohort(directory, patients=PATIENTS, slices=SLICES, seed=1, workers=1)
    return directory


def contents(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def names() -> list[str]:
    return [f"train_{index}_a_1.nii.gz" for index in range(1, PATIENTS + 1)]


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(cohort: Path, tmp_path: Path) -> None:
    write_cohort(tmp_path / "two", patients=PATIENTS, slices=SLICES, seed=1, workers=2)
    assert contents(tmp_path / "two") == contents(cohort)


def test_a_patient_depends_on_the_seed_and_its_number_only(cohort: Path, tmp_path: Path) -> None:
    write_cohort(tmp_path / "fewer", patients=2, seed=1, workers=1)
    write_cohort(tmp_path / "other", patients=2, seed=2, workers=1)
    name = "ct_rate/volumes/train_2_a_1.nii.gz"
    assert contents(tmp_path / "fewer")[name] == contents(cohort)[name]
    assert contents(tmp_path / "other")[name] != contents(cohort)[name]


def test_volumes_are_int16_hu_with_a_true_lps_header(cohort: Path) -> None:
    truth = json.loads((cohort / "ct_rate" / "truth.json").read_text())
    for name in names():
        image = nib.load(cohort / "ct_rate" / "volumes" / name)
        assert image.get_data_dtype() == np.int16
        assert image.shape == (96, 96, 32)
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
        np.testing.assert_allclose(image.header.get_zooms()[::-1], truth[name]["spacing_mm"], rtol=1e-5)
        voxels = np.asarray(image.dataobj)
        assert voxels.min() < -950
        assert voxels.min() >= -1024
        assert voxels.max() <= 3071


def test_masks_lie_on_the_volumes_grid_with_all_regions(cohort: Path) -> None:
    for name in names():
        volume = read_volume(cohort / "ct_rate" / "volumes" / name)
        mask = read_mask(cohort / "ct_rate" / "masks" / name, like=volume)
        assert nib.load(cohort / "ct_rate" / "masks" / name).get_data_dtype() == np.uint8
        assert np.unique(mask.labels).tolist() == list(range(21))
        assert (
            np.median(volume.voxels_hu[mask.labels == 1]) < -500 or np.median(volume.voxels_hu[mask.labels == 4]) < -500
        )
        left, right = (np.argwhere(np.isin(mask.labels, lobes))[:, 2].mean() for lobes in ((4, 5), (1, 2, 3)))
        assert left > right


def test_labels_truth_and_text_list_the_same_patients_and_findings(cohort: Path) -> None:
    folder = cohort / "ct_rate"
    truth = json.loads((folder / "truth.json").read_text())
    records = json.loads((folder / "cot" / "cot_0000.json").read_text())
    rows = list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))
    assert list(rows[0]) == ["VolumeName", *ABNORMALITIES]
    assert [row["VolumeName"] for row in rows] == [r["volumename"] for r in records] == list(truth) == names()
    for row, record in zip(rows, records, strict=True):
        assert set(record) == {"volumename", "question", "answer"}
        assert record["question"]
        assert record["answer"]
        found = {finding["abnormality"] for finding in truth[row["VolumeName"]]["findings"]}
        assert found == {name for name in ABNORMALITIES if row[name] == "1"}
        assert {row[name] for name in ABNORMALITIES} <= {"0", "1"}


def test_truth_places_lie_in_the_volume(cohort: Path) -> None:
    for entry in json.loads((cohort / "ct_rate" / "truth.json").read_text()).values():
        for finding in entry["findings"]:
            assert all(0 <= i < size for i, size in zip(finding["centre_voxel"], entry["shape"], strict=True))
            centre = [i * s for i, s in zip(finding["centre_voxel"], entry["spacing_mm"], strict=True)]
            assert finding["centre_mm"] == pytest.approx(centre, abs=0.1)
            assert all(1 <= region <= 20 for region in finding["regions"])


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="not empty"):
        write_cohort(tmp_path, patients=1, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("arguments", [{"patients": 0}, {"patients": -1}, {"patients": 1, "workers": 0}])
def test_senseless_numbers_are_refused(arguments: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        write_cohort(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


@pytest.mark.long
def test_full_size_volume_has_clinical_dimensions(tmp_path: Path) -> None:
    for name in ("volumes", "masks"):
        (tmp_path / name).mkdir()
    record = write_volume(tmp_path, 0, "full", 1)
    volume = read_volume(tmp_path / "volumes" / record.name)
    mask = read_mask(tmp_path / "masks" / record.name, like=volume)
    slices, rows, columns = volume.voxels_hu.shape
    assert 200 <= slices <= 301
    assert (rows, columns) == (512, 512)
    assert 0.6 < volume.spacing_mm[2] < 0.85
    assert np.unique(mask.labels).tolist() == list(range(21))
