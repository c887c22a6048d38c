"""Saving in the background: the training waits for a copy in memory, not for the disk."""

from __future__ import annotations

import shutil
import time
from threading import Thread
from typing import Any

from vlm3d_ct.distributed import leaving_together, rank
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.log import warn
from vlm3d_ct.training.keeper import Keeper
from vlm3d_ct.training.snapshot import Snapshot


class Saver:
    """Saves a run's checkpoints: rank 0 copies the state and writes the copy in a thread.

    One save is under way at a time; the next one, the end of the run and a stop wait for it. A save that failed ends
    the run, on all ranks, with the last good checkpoint in place. Besides the state itself rank 0 needs the memory of
    one copy of it.

    Args:
        keeper: of the run's folder; the thread is the only one that touches it while a save is under way.
        every_minutes: so long after a save `wants_attention` asks for another one; 0 for never.
    """

    def __init__(self, keeper: Keeper, every_minutes: float):
        self.keeper, self._every_s = keeper, 60 * every_minutes
        self._snapshot = Snapshot()
        self._thread: Thread | None = None
        self._failure: Exception | None = None
        self._last_save_s = time.monotonic()

    def wants_attention(self) -> bool:
        """Whether a save is due or has failed; ranks but 0 never know, so ask all (`any_rank`)."""
        due = self._every_s > 0 and time.monotonic() - self._last_save_s >= self._every_s
        return rank() == 0 and (due or self._failure is not None)

    def rehearse(self, content: dict[str, Any]) -> None:
        """Write one checkpoint of the size that they will have and remove it: a disk that is full is noticed now.

        Its copies stay as the memory of the saves to come. To be called by all ranks.

        Raises:
            ConfigError: it cannot be written; on all ranks.
        """
        with leaving_together():
            if rank() == 0:
                self.keeper.remove_strays()
                copy = self._snapshot.take(content)
                self._snapshot.wait()
                self._warn_of_little_space(self.keeper.rehearse(copy))

    def save(self, content: dict[str, Any], step: int, score: float | None) -> None:
        """Take a copy of the state as it is now and begin to write it. To be called by all ranks.

        Raises:
            ConfigError: the save before failed; on all ranks.
        """
        self.settle()
        self._last_save_s = time.monotonic()
        if rank() == 0:
            try:
                copy = self._snapshot.take(content)
            except Exception as error:  # too little memory, say: the next `settle` tells the other ranks
                self._failure = error
                return
            self._thread = Thread(target=self._write, args=(copy, step, score), name="checkpoint")
            self._thread.start()

    def settle(self, problem: str | None = None) -> None:
        """Return when what was saved is on the disk. To be called by all ranks.

        Args:
            problem: something else that keeps this rank from going on.

        Raises:
            ConfigError: a save failed because of the disk, or a rank has a problem; on all ranks.
            RuntimeError: a save failed otherwise; rank 0 raises what it was.
        """
        self.wait()
        with leaving_together():
            if self._failure is not None:
                raise self._failure
            if problem is not None:
                raise ConfigError(problem)

    def wait(self) -> None:
        """Return when no save is under way on this rank, however it ended."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, content: dict[str, Any], step: int, score: float | None) -> None:
        try:
            self._snapshot.wait()
            self.keeper.save(content, step, score)
        except Exception as error:
            self._failure = error

    def _warn_of_little_space(self, size: int) -> None:
        keeper = self.keeper
        more = max(0, keeper.keep_best + keeper.keep_last + 1 - len(keeper.kept))  # one more while it is written
        free = shutil.disk_usage(keeper.output_dir).free
        if free < more * size:
            warn(
                f"{keeper.output_dir}: {free} bytes are free, but up to {more} more checkpoints of {size} bytes will "
                "lie there at a time. Free space, or lower training.keep_best or training.keep_last."
            )
