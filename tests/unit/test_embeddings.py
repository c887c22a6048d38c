from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlm3d_ct.embeddings import ARRAY_FIELDS, EmbeddingSet
from vlm3d_ct.errors import DataError
from vlm3d_ct.seeding import random_stream


def make_set(num_cases: int = 3, **changes: Any) -> EmbeddingSet:
    stream = random_stream("embeddings")
    vectors = stream.normal(size=(num_cases, 4)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    fields: dict[str, Any] = {
        "case_ids": tuple(f"fall_{i}_ü" for i in range(num_cases)),
        "patient_ids": tuple(f"p{i}" for i in range(num_cases)),
        "volume": unit,
        "text": unit.copy(),
        "text_groups": np.arange(num_cases) + 2**60,
        "region_volume": stream.normal(size=(num_cases, 2, 4)).astype(np.float32),
        "region_text": stream.normal(size=(num_cases, 2, 4)).astype(np.float32),
        "region_mentions": np.ones((num_cases, 2), dtype=bool),
        "region_groups": np.arange(num_cases * 2).reshape(num_cases, 2),
        "provenance": {"checkpoint": "a\nb", "ü": ""},
    }
    return EmbeddingSet(**(fields | changes))


def same(first: EmbeddingSet, second: EmbeddingSet) -> bool:
    ids = (first.case_ids, first.patient_ids, first.provenance) == (
        second.case_ids,
        second.patient_ids,
        second.provenance,
    )
    return ids and all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ARRAY_FIELDS)


@pytest.mark.parametrize("num_cases", [0, 1, 3])
def test_saving_and_loading_changes_nothing(tmp_path: Path, num_cases: int):
    path = tmp_path / "new" / "pool.npz"
    embeddings = make_set(num_cases)
    embeddings.save(path)
    embeddings.save(path)
    assert same(EmbeddingSet.load(path), embeddings)
    assert [file.name for file in path.parent.iterdir()] == ["pool.npz"]


def test_damage_is_refused_or_harmless(tmp_path: Path):
    path = tmp_path / "pool.npz"
    embeddings = make_set()
    embeddings.save(path)
    whole = path.read_bytes()
    stream = random_stream("damage")
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[int(stream.integers(len(whole)))] ^= 1 << int(stream.integers(8))
        path.write_bytes(damaged)
        try:
            assert same(EmbeddingSet.load(path), embeddings)  # a bit that no reader looks at: a date, a flag
        except DataError:
            refused += 1
    assert refused > 200


def test_truncation_is_refused(tmp_path: Path):
    path = tmp_path / "pool.npz"
    make_set().save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="embeddings-file"):
            EmbeddingSet.load(path)


def test_changed_content_with_valid_checksums_of_its_parts_is_refused(tmp_path: Path):
    path = tmp_path / "pool.npz"
    make_set().save(path)
    with np.load(path) as members:
        arrays = dict(members)
    arrays["text"] = arrays["text"][::-1]
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="SHA-256"):
        EmbeddingSet.load(path)


def test_other_files_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        EmbeddingSet.load(tmp_path / "absent.npz")
    path = tmp_path / "pool.npz"
    np.savez_compressed(path, volume=np.zeros(10))
    with pytest.raises(DataError, match="compressed"):
        EmbeddingSet.load(path)
    np.savez(path, volume=np.zeros(10))
    with pytest.raises(DataError, match="members"):
        EmbeddingSet.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match="members"):
        EmbeddingSet.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"volume": np.full((3, 4), 0.4, np.float32)}, "length"),
        ({"volume": np.eye(3, 5, dtype=np.float32)}, "volume is"),
        ({"text": np.eye(4, dtype=np.float32)}, "4 rows"),
        ({"text": np.full((3, 4), np.nan, np.float32)}, "finite"),
        ({"region_text": np.full((3, 2, 4), np.inf, np.float32)}, "finite"),
        ({"text_groups": np.arange(3.0)}, "float64"),
        ({"region_groups": np.zeros((3, 5), np.int64)}, "region_mentions is"),
        ({"region_volume": np.zeros((3, 5, 4), np.float32)}, "region_volume is"),
        ({"region_mentions": np.ones((3, 1), bool), "region_groups": np.ones((3, 1), np.int64)}, "number of regions"),
        ({"volume": np.eye(3, 7, dtype=np.float32), "text": np.eye(3, 7, dtype=np.float32)}, "width"),
        ({"case_ids": ("a", "b", "a")}, "unique"),
        ({"case_ids": ("a", "b", "c\nd")}, "line break"),
        ({"case_ids": ("a", "b", "")}, "empty"),
        ({"patient_ids": ("a",)}, "patient ids"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict[str, Any], message: str):
    embeddings = make_set()
    for name, value in change.items():  # past the shape checks that only tests have
        object.__setattr__(embeddings, name, value)
    with pytest.raises(ValueError, match=message):
        embeddings.__post_init__()
