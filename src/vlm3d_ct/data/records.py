"""Reading text files: JSON as a list, as a dict keyed by name, or line by line. Problems are collected, not raised."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm3d_ct.errors import Problem
from vlm3d_ct.volumes.faults import problem

_MARKS_OF_A_RECORD = {"volumename", "case_id", "answer", "conversations", "cot_reasoning"}


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


def read_records(paths: Iterable[Path]) -> tuple[list[TextRecord], list[Problem]]:
    """All records of all files, and what could not be read."""
    records: list[TextRecord] = []
    problems: list[Problem] = []
    for path in paths:
        for item in _read_file(path):
            if isinstance(item, TextRecord):
                records.append(item)
            else:
                problems.append(item)
    return records, problems


def _read_file(path: Path) -> Iterator[TextRecord | Problem]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        yield problem("json", path, "encoding", f"byte {error.start}", "The file is not UTF-8.", "Save it as UTF-8.")
        return
    except OSError as error:
        reason = error.strerror or type(error).__name__
        yield problem("unreadable-file", path, "file", reason, "The file cannot be read.", "Check its permissions.")
        return
    content = _parse(text)
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not isinstance(content, Exception):
        yield from _flatten(content, path, "", None)
    elif not text.lstrip().startswith("[") and any(isinstance(_parse(line), dict) for _, line in lines[:2]):
        for number, line in lines:
            yield from _read_line(line, path, number)
    else:
        yield _not_json(content, path, first_line=1)


def _parse(text: str) -> Any:
    """The JSON value, or the error that stands in its way."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return error


def _read_line(line: str, path: Path, number: int) -> Iterator[TextRecord | Problem]:
    content = _parse(line)
    if isinstance(content, Exception):
        yield _not_json(content, path, first_line=number)
    else:
        yield from _entry(content, path, f"line {number}", None)


def _not_json(error: Exception, path: Path, first_line: int) -> Problem:
    line = first_line + getattr(error, "lineno", 1) - 1
    reason = getattr(error, "msg", type(error).__name__)
    return problem("json", path, f"line {line}", reason, "This is not valid JSON.", "Mend the line or write it again.")


def _flatten(content: Any, path: Path, where: str, key: str | None) -> Iterator[TextRecord | Problem]:
    if isinstance(content, list):
        for position, entry in enumerate(content):
            yield from _entry(entry, path, f"{where}[{position}]", key)
    elif isinstance(content, dict) and not _is_record(content):
        for name, entry in content.items():
            if isinstance(entry, list):
                yield from _flatten(entry, path, f"{where}{name!r}", name)
            else:
                yield from _entry(entry, path, f"{where}{name!r}", name)
    else:
        yield from _entry(content, path, where or "[0]", key)


def _entry(entry: Any, path: Path, where: str, key: str | None) -> Iterator[TextRecord | Problem]:
    if isinstance(entry, dict):
        yield TextRecord(file=path, where=where, key=key, fields={name.lower(): value for name, value in entry.items()})
    else:
        message = "A record must be an object with named fields."
        yield problem("record-type", path, where, entry, message, "Write it as an object, see docs/architecture.md.")


def _is_record(content: dict[str, Any]) -> bool:
    return not _MARKS_OF_A_RECORD.isdisjoint(name.lower() for name in content)
