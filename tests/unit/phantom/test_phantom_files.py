"""Files read back as what was scanned, along whatever axes they were written."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from vlm3d_ct.errors import DataError
from vlm3d_ct.phantom.acquisition import Acquisition, draw_acquisition
from vlm3d_ct.phantom.files import write_mask_file, write_volume_file
from vlm3d_ct.phantom.patient import draw_patient
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.volumes.nifti import read_mask, read_volume
from vlm3d_ct.volumes.preprocess import Preprocess

PATIENT = draw_patient(random_stream("files patient"))
SHAPE = (4, 6, 5)
ORIENTATIONS = ["".join(letters) for axes in permutations(("LR", "PA", "SI")) for letters in product(*axes)]


def acquisition(orientation: str = "LPS", padding: int | None = None) -> Acquisition:
    drawn = draw_acquisition(random_stream("files"), PATIENT, "small")
    return replace(drawn, shape=SHAPE, view_z_mm=11.0, view_xy_mm=8.0, orientation=orientation, padding_hu=padding)


def voxels() -> np.ndarray:
    return random_stream("voxels").integers(-1024, 3000, SHAPE).astype(np.int16)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_is_read_back_at_its_place(orientation: str, tmp_path: Path) -> None:
    settings = acquisition(orientation)
    ids = random_stream("ids").integers(0, 21, SHAPE).astype(np.uint8)
    write_volume_file(tmp_path / "v.nii.gz", voxels(), settings)
    write_mask_file(tmp_path / "m.nii.gz", ids, settings)
    image = nib.load(tmp_path / "v.nii.gz")
    assert "".join(nib.aff2axcodes(image.affine)) == orientation
    assert image.get_data_dtype() == np.int16
    volume = read_volume(tmp_path / "v.nii.gz")
    np.testing.assert_array_equal(volume.voxels_hu, voxels())
    np.testing.assert_allclose(volume.spacing_mm, settings.spacing_mm, rtol=1e-6)
    assert volume.origin_mm is not None
    np.testing.assert_allclose(volume.origin_mm, settings.grid.origin_mm, atol=1e-4)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.nii.gz", like=volume).labels, ids)


@pytest.mark.parametrize("padding", [-1024, -2048, -8192])
def test_padding_is_air_once_prepared(padding: int, tmp_path: Path) -> None:
    padded = voxels()
    padded[:, 0] = padding
    write_volume_file(tmp_path / "v.nii.gz", padded, acquisition("RAS", padding))
    volume = read_volume(tmp_path / "v.nii.gz")
    prepared = Preprocess(size=SHAPE, slice_size=(4, 8, 8))(volume, None)
    assert (prepared.voxels_hu[:, 0] == -1024).all()
    np.testing.assert_array_equal(prepared.voxels_hu[:, 1:], padded[:, 1:])


@pytest.mark.parametrize("padding", [None, -2048, -8192])
def test_a_blank_header_hides_hu_and_place_and_the_intercept_brings_hu_back(
    padding: int | None, tmp_path: Path
) -> None:
    settings = replace(acquisition(padding=padding), header="blank")
    padded = voxels()
    padded[:, :, 0] = padding or -1000
    write_volume_file(tmp_path / "v.nii.gz", padded, settings)
    write_mask_file(tmp_path / "m.nii.gz", np.ones(SHAPE, dtype=np.uint8), settings)
    image = nib.load(tmp_path / "v.nii.gz")
    assert image.header.get_zooms() == (1, 1, 1)
    stored = np.asarray(image.dataobj).transpose(2, 1, 0).astype(int)
    np.testing.assert_array_equal(stored + settings.intercept_hu, padded)
    for name in ("v.nii.gz", "m.nii.gz"):
        with pytest.raises(DataError, match="no-orientation"):
            read_volume(tmp_path / name)
