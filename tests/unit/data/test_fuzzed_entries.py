"""Mutated cache entries: refused with a typed error, also where every checksum is right (D2)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_folders import write_ctrate
from isal import isal_zlib

from vlm3d_ct.data.cache import Cache
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.entry import _CRC, _PREFIX, MAGIC
from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.errors import DataError
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.volumes.preprocess import Prepared

SHORT, LONG = 1_500, 100_000
LONGEST_S = 5.0
ODD = [None, True, -1, 0, 1, 3, 2**31, 2**63, 1e400, float("nan"), "", "x", "int8", "uint8", "O", "float64", "slice"]
ODD += [[], [4], [4, 8], [4, 8, 16], [4, 8, 16, 1], [2**40, 8, 16], ["a"], {}, {"a": 1}, [[]], "9" * 5000]


@pytest.fixture
def written(tmp_path: Path) -> tuple[Cache, Case]:
    write_ctrate(tmp_path / "data", 1)
    case, cache = read_cases(tmp_path / "data").cases[0], Cache(tmp_path / "cache", "0123456789ab")
    random = random_stream(0, "prepared")
    prepared = Prepared(
        voxels_hu=random.integers(-1024, 3072, (4, 8, 16), dtype=np.int16),
        labels=random.integers(0, 21, (4, 8, 16), dtype=np.uint8),
        spacing_mm=(3.25, 0.7, 0.5),
        kind="volume",
    )
    cache.write(case, prepared)
    return cache, case


def _sealed(header: bytes, blobs: bytes) -> bytes:
    """An entry whose checksums are right."""
    body = _PREFIX.pack(MAGIC, len(header), isal_zlib.crc32(header)) + header + blobs
    return body + _CRC.pack(isal_zlib.crc32(body))


def _few_bytes(content: bytes, random: np.random.Generator) -> bytes:
    mutated = bytearray(content)
    for _ in range(int(random.integers(1, 5))):
        place, length = int(random.integers(0, len(mutated) + 1)), int(random.integers(1, 12))
        mutated[place : place + length * int(random.integers(0, 2))] = random.bytes(length * int(random.integers(0, 2)))
    return bytes(mutated)


def _mutations(good: bytes) -> list[Callable[[np.random.Generator], bytes]]:
    _, length, _ = _PREFIX.unpack_from(good)
    text, blobs = good[_PREFIX.size : _PREFIX.size + length], good[_PREFIX.size + length : -4]

    def odd_field(random: np.random.Generator) -> bytes:
        header = json.loads(text)
        for _ in range(int(random.integers(1, 3))):
            header[list(header)[random.integers(len(header))]] = ODD[random.integers(len(ODD))]
        return _sealed(json.dumps(header).encode(), blobs)

    def without_field(random: np.random.Generator) -> bytes:
        header = json.loads(text)
        del header[list(header)[random.integers(len(header))]]
        return _sealed(json.dumps(header).encode(), blobs)

    return [
        odd_field,
        odd_field,
        without_field,
        lambda random: _sealed(_few_bytes(text, random), blobs),
        lambda random: _sealed(text, _few_bytes(blobs, random)),
        lambda random: _few_bytes(good, random),
        lambda random: good[: random.integers(len(good))],
    ]


def _fuzz(cache: Cache, case: Case, count: int) -> tuple[float, int]:
    """The longest time that one entry took, in seconds, and how many were refused."""
    path, random = cache.path(case.case_id, "volume"), random_stream(0, "fuzz", "entries")
    mutations = _mutations(path.read_bytes())
    longest, refused = 0.0, 0
    for number in range(count):
        path.write_bytes(mutations[number % len(mutations)](random))
        start = time.perf_counter()
        cache.is_current(case)
        try:
            read = cache.read(case)
        except DataError:
            refused += 1
        else:
            assert read.voxels_hu.ndim == 3
            assert read.labels is None or read.labels.shape == read.voxels_hu.shape
        longest = max(longest, time.perf_counter() - start)
    return longest, refused


def test_mutated_entries_raise_data_errors_only(written: tuple[Cache, Case]) -> None:
    longest, refused = _fuzz(*written, SHORT)
    assert longest < LONGEST_S
    assert refused > SHORT // 2


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_mutated_entries_raise_data_errors_only(written: tuple[Cache, Case]) -> None:
    longest, refused = _fuzz(*written, LONG)
    print(f"cache entries: {LONG} mutated, {refused} refused, the longest took {longest:.3f} s")
    assert longest < LONGEST_S
