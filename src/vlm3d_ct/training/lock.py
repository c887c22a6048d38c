"""One run, one folder: a second one started there by mistake would delete what the first is writing."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlm3d_ct.errors import ConfigError
from vlm3d_ct.log import warn

LOCK_FILE = "run.lock"
"""In the output folder; it stays there and says which process had the folder last."""


@contextmanager
def only_run(output_dir: Path) -> Iterator[None]:
    """Hold the folder for this process, until the block or the process ends, however it ends.

    The lock is one of POSIX: shared file systems know it across machines, and the loader's workers do not inherit it,
    which could outlive a killed run by a moment.

    Raises:
        ConfigError: another living process holds it, or the folder cannot be written to.
    """
    path = output_dir / LOCK_FILE
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}. Make the folder writable.") from None
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX leaves open which of the two
            file.seek(0)
            raise ConfigError(
                f"--output_dir {output_dir}: another run writes there ({file.read(200).strip() or 'unknown'}). Wait "
                "for its end, end it (a launcher that was killed leaves its processes behind), or give another folder."
            ) from None
        except OSError as error:
            warn(f"{path}: this disk knows no locks ({error.strerror}): see to it that no second run writes there")
        file.truncate(0)
        file.write(f"host {socket.gethostname()}, process {os.getpid()}\n")
        file.flush()
        yield
