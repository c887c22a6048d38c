"""Checkpoints: one file that any `torch.load(..., weights_only=True)` reads, and that knows its own SHA-256.

A checkpoint is a torch zip file whose zip comment is ``sha256=<64 hex digits>`` over all bytes before the comment, with
the comment's length (the last two bytes there) taken as 0. It appears under its name whole or not at all. It is written
and read in one stream: neither way holds a second copy in memory.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from vlm3d_ct.errors import CheckpointError, ConfigError

FORMAT_VERSION = 5
_MARK = b"sha256="
_COMMENT_LENGTH = len(_MARK) + 64
_NO_COMMENT = b"\0\0"
_BLOCK_BYTES = 1 << 22


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> int:
    """Write a checkpoint: temporary name, fsync, read back and verified, renamed, folder fsynced.

    Returns:
        Its size in bytes.

    Raises:
        ConfigError: the disk is full or refuses; what was there before is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    stream = _HashingStream(temporary)
    try:
        whole = {"format_version": FORMAT_VERSION, "versions": _versions(), **content}
        torch.save(whole, stream)  # type: ignore[arg-type]  # it asks for `write` and `flush` only
        stream.finish()
        with temporary.open("rb") as file:
            _verify(file, temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise ConfigError(
            f"{path}: the checkpoint of {stream.size} bytes cannot be written: {error.strerror}. "
            "Free space or choose another --output_dir; older checkpoints are untouched."
        ) from None
    except CheckpointError:
        raise ConfigError(
            f"{path}: the checkpoint of {stream.size} bytes reads back otherwise than it was written: the disk or the "
            "memory is at fault. Choose another --output_dir; older checkpoints are untouched."
        ) from None
    finally:
        stream.close()
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return stream.size


class _HashingStream:
    """The file that `torch.save` writes into, from its first byte to its last.

    It hashes what passes, and holds the last two bytes back: they are the length of the comment, which the hash itself
    becomes. A failure is remembered until `finish`: torch's writer would turn it into an error of its own, and the size
    of the whole is wanted in the message.
    """

    def __init__(self, path: Path):
        self.size = 0
        self._hash, self._held = hashlib.sha256(), b""
        self._descriptor: int | None = None
        self._error: OSError | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        except OSError as error:
            self._error = error

    def write(self, data: memoryview) -> int:
        """Take the next bytes."""
        whole = data if len(data) >= len(_NO_COMMENT) else self._held + bytes(data)
        if whole is data:
            self._put(self._held)
        cut = max(0, len(whole) - len(_NO_COMMENT))
        self._put(whole[:cut])
        self._held = bytes(whole[cut:])
        return len(data)

    def flush(self) -> None:
        """For torch; `finish` does it."""

    def finish(self) -> None:
        """Write the comment and wait for the disk.

        Raises:
            OSError: the first failure since the stream was opened.
        """
        assert self._held == _NO_COMMENT, "torch ends a zip file otherwise than this format expects"
        self._hash.update(_NO_COMMENT)
        self._store(_COMMENT_LENGTH.to_bytes(2, "little") + _MARK + self._hash.hexdigest().encode())
        if self._error is not None:
            raise self._error
        assert self._descriptor is not None
        os.fsync(self._descriptor)
        if hasattr(os, "posix_fadvise"):  # so that it is read back from the disk, and takes no memory from the cache
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _put(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._store(data)

    def _store(self, data: bytes | memoryview) -> None:
        self.size += len(data)
        left = memoryview(data)
        try:
            while left and self._error is None:
                assert self._descriptor is not None
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            self._error = error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, verified, onto the CPU.

    The file that was verified is the file that is read, even if another takes its name meanwhile.

    Raises:
        CheckpointError: missing, damaged, not ours, or of a newer format.
    """
    try:
        with path.open("rb") as file:
            _verify(file, path)
            content = _read(file, path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}. Give the path of a checkpoint.") from None
    found = content.get("format_version") if isinstance(content, dict) else None
    if found != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format_version = {found}: this release reads {FORMAT_VERSION}. Use the release that wrote it."
        )
    return dict(content)


def _read(file: BinaryIO, path: Path) -> Any:
    file.seek(0)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be read as a checkpoint: {str(error).splitlines()[0]}") from None


def _verify(file: BinaryIO, path: Path) -> None:
    """Compare the SHA-256 of a file with the one that it carries, in blocks.

    Raises:
        CheckpointError: they differ, or it carries none.
        OSError: it cannot be read.
    """
    body_length = os.fstat(file.fileno()).st_size - _COMMENT_LENGTH
    file.seek(max(0, body_length))
    comment = file.read()
    if body_length < len(_NO_COMMENT) or not comment.startswith(_MARK):
        raise CheckpointError(
            f"{path}: carries no checksum at its end: it is truncated, or not a checkpoint of this package. "
            "Take an older checkpoint of the run."
        )
    file.seek(0)
    digest, left = hashlib.sha256(), body_length - len(_NO_COMMENT)
    block = memoryview(bytearray(min(_BLOCK_BYTES, max(left, 1))))
    while left:
        count = file.readinto(block[: min(left, len(block))])  # type: ignore[attr-defined]
        if not count:
            break  # it became shorter: the hash will differ
        digest.update(block[:count])
        left -= count
    digest.update(_NO_COMMENT)
    length_intact = file.read(len(_NO_COMMENT)) == _COMMENT_LENGTH.to_bytes(2, "little")
    if not length_intact or digest.hexdigest().encode() != comment[len(_MARK) :]:
        raise CheckpointError(
            f"{path}: its SHA-256 differs from the stored one: the file is damaged. Take an older one."
        )


def point_to(link: Path, target: Path) -> None:
    """Make ``link`` a relative symbolic link to ``target``, a file of the same folder, atomically.

    Raises:
        OSError: the disk refuses.
    """
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        temporary.symlink_to(target.name)
        temporary.replace(link)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(link.parent)


def _sync_folder(folder: Path) -> None:
    """Wait until the disk has the folder's list of names.

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _versions() -> dict[str, str]:
    return {
        "vlm3d_ct": version("vlm3d-ct"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": version("transformers"),
        "numpy": np.__version__,
    }
