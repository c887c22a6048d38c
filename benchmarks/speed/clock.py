"""Clocks and memory of a device."""

from __future__ import annotations

import itertools
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch

MATRIX = {"cpu": 2048, "cuda": 8192}
"""Side of the square matrices whose product gives the peak."""


def lap(device: torch.device, parts: Sequence[Callable[[], None]]) -> list[float]:
    """Seconds that each of some pieces of work takes, one after the other; by the device's own clock."""
    if device.type == "cuda":
        events = [torch.cuda.Event(enable_timing=True) for _ in range(len(parts) + 1)]
        for event, work in zip(events, (*parts, lambda: None), strict=True):
            event.record()
            work()
        torch.cuda.synchronize(device)
        return [one.elapsed_time(other) / 1e3 for one, other in itertools.pairwise(events)]
    times = [time.perf_counter()]
    for work in parts:
        work()
        times.append(time.perf_counter())
    return [end - start for start, end in itertools.pairwise(times)]


def median_laps(laps: Sequence[Sequence[float]]) -> list[float]:
    """Of each piece of work."""
    return [statistics.median(seconds) for seconds in zip(*laps, strict=True)]


def peak_gib(device: torch.device) -> float:
    """Most memory so far: what torch allocated on a GPU, on a CPU the whole process with everything it holds."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def matrix_peak(device: torch.device, dtype: torch.dtype, side: int | None = None) -> float:
    """Operations a second of a large product of matrices, the best of ten."""
    n = side or MATRIX[device.type]
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))

    def product() -> None:
        a @ b

    seconds = [lap(device, [product])[0] for _ in range(11)]
    return 2 * n**3 / min(seconds[1:])
