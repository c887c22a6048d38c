"""The cache: what goes in comes out, or an error does."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_folders import write_ctrate

from vlm3d_ct.cli.main import run
from vlm3d_ct.data.cache import Cache, sources_of
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.entry import read_header
from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.errors import ConfigError, DataError
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.volumes.companding import to_codes, to_hu
from vlm3d_ct.volumes.preprocess import Prepared
from vlm3d_ct.volumes.stored import StoredScan


def _prepared(seed: int = 0, labels: bool = True) -> Prepared:
    random = random_stream(seed, "prepared")
    return Prepared(
        voxels_hu=random.integers(-1024, 3072, (4, 8, 16), dtype=np.int16),
        labels=random.integers(0, 21, (4, 8, 16), dtype=np.uint8) if labels else None,
        spacing_mm=(3.25, 0.7, 1 / 3),
        kind="volume",
    )


@pytest.fixture
def case(tmp_path: Path) -> Case:
    write_ctrate(tmp_path / "data", 1)
    return read_cases(tmp_path / "data").cases[0]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", "0123456789ab")


def _assert_equal(a: Prepared, b: Prepared) -> None:
    np.testing.assert_array_equal(a.voxels_hu, b.voxels_hu)
    assert a.voxels_hu.dtype == b.voxels_hu.dtype
    assert (a.labels is None) == (b.labels is None)
    if a.labels is not None:
        np.testing.assert_array_equal(a.labels, b.labels)
    assert (a.spacing_mm, a.kind) == (b.spacing_mm, b.kind)


@pytest.mark.parametrize("labels", [True, False])
def test_what_goes_in_comes_out(cache: Cache, case: Case, labels: bool) -> None:
    cache.write(case, _prepared(labels=labels))
    _assert_equal(cache.read(case), _prepared(labels=labels))
    assert read_header(cache.path(case.case_id, "volume"))[0].shape == (4, 8, 16)


def test_grey_slices_come_back_as_they_were(cache: Cache, case: Case) -> None:
    grey = np.arange(4 * 8 * 16, dtype=np.uint8).reshape(4, 8, 16)
    prepared = replace(_prepared(labels=False), voxels_hu=grey, kind="slice")
    cache.write(replace(case, kind="slice"), prepared)
    _assert_equal(cache.read(replace(case, kind="slice")), prepared)


def test_an_absent_entry_is_refused(cache: Cache, case: Case) -> None:
    with pytest.raises(DataError, match=r"prepare.*not-prepared"):
        cache.read(case)


def test_cache_refuses_another_fingerprint(cache: Cache, case: Case) -> None:
    cache.write(case, _prepared())
    other = Cache(cache.root, "ba9876543210")
    assert not other.is_current(case)
    target = other.path(case.case_id, "volume")
    target.parent.mkdir(parents=True)
    cache.path(case.case_id, "volume").rename(target)
    assert not other.is_current(case)
    with pytest.raises(DataError, match=r"fingerprint = 0123456789ab.*prepare"):
        other.read(case)


def test_no_damage_is_read_silently(cache: Cache, case: Case) -> None:
    cache.write(case, _prepared())
    path = cache.path(case.case_id, "volume")
    good = path.read_bytes()
    for position in random_stream(0, "flips").integers(0, 8 * len(good), 1000).tolist():
        flipped = bytearray(good)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(DataError, match="cache-damaged"):
            cache.read(case)
    for length in random_stream(0, "cuts").integers(0, len(good), 200).tolist():
        path.write_bytes(good[:length])
        assert not cache.is_current(case)
        with pytest.raises(DataError, match="cache-damaged"):
            cache.read(case)


def test_an_entry_is_current_until_its_sources_change(cache: Cache, case: Case) -> None:
    assert not cache.is_current(case)
    cache.write(case, _prepared())
    assert cache.is_current(case)
    assert not cache.is_current(replace(case, mask_paths=()))
    assert not cache.is_current(replace(case, mask_labels="totalsegmentator"))
    os.utime(case.image_paths[0], ns=(0, 1))
    assert not cache.is_current(case)
    cache.write(case, _prepared())
    assert cache.is_current(case)
    case.mask_paths[0].write_bytes(b"another")
    assert not cache.is_current(case)


def test_a_source_that_is_replaced_while_it_is_read_makes_no_current_entry(cache: Cache, case: Case) -> None:
    before = sources_of(case)
    case.image_paths[0].write_bytes(b"another file")
    cache.write(case, _prepared(), before)
    assert not cache.is_current(case)
    with pytest.raises(DataError, match=r"other files than this case.*prepare.*cache-other-sources"):
        cache.read(case)


def test_an_entry_whose_sources_have_gone_can_still_be_read(cache: Cache, case: Case) -> None:
    cache.write(case, _prepared())
    case.image_paths[0].unlink()
    _assert_equal(cache.read(case), _prepared())


def test_a_disk_that_does_not_give_an_entry_is_not_called_an_absent_one(cache: Cache, case: Case) -> None:
    cache.path(case.case_id, "volume").mkdir(parents=True)
    with pytest.raises(DataError, match=r"file = Is a directory.*cache-unreadable"):
        cache.read(case)


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a\x00", "x" * 300, "-rf", "ä"])
def test_no_case_id_leaves_the_cache(cache: Cache, name: str) -> None:
    with pytest.raises(DataError, match="case-id"):
        cache.path(name, "volume")


def test_a_folder_that_cannot_be_written_is_a_configuration_error(cache: Cache, case: Case) -> None:
    cache.root.write_text("a file stands where the cache should be")
    with pytest.raises(ConfigError, match=r"cannot write the cache entry of \d+ bytes: Not a directory"):
        cache.write(case, _prepared())


def test_a_mask_of_very_many_files_is_current_until_one_of_them_changes(cache: Cache, case: Case) -> None:
    folder = case.image_paths[0].parent
    paths = tuple(folder / f"{'structure' * 20}_{number}.nii.gz" for number in range(200))
    for path in paths:
        path.write_bytes(b"mask")
    many = replace(case, mask_paths=paths, mask_labels="structures")
    cache.write(many, _prepared(labels=True))
    assert cache.is_current(many)
    paths[150].write_bytes(b"another")
    assert not cache.is_current(many)


def test_a_source_whose_name_is_no_utf_8_is_stored_and_found_again(cache: Cache, case: Case) -> None:
    odd = case.image_paths[0].with_name("m\udcff.nii.gz")
    odd.write_bytes(b"mask")
    named = replace(case, mask_paths=(odd,))
    cache.write(named, _prepared(labels=True))
    assert cache.is_current(named)
    _assert_equal(cache.read(named), _prepared(labels=True))


def test_another_row_of_metadata_makes_an_entry_stale(cache: Cache, case: Case) -> None:
    row = StoredScan(slope=1.0, intercept_hu=-1024.0, spacing_mm=(1.0, 0.7, 0.7), table=case.image_paths[0])
    cache.write(replace(case, stored=row), _prepared(labels=True))
    assert cache.is_current(replace(case, stored=row))
    assert not cache.is_current(replace(case, stored=replace(row, intercept_hu=-8192.0)))


def test_hu_in_8_bits_come_back_as_they_were_rounded_and_take_less(
    cache: Cache, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    exact = _prepared()
    rounded = replace(exact, voxels_hu=to_hu(to_codes(exact.voxels_hu)), precision="uint8")
    path = cache.path(case.case_id, "volume")
    cache.write(case, exact)
    size = path.stat().st_size
    cache.write(case, rounded)
    read = cache.read(case)
    _assert_equal(read, rounded)
    assert read.precision == "uint8"
    assert path.stat().st_size < size
    assert run(["inspect", str(path)]) == 0
    assert "HU in 8 bits, off by at most 4 HU in -1024..-200, 2 HU in -200..200" in capsys.readouterr().out
