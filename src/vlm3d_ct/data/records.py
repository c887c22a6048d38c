"""Reading text files: JSON as a list, as a dict keyed by name, or line by line. Problems are collected, not raised."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm3d_ct.data.foreign_text import CUT_TEXT, MAX_JSON_BYTES, read_text
from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.volumes.faults import problem

UNFINISHED = "json-unfinished"
"""Code of the problem of the newest file of a folder where it ends inside its JSON: it is being written."""
MAX_RECORDS = 10_000_000
"""Records in one file; CT-RATE has 2.7 million questions."""
MAX_DEPTH = 16
MAX_CHARACTERS = 1_000_000
"""In one text of a record."""
MAX_VALUES = 20_000
"""In one record, inner ones counted."""

_LITERALS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
_CUT_TOKEN = re.compile(r"\.|[eE][+-]?|\\?u?[0-9A-Fa-f]{0,4}")  # of a number; of an escape in a text
_MARKS_OF_A_RECORD = {
    "volumename", "case_id", "answer", "conversations", "cot_reasoning", "thinking", "abnormality", "context"
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TextRecord:
    """One JSON object that speaks of one scan.

    Attributes:
        file: where it stands.
        where: its place in the file: ``[3]``, ``line 3``, or its key.
        key: the key it is filed under, None in a list.
        fields: its contents, with lower-case keys.
    """

    file: Path
    where: str
    key: str | None
    fields: dict[str, Any]

    def problem(self, code: str, field: str, value: object, message: str, remedy: str) -> Problem:
        """A problem of this record."""
        return problem(code, self.file, f"{self.where} {field}", value, message, remedy)


class _Doubled(dict[str, Any]):
    """An object in which a key stands more than once."""

    doubled_key = ""


def read_records(paths: Iterable[Path]) -> tuple[list[TextRecord], list[Problem]]:
    """All records of all files, and what could not be read.

    A folder may grow while it is read. The newest file (by its time of change) that ends inside its JSON is taken as
    being written: its complete lines are used if it is JSON lines, none of it otherwise, and the problem is
    `UNFINISHED`. Any other file that ends early is damaged.
    """
    files = list(paths)
    times = {path: _time_of_change(path) for path in files}
    newest = max(times.values(), default=0)
    records: list[TextRecord] = []
    problems: list[Problem] = []
    for path in files:
        for item in _read_file(path, growing=times[path] == newest):
            if isinstance(item, TextRecord):
                records.append(item)
            else:
                problems.append(item)
    return records, problems


def _time_of_change(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0  # reading it will say why


def _read_file(path: Path, *, growing: bool) -> Iterator[TextRecord | Problem]:
    try:
        text = read_text(path, MAX_JSON_BYTES)
    except DataError as error:
        cut = growing and error.problems[0].code == CUT_TEXT
        yield _unfinished(path, error.problems[0].value) if cut else error.problems[0]
        return
    content = _parse(text)
    if not isinstance(content, Exception):
        yield from _flatten(content, path, "", None)
        return
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not text.lstrip().startswith("[") and any(isinstance(_parse(line), dict) for _, line in lines[:2]):
        for place, (number, line) in enumerate(lines):
            yield from _read_line(line, path, number, growing=growing and place == len(lines) - 1)
    else:
        yield _not_json(content, text, path, 1, growing=growing)


def _parse(text: str) -> Any:
    """The JSON value, or the error that stands in its way."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        return error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        found = _Doubled(found)
        found.doubled_key = counts.most_common(1)[0][0]
    return found


def _read_line(line: str, path: Path, number: int, *, growing: bool) -> Iterator[TextRecord | Problem]:
    content = _parse(line)
    if isinstance(content, Exception):
        yield _not_json(content, line, path, number, growing=growing)
    else:
        yield from _entry(content, path, f"line {number}", None)


def _not_json(error: Exception, text: str, path: Path, first_line: int, *, growing: bool) -> Problem:
    reason = getattr(error, "msg", None) or str(error) or type(error).__name__
    if isinstance(error, RecursionError):
        reason = f"nested deeper than {MAX_DEPTH}"
    line = first_line + getattr(error, "lineno", 1) - 1
    if growing and isinstance(error, json.JSONDecodeError) and _ends_early(error, text):
        return _unfinished(path, f"line {line}: {reason}")
    return problem("json", path, f"line {line}", reason, "This is not valid JSON.", "Mend the line or write it again.")


