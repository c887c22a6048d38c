"""What the machine does while it trains."""

from __future__ import annotations

import resource
import sys

import torch


def system_metrics(device: torch.device, step_seconds: float, wait_seconds: float, pairs: int) -> dict[str, float]:
    """Throughput over all ranks, and what the GPU reports where there is one.

    Args:
        device: of this rank.
        step_seconds: wall time of the whole step.
        wait_seconds: the part of it spent waiting for data.
        pairs: of the whole step.
    """
    metrics = {
        "samples_per_second": pairs / step_seconds,
        "step_seconds": step_seconds,
        "data_wait_seconds": wait_seconds,
        "data_wait_share": wait_seconds / step_seconds,
    }
    if device.type == "cuda":
        metrics["gpu_utilisation_percent"] = float(torch.cuda.utilization(device))
        metrics["gpu_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return metrics


def peak_memory_bytes(device: torch.device) -> int:
    """The most that torch allocated on the GPU, or without one the largest resident set of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
