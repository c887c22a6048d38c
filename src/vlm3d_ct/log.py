"""What a person sees: lines, and progress bars with the time left on a terminal.

Off a terminal a progress prints a plain line now and then. In a distributed run only rank 0 speaks.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
SECONDS_BETWEEN_PLAIN_LINES = 10.0


def is_main_rank() -> bool:
    """Whether this process speaks for the run (rank 0, or not distributed at all)."""
    return os.environ.get("RANK", "0") == "0"


def say(message: str = "") -> None:
    """Print a line for the user, once per run."""
    if is_main_rank():
        print(message, flush=True)


def warn(message: str) -> None:
    """Print a warning to stderr, once per run."""
    if is_main_rank():
        print(f"warning: {message}", file=sys.stderr, flush=True)


def format_seconds(seconds: float) -> str:
    """Seconds as people say them: ``42 s``, ``3 min 05 s``, ``7 h 42 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_bytes(count: int) -> str:
    """Bytes as disks are labelled: ``812 MB``, ``2.4 GB``."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


class Ticker:
    """Counts work done and shows it; made by `progress`."""

    def __init__(self, title: str, total: int, initial: int, bar: Progress | None):
        self.title, self.total, self.done = title, total, initial
        self._bar = bar
        self._task = bar.add_task(title, total=total, completed=initial) if bar else None
        self._last_line = time.monotonic()
        self._first: tuple[float, int] | None = None

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count ``count`` more units as done; ``note`` stands behind the title."""
        self.done += count
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=count, description=f"{self.title} {note}".strip())
            return
        now = time.monotonic()
        if self._first is None:
            self._first = now, self.done
        if now - self._last_line >= SECONDS_BETWEEN_PLAIN_LINES and is_main_rank():
            self._last_line = now
            say(f"{self.title} {self.done}/{self.total} {note}{self._left(now)}".rstrip())

    def _left(self, now: float) -> str:
        """From the pace since the first advance: what comes before it, such as starting processes, comes once."""
        start, done = self._first or (now, self.done)
        if self.done == done:
            return ""
        return f" ({format_seconds((now - start) / (self.done - done) * (self.total - self.done))} left)"


@contextmanager
def progress(title: str, total: int, initial: int = 0) -> Iterator[Ticker]:
    """A progress display over ``total`` units, of which ``initial`` are already done."""
    if is_main_rank() and sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
        ) as bar:
            yield Ticker(title, total, initial, bar)
    else:
        yield Ticker(title, total, initial, None)


def track(items: Iterable[T], title: str, total: int) -> Iterator[T]:
    """Iterate with a progress display."""
    with progress(title, total) as ticker:
        for item in items:
            yield item
            ticker.advance()