def _ends_early(error: json.JSONDecodeError, text: str) -> bool:
    """Whether nothing is wrong with a JSON text but that it ends."""
    if error.msg.startswith(("Unterminated string", "Extra data")):
        return error.msg.startswith("Unterminated string")
    rest = text[error.pos :].rstrip()
    return any(literal.startswith(rest) for literal in _LITERALS) or _CUT_TOKEN.fullmatch(rest) is not None


def _unfinished(path: Path, value: str) -> Problem:
    message = "The folder's newest file ends inside its JSON: it is being written, or its writer was stopped."
    return problem(UNFINISHED, path, "content", value, message, "Wait for it, write it again, or move it away.")


def _flatten(content: Any, path: Path, where: str, key: str | None) -> Iterator[TextRecord | Problem]:
    if isinstance(content, (list, dict)) and len(content) > MAX_RECORDS:
        message = f"A file may hold up to {MAX_RECORDS} records."
        yield problem("record-size", path, where or "content", len(content), message, "Split the file.")
    elif isinstance(content, list):
        for position, entry in enumerate(content):
            yield from _entry(entry, path, f"{where}[{position}]", key)
    elif isinstance(content, dict) and not _is_record(content):
        if isinstance(content, _Doubled):
            yield _doubled(path, where or "content", content.doubled_key)
        for name, entry in content.items():
            if isinstance(entry, list):
                yield from _flatten(entry, path, f"{where}{name!r}", name)
            else:
                yield from _entry(entry, path, f"{where}{name!r}", name)
    else:
        yield from _entry(content, path, where or "[0]", key)


def _entry(entry: Any, path: Path, where: str, key: str | None) -> Iterator[TextRecord | Problem]:
    if not isinstance(entry, dict):
        message = "A record must be an object with named fields."
        yield problem("record-type", path, where, entry, message, "Write it as an object, see docs/architecture.md.")
        return
    fields = {name.lower(): value for name, value in entry.items()}
    doubled = _first_doubled(entry)
    if doubled is None and len(fields) < len(entry):
        doubled = Counter(name.lower() for name in entry).most_common(1)[0][0]
    if doubled is not None:
        yield _doubled(path, where, doubled)
    elif not _within_limits(entry):
        message = (
            f"A record may hold {MAX_VALUES} values, {MAX_DEPTH} levels deep, in texts of up to {MAX_CHARACTERS} "
            "characters."
        )
        yield problem("record-size", path, where, "beyond", message, "Remove what does not belong there.")
    else:
        yield TextRecord(file=path, where=where, key=key, fields=fields)


def _doubled(path: Path, where: str, name: str) -> Problem:
    message = "The key stands there more than once."
    return problem("duplicate-key", path, where, name, message, "Keep one of the two values.")


def _first_doubled(entry: dict[str, Any]) -> str | None:
    """A key that stands more than once in an object or in one within it."""
    if isinstance(entry, _Doubled):
        return entry.doubled_key
    waiting: list[Any] = [value for value in entry.values() if isinstance(value, (dict, list))]
    while waiting:
        value = waiting.pop()
        if isinstance(value, _Doubled):
            return value.doubled_key
        inner = value.values() if isinstance(value, dict) else value
        waiting += [each for each in inner if isinstance(each, (dict, list))]
    return None


def _within_limits(entry: dict[str, Any]) -> bool:
    count, level, depth = 0, [entry], 0
    while level:
        depth += 1
        inner: list[Any] = []
        for value in level:
            children = list(value.values()) if isinstance(value, dict) else value
            count += len(children)
            if any(isinstance(child, str) and len(child) > MAX_CHARACTERS for child in children):
                return False
            inner += [child for child in children if isinstance(child, (dict, list))]
        if count > MAX_VALUES or depth > MAX_DEPTH:
            return False
        level = inner
    return True


def _is_record(content: dict[str, Any]) -> bool:
    return not _MARKS_OF_A_RECORD.isdisjoint(name.lower() for name in content)
