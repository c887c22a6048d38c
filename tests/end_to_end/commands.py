"""Running the package's commands as a user does: from the repository's root, in processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = str(Path(sys.executable).with_name("vlm3d-ct"))
TRAIN = (sys.executable, "training/train.py")


def environment() -> dict[str, str]:
    """One thread a process: results to the bit depend on it, and tests run side by side."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def as_flags(overrides: Sequence[str]) -> list[str]:
    """``--set`` before each override."""
    return [part for override in overrides for part in ("--set", override)]


def run(*command: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=timeout, check=False
    )


def start(*command: str) -> subprocess.Popen[str]:
    """Start a command in a process group of its own."""
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_steps(process: subprocess.Popen[str], metrics: Path, steps: int) -> None:
    """Return when a training with ``log_interval`` 1 has recorded so many steps."""
    while not metrics.exists() or metrics.read_text().count('"kind": "train"') < steps:
        if process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode}: {process.communicate()}")
        time.sleep(0.01)


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
