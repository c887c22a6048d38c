"""Files appear whole or not at all."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path

_HOST = "".join(c if c.isalnum() or c == "-" else "-" for c in socket.gethostname())
_SUFFIX = ".tmp"


def write_atomically(path: Path, chunks: Iterable[bytes], *, sync: bool = True) -> None:
    """Write ``chunks`` to a temporary name in the folder of ``path``, sync, and rename.

    Args:
        path: of the file.
        chunks: its content.
        sync: wait until the disk has it; without, a loss of power may leave the file empty.

    Raises:
        OSError: the disk is full or refuses; the temporary file is removed and an older ``path`` stays as it was.
    """
    temporary = path.with_name(f".{path.name}@{_HOST}@{os.getpid()}{_SUFFIX}")
    try:
        with temporary.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _writer_is_alive(temporary: Path) -> bool:
    """Whether the process that names itself in a temporary file's name may still be writing it."""
    parts = temporary.name.removesuffix(_SUFFIX).rsplit("@", 2)
    if len(parts) != 3 or not parts[2].isdigit():
        return True  # not one of ours: leave it alone
    if parts[1] != _HOST:
        return True  # another machine on a shared disk
    try:
        os.kill(int(parts[2]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return int(parts[2]) != os.getpid()


def remove_stray_files(folder: Path) -> int:
    """Remove what killed writers on this machine left anywhere under ``folder``; returns how many files that were."""
    strays = [path for path in folder.rglob(f".*{_SUFFIX}") if not _writer_is_alive(path)]
    for path in strays:
        path.unlink(missing_ok=True)
    return len(strays)
