"""A short way to raise one `Problem` about a file."""

from __future__ import annotations

from pathlib import Path

from vlm3d_ct.errors import DataError, Problem

LONGEST_VALUE = 120


def problem(code: str, file: Path, field: str, value: object, message: str, remedy: str) -> Problem:
    """A `Problem` whose field and value are made printable and shortened to what fits on a line."""
    text = value if isinstance(value, str) else repr(value)
    return Problem(
        code=code, file=_printable(str(file)), field=_line(field), value=_line(text), message=message, remedy=remedy
    )


def fault(code: str, file: Path, field: str, value: object, message: str, remedy: str) -> DataError:
    """A `DataError` with one such problem, to be raised."""
    return DataError(problem(code, file, field, value, message, remedy))


def _line(text: str) -> str:
    return _printable(text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "...")


def _printable(text: str) -> str:
    """Control characters and lone surrogates, which foreign files may hold, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
