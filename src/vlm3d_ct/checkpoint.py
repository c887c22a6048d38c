"""Checkpoints: one file that any `torch.load(..., weights_only=True)` reads, and that knows its own SHA-256.

A checkpoint is a torch zip file whose zip comment is ``sha256=<64 hex digits>`` over all bytes before the comment, with
the comment's length (the last two bytes there) taken as 0. It appears under its name whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlm3d_ct.errors import CheckpointError, ConfigError

FORMAT_VERSION = 1
_MARK = b"sha256="
_COMMENT_LENGTH = len(_MARK) + 64


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint: temporary name, fsync, read back and verified, renamed, folder fsynced.

    Raises:
        ConfigError: the disk is full or refuses; what was there before is untouched.
    """
    buffer = io.BytesIO()
    torch.save({"format_version": FORMAT_VERSION, "versions": _versions(), **content}, buffer)
    body = buffer.getbuffer()
    comment = _MARK + hashlib.sha256(body).hexdigest().encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(body[:-2])
            file.write(len(comment).to_bytes(2, "little"))
            file.write(comment)
            file.flush()
            os.fsync(file.fileno())
        _verified_bytes(temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(
            f"{path}: the checkpoint of {len(body)} bytes cannot be written: {error.strerror}. "
            "Free space or choose another --output_dir; older checkpoints are untouched."
        ) from None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, verified, onto the CPU.

    Raises:
        CheckpointError: missing, damaged, not ours, or of a newer format.
    """
    body = _verified_bytes(path)
    try:
        content = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be read as a checkpoint: {str(error).splitlines()[0]}") from None
    found = content.get("format_version") if isinstance(content, dict) else None
    if found != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format_version = {found}: this release reads {FORMAT_VERSION}. Use the release that wrote it."
        )
    return dict(content)


def _verified_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}. Give the path of a checkpoint.") from None
    comment, body = content[-_COMMENT_LENGTH:], bytearray(content[:-_COMMENT_LENGTH])
    if not comment.startswith(_MARK):
        raise CheckpointError(
            f"{path}: carries no checksum at its end: it is truncated, or not a checkpoint of this package. "
            "Take an older checkpoint of the run."
        )
    length_intact = body[-2:] == _COMMENT_LENGTH.to_bytes(2, "little")
    body[-2:] = b"\0\0"
    if not length_intact or hashlib.sha256(body).hexdigest().encode() != comment[len(_MARK) :]:
        raise CheckpointError(
            f"{path}: its SHA-256 differs from the stored one: the file is damaged. Take an older one."
        )
    return bytes(body)


def point_to(link: Path, target: Path) -> None:
    """Make ``link`` a relative symbolic link to ``target``, a file of the same folder, atomically."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target.name)
    temporary.replace(link)
    _sync_folder(link.parent)


def _sync_folder(folder: Path) -> None:
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
        "numpy": np.__version__,
    }
