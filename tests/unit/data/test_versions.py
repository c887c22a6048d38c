"""Both versions of CT-RATE: stored values under a blank header and HU under a true one are one scan."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.data.load import load_and_preprocess, load_case
from vlm3d_ct.errors import DataError
from vlm3d_ct.phantom.cohort import write_cohort
from vlm3d_ct.volumes.nifti import read_volume
from vlm3d_ct.volumes.preprocess import Preprocess
from vlm3d_ct.volumes.stored import StoredScan
from vlm3d_ct.volumes.volume import Volume

PREPROCESS = Preprocess(size=(8, 32, 32), slice_size=(4, 16, 16))
INTERCEPTS = (-1024, -8192)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fixed")
    write_cohort(folder, patients=3, slices=0, size="small", seed=44, workers=1)
    return folder / "ct_rate"


def _v1(volume: Volume, path: Path, intercept: int) -> None:
    """The scan as CT-RATE's first version has it: stored values, axes (x, y, z) of LPS, nothing in the header."""
    stored = (volume.voxels_hu.astype(np.int32) - intercept).astype(np.int16).T
    header = nib.Nifti1Header()
    header.set_data_shape(stored.shape)
    header.set_data_dtype(np.int16)
    header["vox_offset"] = 352
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4) + stored.tobytes(order="F"), 1))


@pytest.fixture
def tree(tmp_path: Path, fixed: Path) -> Path:
    """A published tree of the first version, with its table of metadata and reports."""
    rows = ["VolumeName,RescaleSlope,RescaleIntercept,XYSpacing,ZSpacing,ImageOrientationPatient"]
    reports = ["VolumeName,Findings_EN,Impressions_EN"]
    for number, path in enumerate(sorted((fixed / "volumes").glob("*.nii.gz"))):
        volume, intercept = read_volume(path), INTERCEPTS[number % 2]
        z, y, x = volume.spacing_mm
        assert y == x
        name = path.name.removesuffix(".nii.gz")
        patient, scan = "_".join(name.split("_")[:2]), "_".join(name.split("_")[:3])
        _v1(volume, tmp_path / "dataset" / "train" / patient / scan / path.name, intercept)
        rows.append(f'{path.name},1,{intercept},"[{x!r}, {y!r}]",{z!r},"[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]"')
        reports.append(f"{path.name},The lungs are clear.,Normal.")
    for name, lines in (("metadata/train_metadata.csv", rows), ("radiology_text_reports/train_reports.csv", reports)):
        target = tmp_path / "dataset" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("\n".join(lines) + "\n")
    return tmp_path


def test_both_versions_of_a_scan_are_the_same_hu_and_the_same_input(tree: Path, fixed: Path) -> None:
    index = read_cases(tree)
    assert index.problems == ()
    assert len(index.cases) == 3
    for case in index.cases:
        first, _ = load_case(case)
        second = read_volume(fixed / "volumes" / case.image_paths[0].name)
        assert isinstance(first, Volume)
        np.testing.assert_array_equal(first.voxels_hu, second.voxels_hu)
        np.testing.assert_allclose(first.spacing_mm, second.spacing_mm, rtol=1e-6)  # the header holds float32
        prepared = load_and_preprocess(case, PREPROCESS)
        np.testing.assert_array_equal(prepared.voxels_hu, PREPROCESS(second, None).voxels_hu)
        assert "x stored" in first.scale
        assert "train_metadata.csv" in first.scale


def test_the_table_is_never_applied_to_a_file_that_speaks_for_itself(tree: Path, fixed: Path) -> None:
    for case in read_cases(tree).cases:
        path = fixed / "volumes" / case.image_paths[0].name
        with_row, without = read_volume(path, stored=case.stored), read_volume(path)
        np.testing.assert_array_equal(with_row.voxels_hu, without.voxels_hu)
        assert with_row.spacing_mm == without.spacing_mm
        assert "was not applied" in with_row.scale


def test_a_row_on_values_that_are_in_hu_already_is_refused(tree: Path, fixed: Path) -> None:
    case = read_cases(tree).cases[0]
    volume = read_volume(fixed / "volumes" / case.image_paths[0].name)
    for intercept in INTERCEPTS:
        _v1(volume, case.image_paths[0], 0)
        assert case.stored is not None
        with pytest.raises(DataError, match="not-hu"):
            load_case(replace(case, stored=replace(case.stored, intercept_hu=float(intercept))))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"spacing_mm": None}, "no-spacing"),
        ({"spacing_mm": (0.0, 1.0, 1.0)}, "spacing"),
        ({"slope": float("nan")}, "rescale"),
        ({"intercept_hu": 1e9}, "rescale"),
        ({"orientation": (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)}, "affine"),
    ],
)
def test_a_row_that_cannot_be_right_is_refused(tree: Path, change: dict[str, object], code: str) -> None:
    case = read_cases(tree).cases[0]
    assert case.stored is not None
    with pytest.raises(DataError) as caught:
        load_case(replace(case, stored=replace(case.stored, **change)))  # type: ignore[arg-type]
    assert [problem.code for problem in caught.value.problems] == [code]


def test_a_blank_header_without_a_row_is_refused(tree: Path) -> None:
    case = read_cases(tree).cases[0]
    with pytest.raises(DataError, match="no-orientation"):
        load_case(replace(case, stored=None))


def test_a_patient_on_the_belly_comes_out_on_the_back(tree: Path, fixed: Path) -> None:
    """The table's orientation turns the axes as a true header would."""
    case = read_cases(tree).cases[0]
    assert case.stored is not None
    stored: StoredScan = replace(case.stored, orientation=(-1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
    turned, _ = load_case(replace(case, stored=stored))
    plain, _ = load_case(case)
    assert isinstance(turned, Volume)
    assert isinstance(plain, Volume)
    np.testing.assert_array_equal(turned.voxels_hu, plain.voxels_hu[:, ::-1, ::-1])
