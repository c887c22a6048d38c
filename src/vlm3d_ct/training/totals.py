"""What a run adds up over all its steps, interruptions included, and how long the rest will take."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from vlm3d_ct.log import format_seconds

STEPS_BEFORE_AN_ESTIMATE = 20
STEPS_OF_WARMING_UP = 3
"""The first steps of a process choose kernels and fill buffers; they are left out of the estimate."""


@dataclass
class Totals:
    """Sums over the steps of a run; a checkpoint carries them on (`dataclasses.asdict`).

    Attributes:
        step_seconds: wall time within steps.
        wait_seconds: the part of it spent waiting for data.
        skipped_steps: without an update, because their gradient was not finite.
    """

    step_seconds: float = 0.0
    wait_seconds: float = 0.0
    skipped_steps: int = 0

    def count(self, step_seconds: float, wait_seconds: float, taken: bool) -> None:
        """Add a step."""
        self.step_seconds += step_seconds
        self.wait_seconds += wait_seconds
        self.skipped_steps += not taken


class Pace:
    """An estimate of the rest of the run from this process's first steps."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def after_step(self, step_seconds: float, steps_left: int) -> str | None:
        """The estimate, once, after enough steps; by the median, without validations."""
        if len(self._seconds) == STEPS_BEFORE_AN_ESTIMATE:
            return None
        self._seconds.append(step_seconds)
        if len(self._seconds) < STEPS_BEFORE_AN_ESTIMATE or steps_left == 0:
            return None
        seconds = statistics.median(self._seconds[STEPS_OF_WARMING_UP:])
        return (
            f"after {STEPS_BEFORE_AN_ESTIMATE} steps: {seconds:.3g} s a step, about "
            f"{format_seconds(seconds * steps_left)} for the {steps_left} steps that are left, without validation"
        )
