"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math


def learning_rate(step: int, *, peak: float, floor: float, warmup_steps: float, total_steps: int) -> float:
    """Linear warm-up to ``peak``, then half a cosine down to ``floor`` at the last step.

    Args:
        step: about to be taken, counted from 0.
        peak: highest rate.
        floor: rate at the end.
        warmup_steps: length of the warm-up.
        total_steps: of the whole run.
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / max(1.0, total_steps - 1 - warmup_steps)
    return floor + (peak - floor) * (1 + math.cos(math.pi * min(1.0, done))) / 2
