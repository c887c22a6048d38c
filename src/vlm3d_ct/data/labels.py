"""Tables of labels (CSV): which abnormalities each case has, whatever the spelling of names and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int8

from vlm3d_ct.data.names import volume_stem
from vlm3d_ct.data.tables import read_table
from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.text.findings import ABNORMALITIES

NAME_COLUMNS = ("volumename", "case_id", "noteacc_deid", "name", "image")
"""Columns that may name the case, in the order in which they are looked for; compared without case, space and ``_``."""
UNKNOWN = -1
LABEL_FILES = (
    "labels.csv",
    "dataset/multi_abnormality_labels/valid_predicted_labels.csv",
    "dataset/multi_abnormality_labels/train_predicted_labels.csv",
    "multi_abnormality_labels/valid_predicted_labels.csv",
    "multi_abnormality_labels/train_predicted_labels.csv",
)
"""Where a data folder has its labels: the plan's layout, then the published tree of CT-RATE."""
VALUES = {"0": 0, "0.0": 0, "1": 1, "1.0": 1, "": UNKNOWN, "-1": UNKNOWN, "-1.0": UNKNOWN, "nan": UNKNOWN}
"""What cells may hold, in lower case, and what it means."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelTable:
    """Labels of cases.

    Attributes:
        names: of the classes; a class without a column in the table is not among them.
        case_ids: as the table spells them.
        values: 1 present, 0 absent, -1 unknown.
        missing: classes that were asked for and have no column.
    """

    names: tuple[str, ...]
    case_ids: tuple[str, ...]
    values: Int8[np.ndarray, "n c"]
    missing: tuple[str, ...] = ()

    def for_cases(self, case_ids: Sequence[str]) -> Int8[np.ndarray, "m c"]:
        """The labels of these cases; -1 throughout for a case that the table does not name.

        Names match without regard to case, folders, and ``.nii.gz``.
        """
        rows = {_key(case_id): row for row, case_id in enumerate(self.case_ids)}
        found = np.full((len(case_ids), len(self.names)), UNKNOWN, dtype=np.int8)
        for place, case_id in enumerate(case_ids):
            row = rows.get(_key(case_id))
            if row is not None:
                found[place] = self.values[row]
        return found


def find_labels(data_dir: Path) -> tuple[Path, ...]:
    """The label tables of a data folder (`LABEL_FILES`), possibly none."""
    return tuple(path for name in LABEL_FILES if (path := data_dir / name).is_file())


def read_labels(
    paths: Path | Sequence[Path],
    names: Sequence[str] = ABNORMALITIES,
    mapping: Mapping[str, Sequence[str]] | None = None,
    *,
    skip_missing: bool = False,
) -> LabelTable:
    """Read label tables.

    Args:
        paths: one table or several, whose rows are taken together.
        names: the classes that are wanted, in this order.
        mapping: columns that make a class: it is present where one of them is 1, absent where all are 0. A class
            that it does not name is its own column. A column ``finding*location`` counts as ``finding``.
        skip_missing: leave out classes without a column instead of stopping.

    Raises:
        DataError: a table cannot be read, names no cases, lacks columns, has a value that is none of 0, 1, -1 and
            empty, or names a case twice with different labels.
    """
    tables = [read_stored_labels(path) for path in ([paths] if isinstance(paths, Path) else paths)]
    wanted = {name: tuple((mapping or {}).get(name, (name,))) for name in names}
    present = set.intersection(*({plain_column(c) for c in table.columns} for table in tables)) if tables else set()
    missing = [name for name, columns in wanted.items() if not present & {plain_column(c) for c in columns}]
    if missing and (not skip_missing or len(missing) == len(wanted)):
        raise DataError(_missing_columns(tables, missing, wanted))
    kept = [name for name in names if name not in missing]
    rows: dict[str, tuple[str, Int8[np.ndarray, " c"]]] = {}
    for table in tables:
        for number, (case_id, values) in enumerate(table.rows, 2):
            row = np.array([_merge(table, number, values, wanted[name]) for name in kept], dtype=np.int8)
            known = rows.setdefault(_key(case_id), (case_id, row))
            if not np.array_equal(known[1], row):
                message = "The table names this case twice, with different labels."
                raise DataError(_problem(table.path, f"row {number}", case_id, message, "Keep one of the rows."))
    return LabelTable(
        names=tuple(kept),
        case_ids=tuple(case_id for case_id, _ in rows.values()),
        values=np.stack([row for _, row in rows.values()]) if rows else np.zeros((0, len(kept)), np.int8),
        missing=tuple(missing),
    )


def read_mapping(path: Path) -> dict[str, tuple[str, ...]]:
    """A mapping file: a CSV with the columns ``class`` and ``column``, one row for each column that makes a class.

    Raises:
        DataError: it cannot be read, has other columns, or no row.
    """
    mapping: dict[str, tuple[str, ...]] = {}
    for row in read_csv(path, ("class", "column")):
        mapping[row["class"]] = (*mapping.get(row["class"], ()), row["column"])
    return mapping


def complete_rows(values: Int8[np.ndarray, "n c"]) -> Bool[np.ndarray, " n"]:
    """Which cases have every label."""
    known: Bool[np.ndarray, " n"] = (values != UNKNOWN).all(axis=1)
    return known


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file that must have these columns; lines that start with ``#`` and empty ones are left out.

    Raises:
        DataError: it cannot be read, lacks a column or a cell, or has no row.
    """
    header, rows = _read_rows(path)
    names = [name.strip().casefold() for name in header]
    if absent := [column for column in columns if column not in names]:
        message, remedy = f"The table has no column {', '.join(absent)}.", f"Give the columns {', '.join(columns)}."
        raise DataError(_problem(path, "columns", ", ".join(header), message, remedy))
    found = []
    for number, row in rows:
        cells = dict(zip(names, (cell.strip() for cell in row), strict=False))
        if empty := [column for column in columns if not cells.get(column)]:
            message = f"The row has nothing under {', '.join(empty)}."
            raise DataError(_problem(path, f"line {number}", ", ".join(row), message, "Complete or remove it."))
        found.append({column: cells[column] for column in columns})
    if not found:
        raise DataError(_problem(path, "rows", "0", "The table has no row.", "Add rows."))
    return found


