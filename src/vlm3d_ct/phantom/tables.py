"""The tables of a cohort: texts, labels, truth, metadata, batch files; written anew or continued, to the same bytes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlm3d_ct.phantom.slices import SliceRecord
from vlm3d_ct.phantom.truth import METADATA_COLUMNS
from vlm3d_ct.text.findings import ABNORMALITIES
from vlm3d_ct.volumes.atomic import write_atomically

SLICES_PER_FILE = 50


@dataclass(frozen=True, kw_only=True)
class VolumeRecord:
    """What is written about one volume besides its voxels.

    Attributes:
        name: of its file.
        question, answer: its text.
        labels: 0 or 1 for each of the 18 abnormalities.
        truth: its entry of ``truth.json``.
        metadata: its row of ``metadata.csv``; None where the header says all.
    """

    name: str
    question: str
    answer: str
    labels: tuple[int, ...]
    truth: dict[str, Any]
    metadata: list[str] | None


def add_volumes(directory: Path, records: Sequence[VolumeRecord], known: int) -> None:
    """Add records behind the first ``known`` ones of the tables in a folder."""
    cot = directory / "cot" / "cot_0000.json"
    texts = _read_json(cot, [])[:known]
    texts += [{"volumename": r.name, "question": r.question, "answer": r.answer} for r in records]
    _write_json(cot, texts)
    truth = dict(list(_read_json(directory / "truth.json", {}).items())[:known])
    _write_truth(directory / "truth.json", truth | {r.name: r.truth for r in records})
    labels = [[r.name, *map(str, r.labels)] for r in records]
    _add_rows(directory / "labels.csv", ["VolumeName", *ABNORMALITIES], labels, known)
    metadata = [r.metadata for r in records if r.metadata is not None]
    if metadata:
        _add_rows(directory / "metadata.csv", METADATA_COLUMNS, metadata, known)


def add_slices(directory: Path, records: Sequence[SliceRecord], known: int) -> None:
    """Add records behind the first ``known`` ones of the batch files: the last file is filled, then new ones follow."""
    first = known // SLICES_PER_FILE
    path = _batch(directory, first)
    batch = _read_json(path, [])[: known % SLICES_PER_FILE]
    batch += [asdict(record) for record in records]
    for start in range(0, len(batch), SLICES_PER_FILE):
        _write_json(_batch(directory, first + start // SLICES_PER_FILE), batch[start : start + SLICES_PER_FILE])


def _batch(directory: Path, number: int) -> Path:
    return directory / "cot" / f"batch_{number:04d}.json"


def _add_rows(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]], known: int) -> None:
    before: list[list[str]] = []
    if known:
        with path.open(newline="", encoding="utf-8") as file:
            before = list(csv.reader(file))[1 : known + 1]
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([columns, *before, *rows])
    write_atomically(path, [table.getvalue().encode()])


def _read_json(path: Path, empty: Any) -> Any:
    return json.loads(path.read_text("utf-8")) if path.is_file() else empty


def _write_json(path: Path, content: object) -> None:
    write_atomically(path, [(json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()])


def _write_truth(path: Path, truth: dict[str, Any]) -> None:
    """One line a volume."""
    lines = [f"{json.dumps(name)}: {json.dumps(entry, ensure_ascii=False)}" for name, entry in truth.items()]
    write_atomically(path, [("{\n" + ",\n".join(lines) + "\n}\n").encode()])
