"""Reading volumes: geometry, values, and every file that must be refused."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nifti_bytes import ORIENTATIONS, ORIGIN_MM, SPACING_MM, hu, lps_affine, plain_bytes, write_oriented, write_plain

from vlm3d_ct.errors import DataError
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.volumes.nifti import read_mask, read_volume, write_nifti
from vlm3d_ct.volumes.volume import Volume

REAL_DATA = Path(__file__).parents[4] / "shared" / "realdata"
NAN3 = np.full(3, np.nan)


@pytest.mark.parametrize(("axes", "flips"), ORIENTATIONS)
def test_all_48_orientations_read_alike(tmp_path: Path, axes: tuple[int, ...], flips: tuple[bool, ...]) -> None:
    write_oriented(tmp_path / "v.nii.gz", hu(), axes, flips)
    volume = read_volume(tmp_path / "v.nii.gz")
    np.testing.assert_array_equal(volume.voxels_hu, hu())
    assert volume.spacing_mm == pytest.approx(SPACING_MM)
    assert volume.origin_mm == pytest.approx(ORIGIN_MM)


def test_a_known_hu_stands_at_its_known_millimetre(tmp_path: Path) -> None:
    array = hu()
    array[3, 1, 6] = 1234
    write_oriented(tmp_path / "v.nii.gz", array, (1, 2, 0), (True, False, True))
    volume = read_volume(tmp_path / "v.nii.gz")
    x, y, z = (lps_affine() @ [6, 1, 3, 1])[:3]
    assert volume.origin_mm is not None
    index = np.round((np.array([z, y, x]) - volume.origin_mm) / volume.spacing_mm).astype(int)
    assert volume.voxels_hu[tuple(index)] == 1234


@pytest.mark.parametrize("dtype", ["int16", ">i2", "int32", "float32", ">f4", "float64", "int64"])
def test_every_voxel_type_gives_the_same_hu(tmp_path: Path, dtype: str) -> None:
    image = nib.Nifti1Image(
        hu().T.astype(dtype),
        np.diag([-1, -1, 1, 1]) @ lps_affine(),
        nib.Nifti1Header(endianness=dtype[0].strip("if") or "<"),
    )
    image.to_filename(tmp_path / "v.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "v.nii.gz").voxels_hu, hu())


def test_slope_and_intercept_are_applied_once(tmp_path: Path) -> None:
    stored = ((hu().astype(np.int32) + 1024) // 2).astype(np.uint16)
    path = write_plain(tmp_path / "v.nii.gz", stored, scl_slope=2.0, scl_inter=-1024.0)
    np.testing.assert_array_equal(read_volume(path).voxels_hu, 2 * stored.astype(np.int32) - 1024)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "uint32", "uint64"])
def test_scaling_works_on_every_stored_type(tmp_path: Path, dtype: str) -> None:
    stored = (np.arange(5 * 6 * 7) % 100).astype(dtype).reshape(5, 6, 7)
    path = write_plain(tmp_path / "v.nii.gz", stored, scl_slope=20.0, scl_inter=-1000.0)
    np.testing.assert_array_equal(read_volume(path).voxels_hu, 20 * stored.astype(int) - 1000)


@pytest.mark.parametrize("dtype", ["uint16", "uint64"])
def test_unsigned_values_are_no_hounsfield_units(tmp_path: Path, dtype: str) -> None:
    _assert_problem(write_plain(tmp_path / "v.nii.gz", (hu() + 1024).astype(dtype)), "not-hu", "voxels")


@pytest.mark.parametrize(("slope", "intercept"), [(np.nan, np.nan), (0.0, -1024.0), (1.0, 0.0), (np.inf, 0.0)])
def test_an_unset_slope_changes_nothing(tmp_path: Path, slope: float, intercept: float) -> None:
    path = write_plain(tmp_path / "v.nii.gz", hu(), scl_slope=slope, scl_inter=intercept)
    np.testing.assert_array_equal(read_volume(path).voxels_hu, hu())


def test_values_beyond_int16_are_clipped(tmp_path: Path) -> None:
    array = hu().astype(np.float32)
    array[0, 0, :2] = 1e6, -1e6
    volume = read_volume(write_plain(tmp_path / "v.nii.gz", array))
    assert volume.voxels_hu[0, 0, :2].tolist() == [32767, -32768]


def test_a_trailing_fourth_axis_of_one_is_accepted(tmp_path: Path) -> None:
    path = write_plain(tmp_path / "v.nii.gz", hu(), dim=[4, 7, 6, 5, 1, 1, 1, 1])
    np.testing.assert_array_equal(read_volume(path).voxels_hu, hu())


def test_oblique_scans_are_taken_along_the_nearest_axes(tmp_path: Path) -> None:
    path = tmp_path / "v.nii.gz"
    nib.Nifti1Image(hu().T, _tilted(15)).to_filename(path)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.voxels_hu, hu())
    assert volume.spacing_mm == pytest.approx(SPACING_MM)


def _tilted(degrees: float) -> np.ndarray:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rotation = np.array([[1, 0, 0, 0], [0, cosine, -sine, 0], [0, sine, cosine, 0], [0, 0, 0, 1]])
    return np.asarray(rotation @ np.diag([-1, -1, 1, 1]) @ lps_affine())


def test_written_volumes_read_back_and_are_byte_equal(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, hu(), SPACING_MM, np.int16)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    volume = read_volume(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume.voxels_hu, hu())
    assert volume.spacing_mm == pytest.approx(SPACING_MM)
    assert nib.aff2axcodes(nib.load(tmp_path / "a.nii.gz").affine) == ("L", "P", "S")
    with pytest.raises(ValueError, match="cannot hold"):
        write_nifti(tmp_path / "c.nii.gz", hu(), SPACING_MM, np.uint8)
    assert not list(tmp_path.glob("c*"))


def _with_voxel(value: float) -> np.ndarray:
    array = hu().astype(np.float32)
    array[1, 2, 3] = value
    return array


def _padded(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array[:, 0] = -2000  # as some scanners fill what lies outside of the field of view
    return array


ITK_WITHOUT_GEOMETRY = {
    "pixdim": [1, 1, 1, 1, 0, 0, 0, 0],
    "srow_x": [-1, 0, 0, 0],
    "srow_y": [0, -1, 0, 0],
    "srow_z": [0, 0, 1, 0],
    "qform_code": 0,
}

FAULTS = {
    "nan voxel": (_with_voxel(np.nan), {}, "not-finite", "voxels"),
    "infinite voxel": (_with_voxel(np.inf), {}, "not-finite", "voxels"),
    "constant": (np.full((5, 6, 7), -1000, np.int16), {}, "constant", "voxels"),
    "zeros": (np.zeros((5, 6, 7), np.int16), {}, "constant", "voxels"),
    "stored values": (hu() + np.int16(1024), {}, "not-hu", "voxels"),
    "stored values, padded": (_padded(hu() + np.int16(1024)), {}, "not-hu", "voxels"),
    "identity along L, P, S": (hu(), ITK_WITHOUT_GEOMETRY, "no-orientation", "sform_code, qform_code"),
    "rescaled twice": (np.clip(hu() - np.int16(8192), -8192, -6000), {}, "not-hu", "voxels"),
    "nan spacing": (hu(), {"pixdim": [1, np.nan, 0.8, 2.5, 0, 0, 0, 0]}, "spacing", "pixdim[1]"),
    "zero spacing": (hu(), {"pixdim": [1, 0.7, 0.8, 0, 0, 0, 0, 0]}, "spacing", "pixdim[3]"),
    "negative spacing": (hu(), {"pixdim": [1, 0.7, -0.8, 2.5, 0, 0, 0, 0]}, "spacing", "pixdim[2]"),
    "spacing in metres": (hu(), {"pixdim": [1, 7e-4, 8e-4, 25e-4, 0, 0, 0, 0]}, "spacing", "pixdim[1]"),
    "affine of 30 mm": (hu(), {"srow_z": [0, 0, 30, 0]}, "spacing", "affine axis k"),
    "affine column of zeros": (hu(), {"srow_x": [0, 0, 0, 0]}, "spacing", "affine axis i"),
    "nan affine": (hu(), {"srow_x": [np.nan, 0, 0, 0]}, "affine", "affine"),
    "nan origin": (hu(), {"srow_x": [-0.7, 0, 0, np.nan]}, "affine", "affine"),
    "nan quaternion": (hu(), {"sform_code": 0, "qform_code": 1, "quatern_b": np.nan}, "affine", "affine"),
    "no orientation": (hu(), {"sform_code": 0, "qform_code": 0}, "no-orientation", "sform_code, qform_code"),
    "four axes": (hu(), {"dim": [4, 7, 3, 5, 2, 1, 1, 1]}, "not-3d", "dim"),
    "two axes": (hu(), {"dim": [2, 42, 5, 1, 1, 1, 1, 1]}, "not-3d", "dim"),
    "negative axis": (hu(), {"dim": [3, -7, 6, 5, 1, 1, 1, 1]}, "not-3d", "dim"),
    "complex voxels": (hu(), {"datatype": 32}, "voxel-type", "datatype"),
    "unknown voxels": (hu(), {"datatype": 77}, "voxel-type", "datatype"),
    "more declared": (hu(), {"dim": [3, 7, 6, 6, 1, 1, 1, 1]}, "length", "voxels"),
    "less declared": (hu(), {"dim": [3, 7, 6, 4, 1, 1, 1, 1]}, "length", "voxels"),
    "wild offset": (hu(), {"vox_offset": -4.0}, "nifti-header", "vox_offset"),
    "nan offset": (hu(), {"vox_offset": np.nan}, "nifti-header", "vox_offset"),
    "pair of files": (hu(), {"magic": b"ni1"}, "not-nifti", "header"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_file_is_one_problem(tmp_path: Path, name: str) -> None:
    array, header, code, field = FAULTS[name]
    _assert_problem(write_plain(tmp_path / "v.nii.gz", array, **header), code, field)  # type: ignore[arg-type]


def test_a_tilted_scan_is_refused(tmp_path: Path) -> None:
    nib.Nifti1Image(hu().T, _tilted(30)).to_filename(tmp_path / "v.nii.gz")
    _assert_problem(tmp_path / "v.nii.gz", "oblique", "affine")


def _assert_problem(path: Path, code: str, field: str) -> None:
    with pytest.raises(DataError) as caught:
        read_volume(path)
    (problem,) = caught.value.problems
    assert (problem.code, problem.file, problem.field) == (code, str(path), field)
    assert problem.value
    assert problem.message
    assert problem.remedy


CONTAINERS = {
    "missing": (None, "missing-file", "file"),
    "empty": (b"", "not-gzip", "first bytes"),
    "not gzip": (plain_bytes(hu()), "not-gzip", "first bytes"),
    "no nifti inside": (gzip.compress(bytes(2000)), "not-nifti", "header"),
    "short inside": (gzip.compress(bytes(100)), "truncated", "header"),
    "only the magic": (b"\x1f\x8b", "truncated", "header"),
    "trailing bytes": (gzip.compress(plain_bytes(hu())) + b"more", "trailing-bytes", "end of file"),
    "longer inside": (gzip.compress(plain_bytes(hu()) + b"x"), "length", "voxels"),
    "shorter inside": (gzip.compress(plain_bytes(hu())[:-1]), "length", "voxels"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_faulty_container_is_one_problem(tmp_path: Path, name: str) -> None:
    content, code, field = CONTAINERS[name]
    path = tmp_path / "v.nii.gz"
    if content is not None:
        path.write_bytes(content)
    _assert_problem(path, code, field)


def test_a_folder_in_place_of_a_file_is_one_problem(tmp_path: Path) -> None:
    (tmp_path / "v.nii.gz").mkdir()
    _assert_problem(tmp_path / "v.nii.gz", "unreadable-file", "file")


def test_no_bit_flip_changes_a_volume_silently(tmp_path: Path) -> None:
    good = gzip.compress(plain_bytes(hu()), mtime=0)
    path = tmp_path / "v.nii.gz"
    path.write_bytes(good)
    expected = read_volume(path)
    positions = random_stream(0, "flips").integers(0, 8 * len(good), 300)
    refused = 0
    for position in positions.tolist():
        flipped = bytearray(good)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            _assert_same(read_volume(path), expected)
        except DataError:
            refused += 1
    assert refused > 290  # the rest are flips in gzip's own time stamp and the like


def _assert_same(volume: Volume, expected: Volume) -> None:
    np.testing.assert_array_equal(volume.voxels_hu, expected.voxels_hu)
    assert (volume.spacing_mm, volume.origin_mm) == (expected.spacing_mm, expected.origin_mm)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    good = gzip.compress(plain_bytes(hu()), mtime=0)
    path = tmp_path / "v.nii.gz"
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(DataError):
            read_volume(path)


@pytest.mark.parametrize("dim", [[3, 32767, 32767, 32767], [3, 16384, 16384, 8], [3, 2000, 2000, 60]])
def test_a_header_that_lies_is_refused_at_once(tmp_path: Path, dim: list[int]) -> None:
    path = write_plain(tmp_path / "v.nii.gz", hu(), dim=[*dim, 1, 1, 1, 1])
    start = time.process_time()
    with pytest.raises(DataError) as caught:
        read_volume(path)
    assert time.process_time() - start < 0.05
    assert caught.value.problems[0].code in {"gzip-bomb", "truncated"}


def test_a_gzip_bomb_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "v.nii.gz"
    path.write_bytes(gzip.compress(plain_bytes(hu()) + bytes(200_000_000), 1))
    start = time.process_time()
    with pytest.raises(DataError) as caught:
        read_volume(path)
    assert time.process_time() - start < 0.05
    assert caught.value.problems[0].code == "length"


REAL_PAIRS = [
    ("chest_right_ct", "chest_right_lung_mask"),
    ("thorax_cta", "thorax_cta_totalsegmentator_ids"),
    ("abdomen_small_ct", "abdomen_small_totalsegmentator_ids"),
]


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real scans are not beside the repository")
@pytest.mark.parametrize(("scan", "mask"), REAL_PAIRS)
def test_real_scans_read_without_alarm_and_as_nibabel_reads_them(scan: str, mask: str) -> None:
    volume = read_volume(REAL_DATA / f"{scan}.nii.gz")
    labels = read_mask(REAL_DATA / f"{mask}.nii.gz", like=volume, max_label=117).labels
    for name, ours in ((scan, volume.voxels_hu), (mask, labels)):
        ras = nib.as_closest_canonical(nib.load(REAL_DATA / f"{name}.nii.gz"))
        theirs = np.asarray(ras.dataobj).transpose(2, 1, 0)[:, ::-1, ::-1]
        np.testing.assert_array_equal(ours, theirs)
