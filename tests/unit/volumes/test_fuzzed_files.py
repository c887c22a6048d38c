"""Mutated scans, masks and slices: typed errors only, and none takes long (D2); no damage goes unseen (R5)."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from isal import igzip
from nifti_bytes import hu, plain_bytes
from PIL import Image

from vlm3d_ct.errors import DataError
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.volumes.nifti import read_mask, read_volume, write_nifti
from vlm3d_ct.volumes.slices import read_lesion_masks, read_slices

SHORT, LONG = 1_500, 100_000
LONGEST_S = 5.0
FIELDS = [(name, *nib.Nifti1Header.template_dtype.fields[name][:2]) for name in nib.Nifti1Header.template_dtype.names]
ODD = [0.0, -1.0, 1.0, 2.0, 7.0, 8.0, 255.0, 352.0, 32767.0, -32768.0, 1e-30, 1e30, float("nan"), float("inf")]


def _odd_field(content: bytearray, random: np.random.Generator) -> None:
    """One number of one header field becomes an odd one."""
    _, dtype, offset = FIELDS[random.integers(len(FIELDS))]
    base = dtype.base
    if base.kind == "S":
        place = offset + int(random.integers(dtype.itemsize))
        content[place : place + 1] = random.bytes(1)
        return
    place = offset + base.itemsize * int(random.integers(dtype.itemsize // base.itemsize))
    value = ODD[random.integers(len(ODD))]
    if base.kind in "iu":
        bounds = np.iinfo(base)
        value = int(np.clip(np.nan_to_num(value), bounds.min, bounds.max))
    with np.errstate(over="ignore"):
        content[place : place + base.itemsize] = np.array(value, base).tobytes()


def _few_bytes(content: bytearray, random: np.random.Generator) -> None:
    """A few bytes replaced, inserted or removed."""
    place, length = int(random.integers(0, len(content) + 1)), int(random.integers(1, 12))
    content[place : place + length * int(random.integers(0, 2))] = random.bytes(length * int(random.integers(0, 2)))


def _cut(content: bytearray, random: np.random.Generator) -> None:
    del content[int(random.integers(0, len(content))) :]


def _nifti(good: bytes, random: np.random.Generator) -> bytes:
    """Mutated under a valid gzip stream two times in three, else within the stream."""
    mutations = [_odd_field, _odd_field, _odd_field, _few_bytes, _cut]
    inside = random.random() < 0.67
    content = bytearray(good if inside else igzip.compress(good, compresslevel=1))
    for _ in range(int(random.integers(1, 5))):
        if content:
            mutations[random.integers(len(mutations)) if inside else random.integers(3, 5)](content, random)
    return igzip.compress(bytes(content), compresslevel=1) if inside else bytes(content)


def _picture(good: bytes, random: np.random.Generator) -> bytes:
    content = bytearray(good)
    for _ in range(int(random.integers(1, 5))):
        if content:
            (_few_bytes, _few_bytes, _cut)[random.integers(3)](content, random)
    return bytes(content)


def _jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(random_stream(0, "jpeg").integers(0, 256, (24, 32), dtype=np.uint8)).save(file, "JPEG")
    return file.getvalue()


SCAN, LABELS = plain_bytes(hu()), plain_bytes(np.abs(hu()) % 21)
READERS: dict[str, tuple[Callable[[Path], object], str, bytes, Callable[[bytes, np.random.Generator], bytes]]] = {
    "scans": (read_volume, "v.nii.gz", SCAN, _nifti),
    "masks": (read_mask, "m.nii.gz", LABELS, _nifti),
    "slices": (lambda path: read_slices((path,)), "s.jpg", _jpeg(), _picture),
    "lesion masks": (
        lambda path: read_lesion_masks((path,), np.zeros((1, 24, 32), np.uint8)), "s.jpg", _jpeg(), _picture
    ),
}  # fmt: skip


def _fuzz(name: str, count: int, folder: Path) -> tuple[float, int]:
    """The longest time that one file took, in seconds, and how many were refused."""
    read, file_name, good, mutate = READERS[name]
    path, random = folder / file_name, random_stream(0, "fuzz", name)
    longest, refused = 0.0, 0
    for _ in range(count):
        path.write_bytes(mutate(good, random))
        start = time.perf_counter()
        try:
            read(path)
        except DataError:
            refused += 1
        longest = max(longest, time.perf_counter() - start)
    return longest, refused


@pytest.mark.parametrize("name", READERS)
def test_mutated_files_raise_data_errors_only(tmp_path: Path, name: str) -> None:
    longest, refused = _fuzz(name, SHORT, tmp_path)
    assert longest < LONGEST_S
    assert 0 < refused < SHORT, "the mutations are too weak, or too strong to get past the first check"


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", READERS)
def test_a_hundred_thousand_mutated_files_raise_data_errors_only(tmp_path: Path, name: str) -> None:
    longest, refused = _fuzz(name, LONG, tmp_path)
    print(f"{name}: {LONG} mutated files, {refused} refused, the longest took {longest:.3f} s")
    assert longest < LONGEST_S


def _write_scan(path: Path) -> np.ndarray:
    scan = hu(1, (60, 128, 128)) // 50
    scan[:10] = -1000
    write_nifti(path, scan, (2.0, 0.7, 0.7), np.int16)
    return scan


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_1000_flips_and_200_cuts_of_a_scan_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "v.nii.gz"
    scan = _write_scan(path)
    good, random = path.read_bytes(), random_stream(0, "damage")
    unharmed = 0
    for position in random.integers(0, 8 * len(good), 1000).tolist():
        flipped = bytearray(good)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            read = read_volume(path).voxels_hu
        except DataError:
            continue
        unharmed += 1  # gzip's own time stamp and the like
        np.testing.assert_array_equal(read, scan)
    for length in random.integers(0, len(good), 200).tolist():
        path.write_bytes(good[:length])
        with pytest.raises(DataError):
            read_volume(path)
    print(f"1000 flips: {1000 - unharmed} refused, {unharmed} without effect, 0 silent; 200 cuts: all refused")


@pytest.mark.long
def test_the_checks_do_not_make_reading_slower_than_nibabel(tmp_path: Path) -> None:
    path = tmp_path / "v.nii.gz"
    scan = _write_scan(path)
    ours, theirs = [], []
    for _ in range(21):
        start = time.perf_counter()
        read_volume(path)
        between = time.perf_counter()
        found = np.asanyarray(nib.load(path).dataobj)
        theirs.append(time.perf_counter() - between)
        ours.append(between - start)
    assert found.size == scan.size
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(f"read_volume takes {ratio:.2f} of nibabel's time")
    assert ratio < 1
