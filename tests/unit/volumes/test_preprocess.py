"""Preparing a scan: HU and millimetres survive it, and the fingerprint stands for it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nifti_bytes import ORIENTATIONS, hu, write_oriented

from vlm3d_ct.config.schema import PreprocessConfig
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.volumes.companding import LEVELS_HU, to_codes, to_hu
from vlm3d_ct.volumes.nifti import read_mask, read_volume
from vlm3d_ct.volumes.preprocess import PREPROCESS_VERSION, Preprocess
from vlm3d_ct.volumes.slices import SliceStack
from vlm3d_ct.volumes.volume import RegionMask, Volume

PREPROCESS = Preprocess(size=(4, 8, 8), slice_size=(4, 16, 16))


def _volume(array: np.ndarray, spacing_mm: tuple[float, float, float] = (2.0, 0.5, 0.5)) -> Volume:
    return Volume(voxels_hu=array, spacing_mm=spacing_mm, source=Path("scan.nii.gz"))


def test_preprocess_keeps_known_hu_at_known_millimetre() -> None:
    array = np.full((8, 16, 16), -1000, np.int16)
    array[4:6, 8:10, 2:4] = 700  # 8 to 12 mm, 4 to 5 mm, 1 to 2 mm
    prepared = PREPROCESS(_volume(array), None)
    z, y, x = (round(mm / spacing) for mm, spacing in zip((8, 4, 1), prepared.spacing_mm, strict=True))
    assert prepared.spacing_mm == (4.0, 1.0, 1.0)
    assert prepared.voxels_hu[z, y, x] == 700
    assert (prepared.voxels_hu == 700).sum() == 1


def test_hu_are_limited_before_averaging() -> None:
    array = np.zeros((8, 8, 8), np.int16)
    array[::2], array[1::2] = -8192, 20000
    prepared = PREPROCESS(_volume(array), None)
    assert set(np.unique(prepared.voxels_hu)) <= {1023, 1024}


def test_the_extent_in_millimetres_is_kept() -> None:
    prepared = PREPROCESS(_volume(hu(shape=(5, 6, 7)), (2.5, 0.8, 0.7)), None)
    assert np.multiply(prepared.spacing_mm, prepared.voxels_hu.shape) == pytest.approx([12.5, 4.8, 4.9])


@pytest.mark.parametrize(("axes", "flips"), ORIENTATIONS)
def test_all_48_orientations_give_one_input(tmp_path: Path, axes: tuple[int, ...], flips: tuple[bool, ...]) -> None:
    labels = (hu(3) % 21).astype(np.uint8)
    write_oriented(tmp_path / "v.nii.gz", hu(), axes, flips)
    write_oriented(tmp_path / "m.nii.gz", labels, axes, flips)
    volume = read_volume(tmp_path / "v.nii.gz")
    prepared = PREPROCESS(volume, read_mask(tmp_path / "m.nii.gz", like=volume))
    expected = PREPROCESS(_volume(hu(), volume.spacing_mm), RegionMask(labels=labels, source=Path("m")))
    np.testing.assert_array_equal(prepared.voxels_hu, expected.voxels_hu)
    np.testing.assert_array_equal(prepared.labels, expected.labels)


def test_a_spacing_keeps_known_hu_at_known_millimetre_whatever_the_scan() -> None:
    physical = replace(PREPROCESS, size=(6, 10, 12), spacing_mm=(4.0, 1.0, 1.0))
    array = np.full((8, 16, 16), -1000, np.int16)
    array[4:6, 8:10, 2:4] = 700  # 0 to 4 mm, 0 to 1 mm, -3 to -2 mm from the centre
    labels = (array == 700).astype(np.uint8) * 3
    prepared = physical(_volume(array), RegionMask(labels=labels, source=Path("m")))
    assert prepared.spacing_mm == (4.0, 1.0, 1.0)
    assert np.argwhere(prepared.voxels_hu == 700).tolist() == [[3, 5, 3]]
    assert prepared.labels is not None
    assert np.argwhere(prepared.labels == 3).tolist() == [[3, 5, 3]]
    assert (prepared.voxels_hu[[0, -1]] == -1024).all()  # beyond the scan is air ...
    assert (prepared.voxels_hu[1:-1, 1:-1, 2:-2] != -1024).all()


def test_eight_bits_hold_levels_only() -> None:
    prepared = replace(PREPROCESS, precision="uint8")(_volume(hu()), None)
    exact = PREPROCESS(_volume(hu()), None)
    assert prepared.precision == "uint8"
    assert set(np.unique(prepared.voxels_hu)) <= set(LEVELS_HU.tolist())
    np.testing.assert_array_equal(prepared.voxels_hu, to_hu(to_codes(exact.voxels_hu)))


def test_a_slice_keeps_its_grey_values_and_its_lesion() -> None:
    grey = np.stack([np.full((32, 32), 10 * value, np.uint8) for value in range(1, 5)])
    lesion = np.zeros((32, 32), np.uint8)
    lesion[8:16] = 1
    prepared = PREPROCESS.slices(SliceStack(grey=grey, lesion=lesion))
    assert prepared.kind == "slice"
    assert prepared.voxels_hu.dtype == np.uint8
    assert prepared.voxels_hu[:, 0, 0].tolist() == [10, 20, 30, 40]
    assert prepared.labels is not None
    assert prepared.labels.shape == (4, 16, 16)
    assert (prepared.labels[:, 4:8] == 1).all()
    assert prepared.labels.sum() == 4 * 4 * 16


def test_the_fingerprint_follows_the_settings_and_nothing_else() -> None:
    config = PreprocessConfig()
    fingerprint = Preprocess.from_config(config).fingerprint
    assert fingerprint == Preprocess.from_config(PreprocessConfig()).fingerprint
    assert len(fingerprint) == 12
    assert int(fingerprint, 16) >= 0
    others = {replace(PREPROCESS, size=(4, 8, 9)).fingerprint, replace(PREPROCESS, slice_size=(1, 16, 16)).fingerprint}
    others |= {replace(PREPROCESS, precision="uint8").fingerprint}
    others |= {replace(PREPROCESS, spacing_mm=(z, 1.0, 1.0)).fingerprint for z in (1.0, 2.0)}
    assert len(others | {PREPROCESS.fingerprint, fingerprint}) == 7


def test_another_region_table_needs_another_preprocess_version() -> None:
    """Prepared masks of TotalSegmentator depend on the table: whoever changes it raises `PREPROCESS_VERSION`."""
    digest = hashlib.sha256(load_region_table().totalsegmentator_lookup().tobytes()).hexdigest()[:12]
    assert {digest: PREPROCESS_VERSION} == {"f622281b823c": 2}
