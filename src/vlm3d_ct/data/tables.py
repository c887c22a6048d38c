"""CSV tables of unknown origin: limits, encodings, columns whatever their case, rows of the header's length."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vlm3d_ct.data.foreign_text import MAX_TABLE_BYTES, read_text
from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.volumes.faults import fault, problem

MAX_ROWS = 2_000_000
MAX_COLUMNS = 4096
MAX_CELL_CHARACTERS = 131_072
"""That of Python's csv module, which a report of a thousand sentences does not reach."""
NAME_COLUMN = "volumename"


@dataclass(frozen=True, kw_only=True)
class Table:
    """The content of a CSV file.

    Attributes:
        path: of the file.
        header: its column names as written, without white space around them.
        rows: line number and cells of every row that is not empty; a row may be shorter or longer than the header.
    """

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[int, list[str]], ...]

    def problem(self, line: int, field: str, value: object, message: str, remedy: str) -> Problem:
        """A problem of one row."""
        return problem("table", self.path, f"line {line} {field}".strip(), value, message, remedy)


def read_table(path: Path) -> Table:
    """Read a CSV file; empty lines and lines that start with ``#`` are left out.

    Raises:
        DataError: it cannot be read (`read_text`), is no CSV, is empty, has a column twice, or is beyond the limits.
    """
    reader = csv.reader(io.StringIO(read_text(path, MAX_TABLE_BYTES), newline=""))
    rows: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            if any(row) and not row[0].startswith("#"):
                rows.append((reader.line_num, row))
            if len(rows) > MAX_ROWS + 1 or len(row) > MAX_COLUMNS:
                message = f"Tables of up to {MAX_ROWS} rows and {MAX_COLUMNS} columns are read."
                raise fault("table", path, f"line {reader.line_num}", f"{len(row)} cells", message, "Split the table.")
    except csv.Error as error:
        message = f"The table cannot be read (cells hold up to {MAX_CELL_CHARACTERS} characters)."
        remedy = "Write it again as CSV."
        raise fault("table", path, f"line {reader.line_num}", str(error), message, remedy) from None
    if not rows:
        raise fault("table", path, "rows", "0", "The table is empty.", "Give a CSV file with a header.")
    header = tuple(name.strip() for name in rows[0][1])
    counts = Counter(name.casefold() for name in header if name)
    if doubled := [name for name, count in counts.items() if count > 1]:
        message = "The table has columns of the same name."
        raise fault("table", path, "columns", ", ".join(doubled), message, "Rename or remove one of them.")
    return Table(path=path, header=header, rows=tuple(rows[1:]))


def volume_rows(table: Table, columns: tuple[str, ...]) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """The columns that are there, and line number and cells of each row by column name.

    Args:
        table: one with the column ``VolumeName``.
        columns: the other columns that are wanted, in lower case; a row holds those that the table has.

    Raises:
        DataError: the table has no column ``VolumeName``; or, while rows are taken, one is not of the header's length.
    """
    places = {name.casefold(): place for place, name in enumerate(table.header)}
    if NAME_COLUMN not in places:
        message = "The table has no column VolumeName."
        shown = ", ".join(table.header[:8])
        remedy = "Separate columns by commas and name it so; a published table: download it again."
        raise fault("table", table.path, "columns", shown, message, remedy)
    present = [name for name in columns if name in places]
    return present, _cells(table, {name: places[name] for name in (NAME_COLUMN, *present)})


def _cells(table: Table, places: dict[str, int]) -> Iterator[tuple[int, dict[str, str]]]:
    for line, row in table.rows:
        if len(row) != len(table.header):
            message = f"The row has {len(row)} cells, the header {len(table.header)}."
            raise DataError(table.problem(line, "", ", ".join(row[:3]), message, "Correct the row."))
        yield line, {name: row[place].strip() for name, place in places.items()}