@dataclass(frozen=True, kw_only=True)
class StoredTable:
    """A table as it stands in its file.

    Attributes:
        path: the file.
        columns: names in its header.
        rows: name of the case and all cells, stripped and in lower case.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def read_stored_labels(path: Path) -> StoredTable:
    """A table of labels as it stands there; its values are not looked at.

    Raises:
        DataError: it cannot be read, has no column that names the case, or a row of another length.
    """
    header, lines = _read_rows(path)
    plain = [plain_column(name) for name in header]
    place = next((plain.index(wanted) for name in NAME_COLUMNS if (wanted := plain_column(name)) in plain), None)
    if place is None:
        message = "The table has no column that names the case."
        remedy = f"Name one VolumeName (or {', '.join(NAME_COLUMNS[1:])})."
        raise DataError(_problem(path, "columns", ", ".join(header[:8]), message, remedy))
    rows = []
    for number, cells in lines:
        if len(cells) != len(header):
            message = f"The row has {len(cells)} cells, the header {len(header)}."
            raise DataError(_problem(path, f"line {number}", ", ".join(cells[:3]), message, "Correct the row."))
        rows.append((cells[place].strip(), tuple(cell.strip().casefold() for cell in cells)))
    return StoredTable(path=path, columns=tuple(header), rows=tuple(rows))


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header of a CSV file and its other rows with their line numbers."""
    table = read_table(path)
    return list(table.header), list(table.rows)


def _merge(table: StoredTable, number: int, values: Sequence[str], wanted: Sequence[str]) -> int:
    """1 where one of the columns is 1, 0 where all are 0, else unknown."""
    plain = {plain_column(name) for name in wanted}
    found = []
    for name, cell in zip(table.columns, values, strict=True):
        if plain_column(name) in plain:
            if cell not in VALUES:
                message, remedy = "A label must be 0, 1, -1 or empty.", "Correct the table."
                raise DataError(_problem(table.path, f"row {number}, column {name}", cell, message, remedy))
            found.append(VALUES[cell])
    return 1 if 1 in found else UNKNOWN if UNKNOWN in found else 0


def _missing_columns(
    tables: Sequence[StoredTable], missing: Sequence[str], wanted: Mapping[str, Sequence[str]]
) -> Problem:
    return Problem(
        code="missing-label-columns",
        file=", ".join(str(table.path) for table in tables),
        field="columns",
        value=", ".join(tables[0].columns[:24]) if tables else "",
        message=f"{len(missing)} of {len(wanted)} classes have no column: {', '.join(missing)}.",
        remedy="Add the columns, map others with --mapping FILE, or leave these classes out with --skip_invalid.",
    )


def _key(case_id: str) -> str:
    return volume_stem(case_id).casefold()


def plain_column(name: str) -> str:
    """A column's name without case, spaces, underscores, and what stands behind ``*``."""
    return name.split("*", 1)[0].casefold().replace("_", "").replace(" ", "").strip()


def _problem(path: Path, field: str, value: str, message: str, remedy: str) -> Problem:
    return Problem(code="table", file=str(path), field=field, value=value[:200], message=message, remedy=remedy)
