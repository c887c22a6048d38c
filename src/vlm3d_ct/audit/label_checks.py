"""Tables of labels: everything that is wrong with them at once, and how often each abnormality is present."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from vlm3d_ct.data.labels import NAME_COLUMNS, VALUES, StoredTable, find_labels, plain_column, read_stored_labels
from vlm3d_ct.data.names import volume_stem
from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.text.findings import ABNORMALITIES
from vlm3d_ct.volumes.faults import problem

_CELL_REMEDY = "Write 0, 1, or -1 or nothing for unknown."


@dataclass
class LabelFindings:
    """What the label tables of a folder came to.

    Attributes:
        problems: everything wrong with them.
        positives: cases of this folder with each abnormality, by name; empty without a table.
        num_labelled: cases of this folder that have a row.
        num_strangers: rows that speak of no volume of this folder.
    """

    problems: list[Problem] = field(default_factory=list)
    positives: dict[str, int] = field(default_factory=dict)
    num_labelled: int = 0
    num_strangers: int = 0


def check_labels(directory: Path, volume_ids: Iterable[str]) -> LabelFindings:
    """Read all label tables of a data folder, or of the folders directly in it.

    A row without a volume is a problem of the plan's ``labels.csv``. The tables of the published tree speak of all of
    CT-RATE, of which a folder may hold a part: there such rows are only counted.
    """
    found = LabelFindings()
    folders = (directory, *(sorted(p for p in directory.iterdir() if p.is_dir()) if directory.is_dir() else ()))
    known = {volume_id.casefold() for volume_id in volume_ids}
    paths = dict.fromkeys(path for folder in folders for path in find_labels(folder))
    for path in paths:
        try:
            table = read_stored_labels(path)
        except DataError as error:
            found.problems += error.problems
            continue
        found.problems += _check_columns(table)
        found.problems += _check_rows(table)
        strangers = [(n, name) for n, (name, _) in enumerate(table.rows, 2) if _key(name) not in known]
        found.num_strangers += len(strangers)
        if path.name == "labels.csv":
            for number, name in strangers:
                message, remedy = "The row speaks of a volume that is not there.", "Add the volume or remove the row."
                found.problems.append(problem("label-without-volume", path, f"row {number}", name, message, remedy))
        _count(table, known, found)
    return found


def _check_columns(table: StoredTable) -> Iterator[Problem]:
    """Abnormalities without a column; columns that may be one of them, misspelt; columns that are there twice."""
    plain = [plain_column(name) for name in table.columns]
    for name in sorted({name for name in table.columns if plain.count(plain_column(name)) > 1}):
        message, remedy = "The table has this column more than once.", "Keep one of the columns."
        yield problem("label-columns", table.path, "columns", name, message, remedy)
    wanted = {plain_column(name): name for name in ABNORMALITIES}
    names = {plain_column(name) for name in NAME_COLUMNS}
    strange = [n for n, p in zip(table.columns, plain, strict=True) if p not in wanted and p not in names]
    for key, name in wanted.items():
        if key not in plain:
            close = get_close_matches(name, strange, n=1)
            remedy = f"Rename the column {close[0]!r}." if close else "Add the column, with nothing where unknown."
            yield problem("label-columns", table.path, "columns", name, "The abnormality has no column.", remedy)


def _check_rows(table: StoredTable) -> Iterator[Problem]:
    """Cells that are no label, and cases that are named twice."""
    classes = [place for place, name in enumerate(table.columns) if _is_class(name)]
    rows: dict[str, int] = {}
    for number, (name, cells) in enumerate(table.rows, 2):
        for place in classes:
            if cells[place] not in VALUES:
                where, message = f"row {number}, column {table.columns[place]}", "This is no label."
                yield problem("label-value", table.path, where, cells[place], message, _CELL_REMEDY)
        first = rows.setdefault(_key(name), number)
        if first != number:
            message, remedy = f"The case has a row already, {first}.", "Keep one of the rows."
            yield problem("label-duplicate", table.path, f"row {number}", name, message, remedy)


def _count(table: StoredTable, known: set[str], found: LabelFindings) -> None:
    for name, cells in table.rows:
        if _key(name) in known:
            found.num_labelled += 1
            for column, cell in zip(table.columns, cells, strict=True):
                if _is_class(column):
                    present = VALUES.get(cell) == 1
                    found.positives[column] = found.positives.get(column, 0) + present


_CLASSES = frozenset(plain_column(name) for name in ABNORMALITIES)


def _is_class(column: str) -> bool:
    return plain_column(column) in _CLASSES


def _key(name: str) -> str:
    return volume_stem(name).casefold()
