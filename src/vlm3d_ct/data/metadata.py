"""What CT-RATE's tables say about its volumes: rescaling and spacing, and which show no chest."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from vlm3d_ct.data.foreign_text import read_lines
from vlm3d_ct.data.names import volume_stem
from vlm3d_ct.data.tables import NAME_COLUMN, Table, read_table, volume_rows
from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.volumes.stored import StoredScan

_SLOPE, _INTERCEPT, _SPACING_XY, _SPACING_Z = "rescaleslope", "rescaleintercept", "xyspacing", "zspacing"
_ORIENTATION = "imageorientationpatient"
_ABSENT = {"", "nan", "none", "[]"}
_PAIR = re.compile(r"[\[(]?\s*([^\s,\[\]()]+)\s*,\s*([^\s,\[\]()]+)\s*[\])]?")


def read_metadata(paths: Iterable[Path]) -> tuple[dict[str, StoredScan], list[Problem]]:
    """The rows of metadata tables by volume (casefolded, without ending).

    A row without slope or intercept says nothing about the values and is left out; one without spacing is kept. What
    is no number, or contradicts another row, is a problem, and the volume has no row.
    """
    found: dict[str, StoredScan] = {}
    problems: list[Problem] = []
    contradicted = set()
    for path in paths:
        try:
            table = read_table(path)
            _, rows = volume_rows(table, (_SLOPE, _INTERCEPT, _SPACING_XY, _SPACING_Z, _ORIENTATION))
            for line, row in rows:
                key = volume_stem(row[NAME_COLUMN]).casefold()
                try:
                    scan = _stored_scan(table, line, row)
                except DataError as error:
                    problems.extend(error.problems)
                    continue
                known = found.setdefault(key, scan) if scan is not None else None
                if known is not None and scan is not None and _numbers(known) != _numbers(scan):
                    message = f"Another row says something else of this volume: {known.table.name}."
                    problems.append(table.problem(line, "VolumeName", key, message, "Keep the right row."))
                    contradicted.add(key)
        except DataError as error:
            problems.extend(error.problems)
    return {key: scan for key, scan in found.items() if key not in contradicted}, problems


def read_no_chest(paths: Iterable[Path]) -> tuple[set[str], list[Problem]]:
    """The volumes (casefolded, without ending) that lists ``no_chest_*.txt`` name, one a line."""
    found: set[str] = set()
    problems: list[Problem] = []
    for path in paths:
        try:
            names = {name for line in read_lines(path) for name in line.replace(",", " ").split()}
            found |= {volume_stem(name.strip("'\"")).casefold() for name in names if name.strip("'\"")}
        except DataError as error:
            problems.extend(error.problems)
    return found, problems


def _numbers(scan: StoredScan) -> tuple[object, ...]:
    return scan.slope, scan.intercept_hu, scan.spacing_mm, scan.orientation


def _stored_scan(table: Table, line: int, row: dict[str, str]) -> StoredScan | None:
    slope, intercept = (_number(table, line, name, row.get(name, "")) for name in (_SLOPE, _INTERCEPT))
    if slope is None or intercept is None:
        return None
    if slope <= 0:
        message = "A slope must be positive."
        raise DataError(table.problem(line, _SLOPE, row[_SLOPE], message, "Correct the row, or download the table."))
    scan = StoredScan(slope=slope, intercept_hu=intercept, spacing_mm=_spacing(table, line, row), table=table.path)
    text = row.get(_ORIENTATION, "")
    if text.casefold() in _ABSENT:
        return scan
    parts = text.strip("[]()").replace("'", " ").replace('"', " ").replace(",", " ").split()
    numbers = [number for part in parts if (number := _number(table, line, _ORIENTATION, part)) is not None]
    if len(numbers) != 6:
        message, remedy = "An orientation has six numbers.", "Correct the row, or download the table."
        raise DataError(table.problem(line, _ORIENTATION, text, message, remedy))
    a, b, c, d, e, f = numbers
    return replace(scan, orientation=(a, b, c, d, e, f))


def _spacing(table: Table, line: int, row: dict[str, str]) -> tuple[float, float, float] | None:
    z_mm = _number(table, line, _SPACING_Z, row.get(_SPACING_Z, ""))
    pair = row.get(_SPACING_XY, "")
    if z_mm is None or pair.casefold() in _ABSENT:
        return None
    match = _PAIR.fullmatch(pair)
    y_mm, x_mm = (_number(table, line, _SPACING_XY, part) for part in (match.groups() if match else (pair, pair)))
    if y_mm is None or x_mm is None:
        return None
    if min(z_mm, y_mm, x_mm) <= 0:
        message = "A spacing must be positive."
        shown = f"{pair}, {z_mm:g}"
        raise DataError(table.problem(line, "spacing", shown, message, "Correct the row, or download the table."))
    return z_mm, y_mm, x_mm


def _number(table: Table, line: int, name: str, text: str) -> float | None:
    """A finite number; None where the table says that there is none."""
    if text.casefold() in _ABSENT:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        message = "This is no number."
        raise DataError(table.problem(line, name, text, message, "Correct the row, or download the table."))
    return value
