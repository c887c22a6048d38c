"""Time and memory to index, verify and prepare a cohort, and how they grow with it.

Cohorts of small phantoms (32x96x96), by default of 200 and of 2,000; writing them is not measured. Every stage runs in
a process of its own, so that its peak memory is its own; that of the largest of its worker processes stands beside it.
"Prepared already" is a second preparation, which only looks whether every entry is current. Writes
benchmarks/results/data_scale_<hardware>_<yyyymm>.md and prints it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pages import RESULTS, processor_name, result_path

from vlm3d_ct.audit.verify import verify_directory
from vlm3d_ct.data.cache import Cache
from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.data.prepare import prepare_cases
from vlm3d_ct.phantom.cohort import write_cohort
from vlm3d_ct.volumes.preprocess import Preprocess

PREPROCESS = Preprocess(size=(32, 96, 96), slice_size=(4, 96, 96))


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One stage on one cohort: wall seconds, peak of its process and of its largest worker (0: it had none)."""

    stage: str
    cases: int
    seconds: float
    own_mb: float
    worker_mb: float


def index(folder: Path, _workers: int) -> int:
    """Which files are a case."""
    return len(read_cases(folder / "ct_rate").cases)


def verify(folder: Path, workers: int) -> int:
    """Everything read, as `vlm3d-ct verify` does."""
    report = verify_directory(folder / "ct_rate", workers=workers)
    if report.problems:
        raise SystemExit(f"{report.problems[0]}: phantoms have no faults")
    return len(read_cases(folder / "ct_rate").cases)


def prepare(folder: Path, workers: int) -> int:
    """Everything into the cache, or seen to be there."""
    cases = read_cases(folder / "ct_rate").cases
    cache = Cache(folder / "cache", PREPROCESS.fingerprint)
    return len(cases) - len(prepare_cases(cases, PREPROCESS, cache, workers=workers).left_out)


STAGES: tuple[tuple[str, Callable[[Path, int], int]], ...] = (
    ("index", index),
    ("verify", verify),
    ("prepare", prepare),
    ("prepared already", prepare),
)


def measure_stage(stage: str, work: Callable[[Path, int], int], folder: Path, workers: int) -> Measurement:
    """Measure in this process."""
    start = time.perf_counter()
    cases = work(folder, workers)
    return Measurement(
        stage=stage,
        cases=cases,
        seconds=time.perf_counter() - start,
        own_mb=_peak_mb(resource.RUSAGE_SELF),
        worker_mb=_peak_mb(resource.RUSAGE_CHILDREN),
    )


def measure(folder: Path, cases: int, workers: int) -> list[Measurement]:
    """Write a cohort and measure all stages on it, each in a fresh process."""
    write_cohort(folder, patients=cases, size="small", seed=1, workers=workers)
    rows = []
    for stage, work in STAGES:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            rows.append(pool.submit(measure_stage, stage, work, folder, workers).result())
    return rows


def _peak_mb(whose: int) -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return resource.getrusage(whose).ru_maxrss * unit / 1e6


def render(rows: Sequence[Measurement], workers: int, load: tuple[float, float], hardware: str, day: datetime) -> str:
    """The page of results; growth is against the smallest cohort, 1.0 being in proportion to the cases."""
    smallest = {row.stage: row for row in sorted(rows, key=lambda row: -row.cases)}
    lines = [
        f"# Scale of the data pipeline: {hardware}, {day:%Y-%m-%d}",
        "",
        f"`python benchmarks/data_scale.py`, vlm3d-ct {version('vlm3d-ct')}, small phantoms, {workers} workers; load "
        f"before and after {load[0]:.1f}, {load[1]:.1f} (above 0 before: other work was running).",
        "Growth is the time of a case against that in the smallest cohort: at most 1 is linear or better. The stages "
        "include the indexing that they begin with, and the start of their workers.",
        "",
        "| stage | cases | seconds | ms a case | growth | peak memory | of a worker |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        first = smallest[row.stage]
        growth = (row.seconds / row.cases) / (first.seconds / first.cases)
        lines.append(
            f"| {row.stage} | {row.cases:,} | {row.seconds:.2f} | {1000 * row.seconds / row.cases:.2f} | {growth:.2f} "
            f"| {row.own_mb:.0f} MB | {f'{row.worker_mb:.0f} MB' if row.worker_mb else ''} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Measure on this machine; write and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--cases", type=int, nargs="+", default=[200, 2000], metavar="N")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parsed = parser.parse_args(arguments)
    rows, load = [], os.getloadavg()[0]
    for cases in parsed.cases:
        with tempfile.TemporaryDirectory() as name:
            rows += measure(Path(name), cases, parsed.workers)
    day, hardware = datetime.now(UTC), processor_name()
    text = render(rows, parsed.workers, (load, os.getloadavg()[0]), hardware, day)
    path = result_path(RESULTS, "data_scale", hardware, day)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"{text}\nwritten to {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
