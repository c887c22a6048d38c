"""Text files of unknown origin: size limited before reading, encoding recognised, no NUL."""

from __future__ import annotations

import codecs
import stat
from pathlib import Path

from vlm3d_ct.volumes.faults import fault

MAX_JSON_BYTES = 2 << 30
"""Largest JSON file that is read: 800 bytes for each of CT-RATE's 2.7 million questions. Takes up to 20 times that."""
MAX_TABLE_BYTES = 256 << 20
"""Largest CSV file that is read; CT-RATE's 47,149 reports take less than half of it."""
CUT_TEXT = "text-cut"
"""Code of the problem of a file that ends inside a character: it may still be growing."""

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, None),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, None),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_SAVE = "Save it as UTF-8."


def read_text(path: Path, max_bytes: int) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark; without its mark.

    Raises:
        DataError: it is no regular file, cannot be read, is larger than ``max_bytes``, has another encoding (the byte
            is named), ends inside a character (`CUT_TEXT`), or holds a NUL.
    """
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise fault("unreadable-file", path, "file", "no regular file", "This is no file.", "Put a file there.")
        with path.open("rb") as file:
            content = file.read(state.st_size + 1) if state.st_size <= max_bytes else b""
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise fault(
            "unreadable-file", path, "file", reason, "The file cannot be read.", "Check its permissions."
        ) from None
    if max(state.st_size, len(content)) > max_bytes:
        message = f"Text files of up to {max_bytes >> 20} MiB are read."
        raise fault("file-size", path, "size", f"{state.st_size} bytes", message, "Split it, or check what it is.")
    text = _decode(content, path)
    position = text.find("\x00")
    if position >= 0:
        message = "The text holds a NUL character."
        raise fault("encoding", path, "content", f"character {position}", message, _SAVE)
    return text


def _decode(content: bytes, path: Path) -> str:
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    if encoding is None:
        raise fault("encoding", path, "encoding", "byte 0: UTF-32", "Only UTF-8 and UTF-16 are read.", _SAVE)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        value = f"byte {error.start}: 0x{content[error.start]:02x}"
        if error.reason in ("unexpected end of data", "truncated data"):
            message = "The file ends inside a character."
            raise fault(CUT_TEXT, path, "encoding", value, message, "Write it again, to its end.") from None
        message = f"The file is not {encoding.removesuffix('-sig').upper()}."
        raise fault("encoding", path, "encoding", value, message, _SAVE) from None


def read_lines(path: Path, max_bytes: int = 16 << 20) -> list[str]:
    """The lines of a list that say something, without white space around them.

    Raises:
        DataError: see `read_text`.
    """
    return [line.strip() for line in read_text(path, max_bytes).split("\n") if line.strip()]
