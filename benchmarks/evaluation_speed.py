"""Time and memory of a retrieval evaluation of 25,000 cases with 1,000 patient-level bootstraps.

Random unit embeddings of width 768, one to four volumes of a patient. Measured are the ranks in both directions and the
intervals of R@K, MRR, median and mean rank; the making of the embeddings is not in it. Runs in a process of its own, so
that the peak memory is its own, and says what other work the machine had. Writes
benchmarks/results/evaluation_speed_<hardware>_<yyyymm>.md and prints it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
from pages import RESULTS, processor_name, result_path

from vlm3d_ct.evaluation.metrics.bootstrap import Scale, interval, resample
from vlm3d_ct.evaluation.metrics.ranking import OF_RANKS, rank_pool, summarise, summarise_weighted
from vlm3d_ct.seeding import random_stream

SHARES_OF_PATIENTS = (0.5, 0.25, 0.15, 0.1)
"""With one, two, three and four volumes."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one run took.

    Attributes:
        cases: scans, and as many reports.
        patients: of them.
        right: what counted as right.
        ranks_s: wall seconds for the ranks in both directions.
        bootstrap_s: wall seconds for all samples of both directions and the intervals.
        peak_gb: largest resident set of the process, Python, libraries and embeddings included.
        load: processes that were running or waiting per minute, before and after.
    """

    cases: int
    patients: int
    right: str
    ranks_s: float
    bootstrap_s: float
    peak_gb: float
    load: tuple[float, float]


def measure(cases: int, width: int, num_samples: int, right: str) -> Measurement:
    """Measure in this process."""
    load = os.getloadavg()[0]
    patient_of = _patients(cases)
    volume, text = (_unit(cases, width, side) for side in ("volume", "text"))
    patient_ids = [f"p{number}" for number in patient_of]
    start = time.perf_counter()
    ranks = rank_pool(volume, text, np.arange(cases) if right == "own" else patient_of)
    ranked = time.perf_counter()
    samples: dict[str, list[np.ndarray]] = {}
    both = {"volume to text": ranks.volume_to_text, "text to volume": ranks.text_to_volume}
    for weights in resample(patient_ids, num_samples, 0):
        for direction, found in both.items():
            for name, values in summarise_weighted(found, weights).items():
                samples.setdefault(f"{direction} {name}", []).append(values)
    for direction, found in both.items():
        for name, value in summarise(found).items():
            scale: Scale = "rank" if name in OF_RANKS else "share"
            interval(value, np.concatenate(samples[f"{direction} {name}"]), len(set(patient_ids)), scale)
    done = time.perf_counter()
    return Measurement(
        cases=cases,
        patients=len(np.unique(patient_of)),
        right=right,
        ranks_s=ranked - start,
        bootstrap_s=done - ranked,
        peak_gb=_peak_gb(),
        load=(load, os.getloadavg()[0]),
    )


def _patients(cases: int) -> np.ndarray:
    stream = random_stream("evaluation speed", "patients")
    volumes = stream.choice(len(SHARES_OF_PATIENTS), p=SHARES_OF_PATIENTS, size=cases) + 1
    return np.repeat(np.arange(cases), volumes)[:cases]


def _unit(cases: int, width: int, side: str) -> np.ndarray:
    vectors = random_stream("evaluation speed", side).standard_normal((cases, width), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _peak_gb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def render(measurements: Sequence[Measurement], width: int, num_samples: int, hardware: str, day: datetime) -> str:
    """The page of results."""
    lines = [
        f"# Retrieval evaluation: {hardware}, {day:%Y-%m-%d}",
        "",
        f"`python benchmarks/evaluation_speed.py`, vlm3d-ct {version('vlm3d-ct')}, numpy {np.__version__}, "
        f"Python {platform.python_version()}.",
        f"Every scan against every report, random embeddings of width {width}, both directions; {num_samples} samples "
        "of patients for the intervals of R@1, 5, 10, 50, 100, MRR, median and mean rank. Similarities are exact in "
        "float64, ties count against the model.",
        "Memory is the peak of the process, Python, libraries and embeddings included. Load is the average number of "
        "running processes in the last minute, before and after; above 0 before, other work was running.",
        "",
        "| cases | patients | right | ranks | bootstrap | together | memory | load |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(measurement) for measurement in measurements]
    return "\n".join(lines) + "\n"


def _row(m: Measurement) -> str:
    cells = [
        f"{m.cases:,}",
        f"{m.patients:,}",
        m.right,
        f"{m.ranks_s:.1f} s",
        f"{m.bootstrap_s:.1f} s",
        f"{m.ranks_s + m.bootstrap_s:.1f} s",
        f"{m.peak_gb:.2f} GB",
        f"{m.load[0]:.1f}, {m.load[1]:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str]) -> None:
    """Measure with the own item right and with all of the patient's right; write and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--cases", type=int, default=25_000, metavar="N")
    parser.add_argument("--width", type=int, default=768, metavar="N")
    parser.add_argument("--num_bootstraps", type=int, default=1000, metavar="N")
    parsed = parser.parse_args(arguments)
    measurements = []
    for right in ("own", "patient"):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            work = pool.submit(measure, parsed.cases, parsed.width, parsed.num_bootstraps, right)
            measurements.append(work.result())
    day, hardware = datetime.now(UTC), processor_name()
    text = render(measurements, parsed.width, parsed.num_bootstraps, hardware, day)
    path = result_path(RESULTS, "evaluation_speed", hardware, day)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"{text}\nwritten to {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
