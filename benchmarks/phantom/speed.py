"""Time and memory of a full-size case, small cases a second, and whether the bytes are always the same."""

from __future__ import annotations

import hashlib
import multiprocessing
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vlm3d_ct.phantom.acquisition import draw_acquisition
from vlm3d_ct.phantom.cohort import SMALLEST_LESION_MM, write_cohort, write_volume
from vlm3d_ct.phantom.scan import draw_subject
from vlm3d_ct.phantom.settings import Settings
from vlm3d_ct.seeding import random_stream

SECONDS_LIMIT, GIB_LIMIT, RATE_LIMIT = 20.0, 2.0, 10.0
WANTED_SLICES = 300


@dataclass(frozen=True)
class FullCase:
    """One case of 512 x 512 with its masks, written to disk by one process."""

    shape: tuple[int, int, int]
    seconds: float
    gib: float


def full_case(seed: int) -> FullCase:
    """Of the first case of a seed with about 300 slices or more, measured in a process of its own."""
    index = next(number for number in range(1, 200) if _slices(seed, number) >= WANTED_SLICES)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_write_full, seed, index).result()


def _slices(seed: int, index: int) -> int:
    subject = draw_subject(seed, index, smallest_mm=SMALLEST_LESION_MM["full"])
    return draw_acquisition(random_stream(seed, index, "acquisition"), subject.patient, "full").shape[0]


def _write_full(seed: int, index: int) -> FullCase:
    settings = Settings(size="full", seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("volumes", "masks", "lesions"):
            Path(folder, name).mkdir()
        start = time.perf_counter()
        write_volume(Path(folder), settings, index)
        seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    return FullCase((_slices(seed, index), 512, 512), seconds, memory)


def small_rate(seed: int, count: int, workers: int) -> float:
    """Small cases a second, written to disk."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_cohort(Path(folder) / "cohort", patients=count, seed=seed, workers=workers)
        return count / (time.perf_counter() - start)


def digest(seed: int, patients: int, slices: int, workers: int) -> str:
    """SHA-256 over names and bytes of all files of a small cohort."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "cohort"
        write_cohort(root, patients=patients, slices=slices, seed=seed, workers=workers)
        total = hashlib.sha256()
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            total.update(f"{path.relative_to(root).as_posix()}\n".encode())
            total.update(path.read_bytes())
        return total.hexdigest()
