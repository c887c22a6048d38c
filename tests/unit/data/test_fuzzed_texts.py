"""Mutated texts and tables: typed problems only, and none takes long (D2)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_folders import slice_record, volume_record, write_omniabnorm, write_volume

from vlm3d_ct.data.begun import CASES_FILE, read_begun
from vlm3d_ct.data.cot import collect_volume_texts
from vlm3d_ct.data.labels import read_labels
from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.data.metadata import read_metadata, read_no_chest
from vlm3d_ct.data.records import read_records
from vlm3d_ct.data.texts import collect_texts
from vlm3d_ct.errors import DataError
from vlm3d_ct.seeding import random_stream

SHORT, LONG = 1_500, 100_000
LONGEST_S = 5.0
TURNS = [{"from": "human", "value": "<image>Why?"}, {"from": "gpt", "value": "No."}]
PUBLISHED = {
    "image": "images/970_1_0_177",
    "mask": "masks",
    "context": [0],
    "abnormality": [{"id": 1, "description": "A."}],
}
RECORDS = [
    volume_record("train_1_a_1"),
    {"image": "train_1_a_1.nii.gz", "report": "R.", "question": "Q?", "thinking": "1. A.\n2. B.", "answer": "C."},
    {"image": "train_1_a_1.nii.gz", "conversations": TURNS},
    slice_record("970_1_0_177"),
    {"case_id": "971_1_0_177", **PUBLISHED},
]
JSON = json.dumps(RECORDS).encode()
LINES = "\n".join(map(json.dumps, RECORDS)).encode()
REPORTS = (
    b'VolumeName,Findings_EN,Impressions_EN,Sentence\ntrain_1_a_1.nii.gz,"Two, or\nthree.",Not given.,"A ""b""."\n'
)
METADATA = (
    b'VolumeName,XYSpacing,RescaleIntercept,RescaleSlope,ZSpacing\ntrain_1_a_1.nii.gz,"[0.683, 0.683]",-1024,1,1.5\n'
)
LABELS = b'VolumeName,Emphysema,Lung nodule\ntrain_1_a_1.nii.gz,1,0\n"train_2_a_1.nii.gz",,-1\n'
NAMES = b"train_1_a_1.nii.gz\n'train_2_a_1',\n"
BEGUN = b'{"format": 1, "training": [["volume", "a", "b"]], "validation": []}'
PIECES = [*(bytes([byte]) for byte in b'{}[]",:\\\n\r\0/. -0e'), b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"../", b"null",
          b'"answer": ', b"NaN", b"1e999", b"\\ud800", b"[" * 2000, b"9" * 5000, b"\xe2\x80\xa8"]  # fmt: skip


def _mutated(good: bytes, random: np.random.Generator) -> bytes:
    """A few bytes replaced, inserted, removed, doubled, or the end cut off."""
    content = bytearray(good)
    for _ in range(int(random.integers(1, 6))):
        place, length = int(random.integers(0, len(content) + 1)), int(random.integers(0, 12))
        piece = PIECES[random.integers(len(PIECES))]
        kind = random.integers(5)
        if kind == 0:
            content[place : place + len(piece)] = piece
        elif kind == 1:
            content[place:place] = piece
        elif kind == 2:
            del content[place : place + length]
        elif kind == 3:
            content[place:place] = content[place : place + 10 * length]
        elif random.random() < 0.3:
            del content[place:]
    return bytes(content)


def _texts(path: Path) -> None:
    records, _ = read_records([path])
    collect_volume_texts(records)


def _begun(path: Path) -> None:
    try:
        read_begun(path.parent)
    except DataError:
        return


def _labels(path: Path) -> None:
    try:
        read_labels(path, ("Emphysema", "Lung nodule"), skip_missing=True)
    except DataError:
        return


def _folder(path: Path) -> None:
    read_cases(path.parent.parent)


PARSERS: dict[str, tuple[Callable[[Path], object], str, tuple[bytes, ...], float]] = {
    "JSON records": (_texts, "cot/x.json", (JSON, LINES), 1),
    "tables of reports": (lambda p: collect_texts([], [p.parent], {"train_1_a_1"}), "reports.csv", (REPORTS,), 1),
    "tables of metadata": (lambda p: read_metadata([p]), "metadata.csv", (METADATA,), 1),
    "lists of names": (lambda p: read_no_chest([p]), "no_chest_train.txt", (NAMES,), 1),
    "lists of a run's cases": (_begun, CASES_FILE, (BEGUN,), 1),
    "tables of labels": (_labels, "labels.csv", (LABELS,), 1),
    "whole folders": (_folder, "cot/x.json", (JSON, LINES), 0.3),
}


def _fuzz(name: str, count: int, folder: Path) -> float:
    """Read mutated files; returns the longest time that one took, in seconds."""
    parse, relative, seeds, _ = PARSERS[name]
    write_volume(folder, "train_1_a_1", with_mask=False)
    write_omniabnorm(folder, 2)
    path = folder / relative
    path.parent.mkdir(exist_ok=True)
    random = random_stream(0, "fuzz", name)
    longest = 0.0
    for number in range(count):
        path.write_bytes(_mutated(seeds[number % len(seeds)], random))
        start = time.perf_counter()
        parse(path)
        longest = max(longest, time.perf_counter() - start)
    return longest


@pytest.mark.parametrize("name", PARSERS)
def test_mutated_files_never_raise_and_never_hang(tmp_path: Path, name: str) -> None:
    assert _fuzz(name, round(SHORT * PARSERS[name][3]), tmp_path) < LONGEST_S


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", PARSERS)
def test_a_hundred_thousand_mutated_files_never_raise_and_never_hang(tmp_path: Path, name: str) -> None:
    longest = _fuzz(name, LONG, tmp_path)
    print(f"{name}: {LONG} mutated files, the longest took {longest:.3f} s")
    assert longest < LONGEST_S
