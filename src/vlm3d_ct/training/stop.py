"""Signals as a request to stop, and the file that tells a job script that a run stopped and can go on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from vlm3d_ct.data.stopping import SIGNALS
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.log import warn
from vlm3d_ct.volumes.atomic import write_atomically

STOPPED_FILE = "stopped"
"""In the run's folder while it is stopped and can be continued. A launcher of several ranks turns their exit code 4
into its own 1, so that a job script cannot tell a stop from a failure by the code."""


class StopRequest:
    """Remembers the first signal that asked the run to stop."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    def __bool__(self) -> bool:
        return self.signal_name is not None

    @property
    def reason(self) -> str:
        """Who asked, for a message; on a rank that agreed with others without a signal of its own, those."""
        return self.signal_name or "a signal on another rank"

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self.signal_name = self.signal_name or signal.Signals(number).name


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """`SIGNALS` set the request while the context lasts; the old handlers come back after it."""
    request = StopRequest()
    before = {number: signal.signal(number, request._remember) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def mark_stopped(output_dir: Path, message: str) -> None:
    """Leave the file `STOPPED_FILE` with the message that the run ended with; a refusal is only warned of."""
    path, content = output_dir / STOPPED_FILE, f"{message}\n".encode()
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(path, [content])
    except OSError as error:  # the stop itself, and its exit code, matter more
        warn(
            f"{path}: its {len(content)} bytes cannot be written: {error.strerror}. Job scripts will not see the stop."
        )


def clear_stopped(output_dir: Path) -> None:
    """Remove the file: the run goes on.

    Raises:
        ConfigError: it cannot be removed.
    """
    path = output_dir / STOPPED_FILE
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be removed: {error.strerror}. Make its folder writable.") from None
