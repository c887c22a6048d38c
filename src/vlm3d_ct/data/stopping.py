"""Signals as a stop on the spot, for work of which every finished part stays."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vlm3d_ct.errors import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
"""SIGTERM: launchers and clusters; SIGINT: the keyboard; SIGHUP: a closed terminal; SIGUSR1: Slurm's ``--signal``."""


@contextmanager
def stopped_by_signals(work: str) -> Iterator[None]:
    """The first of `SIGNALS` raises `Stopped`, those after it are ignored while the context lasts.

    Outside the main thread, where Python handles no signals, nothing changes.

    Args:
        work: what was stopped, as a noun, for the message.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        name = signal.Signals(number).name
        raise Stopped(f"{work} was stopped by {name}; start the same command again to continue.")

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
