"""How fast prepared cases of 64x512x512 reach the training loop, and how long a step of 0.2 s waits for them.

Two full-size phantoms are prepared and their entries copied under other names, so that no batch holds a file twice; all
of it fits the page cache, so the disk is not in it. Measured in one run, one after the other, with the same number of
worker processes: the training loader with labels and without; the floor, which only reads the bytes of the same
entries; a loader that `np.load`s float32 tensors of the same cases and stacks them as torch does by itself; and the
share of its time that a consumer waits who takes 0.2 s for every batch (it sleeps, as a CPU does while a GPU works).
Writes benchmarks/results/loading_speed_<hardware>_<yyyymm>.md and prints it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pages import RESULTS, processor_name, result_path
from torch.utils.data import DataLoader, Dataset

from vlm3d_ct.config import Config, config_from_mapping
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.dataset import CaseDataset, open_cache, training_loader
from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.data.order import MicroBatchOrder
from vlm3d_ct.data.prepare import prepare_cases
from vlm3d_ct.phantom.cohort import Size, write_cohort
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.text.tokenize import ReportTokenizer, train_small_tokenizer
from vlm3d_ct.volumes.preprocess import Preprocess

STEP_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One way of loading.

    Attributes:
        name: for the table.
        cases_per_s: after the warm-up.
        processor_ms: of this process and the workers, a case; hardly depends on what else the machine does.
        case_mb: on disk.
        wait_share: of a consumer's time beside a step; nan where it was not asked.
    """

    name: str
    cases_per_s: float
    processor_ms: float
    case_mb: float
    wait_share: float


class _Bytes(Dataset[int]):
    """The floor: the bytes of an entry are read and dropped."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths

    def __getitem__(self, number: int) -> int:
        return len(self.paths[number].read_bytes())


class _Arrays(Dataset[torch.Tensor]):
    """The naive way: one float32 array a case."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths

    def __getitem__(self, number: int) -> torch.Tensor:
        return torch.from_numpy(np.load(self.paths[number], allow_pickle=False))


def rate(batches: Generator[Any, None, None], batch_size: int, warm_up: int, count: int) -> tuple[float, float]:
    """Cases per second over ``count`` batches after ``warm_up`` others, and processor milliseconds of a case."""
    start, worked = 0.0, _processor_s()
    for number in range(warm_up + count):
        batch = next(batches)
        del batch
        if number == warm_up - 1:
            start = time.perf_counter()
    speed = count * batch_size / (time.perf_counter() - start)
    batches.close()  # ends the workers, whose time counts from then on
    return speed, 1000 * (_processor_s() - worked) / (batch_size * (warm_up + count))


def _processor_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def wait_share(batches: Iterator[Any], warm_up: int, count: int) -> float:
    """Share of its time that a consumer waits, over ``count`` steps after the first ``warm_up``."""
    waited = 0.0
    for number in range(warm_up + count):
        start = time.perf_counter()
        batch = next(batches)
        waited += (time.perf_counter() - start) if number >= warm_up else 0.0
        time.sleep(STEP_S)
        del batch
    return waited / (waited + count * STEP_S)


def prepared_copies(folder: Path, config: Config, num_cases: int, size: Size) -> list[Case]:
    """``num_cases`` prepared cases, copies of two phantoms."""
    write_cohort(folder / "phantoms", patients=2, size=size, workers=2)
    cases = read_cases(folder / "phantoms" / "ct_rate").cases
    cache = open_cache(config)
    prepare_cases(cases, Preprocess.from_config(config.preprocess), cache, workers=0)
    copies = []
    for number in range(num_cases):
        source = cases[number % len(cases)]
        copy = replace(source, case_id=f"copy_{number}")
        shutil.copyfile(cache.path(source.case_id, "volume"), cache.path(copy.case_id, "volume"))
        copies.append(copy)
    return copies


def without_labels(cases: Sequence[Case], config: Config) -> list[Case]:
    """The same cases again, their entries without labels."""
    cache, bare = open_cache(config), []
    for case in cases:
        other = replace(case, case_id=f"bare_{case.case_id}", mask_paths=())
        cache.write(other, replace(cache.read(case), labels=None))
        bare.append(other)
    return bare


def measure(folder: Path, config: Config, num_cases: int, count: int, size: Size) -> list[Measurement]:
    """All ways, one after the other."""
    labelled = prepared_copies(folder, config, num_cases, size)
    cache, batch, workers = open_cache(config), config.training.batch_size, config.data.num_workers
    warm_up = workers * config.data.prefetch_factor + config.training.accumulation_steps + 2
    rows = []
    for name, cases in (("with labels", labelled), ("without labels", without_labels(labelled, config))):
        speed = rate(_training(cases, config, warm_up + count), batch, warm_up, count)
        wait = wait_share(_training(cases, config, warm_up + count), warm_up, count)
        rows.append(_row(f"training loader, {name}", speed, wait, [cache.path(c.case_id, "volume") for c in cases]))
    paths = [cache.path(case.case_id, "volume") for case in labelled]
    rows.append(_row("plain read of the labelled entries", _plain(_Bytes(paths), config, warm_up, count), None, paths))
    arrays = []
    for number, case in enumerate(labelled):
        arrays.append(folder / f"{number}.npy")
        np.save(arrays[-1], cache.read(case).voxels_hu.astype(np.float32))
    rows.append(
        _row("np.load of float32, torch's own collate", _plain(_Arrays(arrays), config, warm_up, count), None, arrays)
    )
    return rows


def _row(name: str, speed: tuple[float, float], wait: float | None, paths: Sequence[Path]) -> Measurement:
    mb = sum(path.stat().st_size for path in paths) / len(paths) / 1e6
    waiting = float("nan") if wait is None else wait
    return Measurement(name=name, cases_per_s=speed[0], processor_ms=speed[1], case_mb=mb, wait_share=waiting)


def _training(cases: Sequence[Case], config: Config, num_batches: int) -> Generator[Any, None, None]:
    tokenizer = ReportTokenizer(train_small_tokenizer([case.reports[0].answer for case in cases], 600), 512)
    dataset = CaseDataset(cases, open_cache(config), tokenizer, load_region_table(), config.augment, 0)
    batch = config.training.batch_size
    order = MicroBatchOrder(
        {"volume": range(len(cases))},
        batch_size=batch,
        accumulation_steps=1,
        rank=0,
        world_size=1,
        seed=0,
        first_step=0,
        num_epochs=-(-num_batches * batch // len(cases)) + 1,
    )
    yield from training_loader(dataset, order, config)


def _plain(dataset: _Bytes | _Arrays, config: Config, warm_up: int, count: int) -> tuple[float, float]:
    batch, workers = config.training.batch_size, config.data.num_workers
    numbers = [n % len(dataset.paths) for n in range(batch * (warm_up + count))]
    loader: DataLoader[Any] = DataLoader(
        dataset, batch, sampler=numbers, num_workers=workers, prefetch_factor=config.data.prefetch_factor
    )
    return rate((item for item in loader), batch, warm_up, count)


def render(rows: Sequence[Measurement], config: Config, load: tuple[float, float], hardware: str, day: datetime) -> str:
    """The page of results."""
    first, size = rows[0], "x".join(map(str, config.preprocess.size))
    batch = config.training.batch_size
    lines = [
        f"# Loading: {hardware}, {day:%Y-%m-%d}",
        "",
        f"`python benchmarks/loading_speed.py`, vlm3d-ct {version('vlm3d-ct')}, torch {torch.__version__}, "
        f"{config.data.num_workers} workers, batches of {batch} cases of {size}; load before and after "
        f"{load[0]:.1f}, {load[1]:.1f} (above 0 before: other work was running, only the ratios tell something).",
        f"Waiting: beside a step of {STEP_S} s for a batch, that is {batch / STEP_S:.0f} cases/s asked for. The files "
        "are in the page cache. Processor time is that of this process and its workers, their start included; what is "
        "alone on the machine can load as many cases a second as 1000 / it for each core.",
        "",
        "| way | cases/s | against the first | processor ms a case | MB a case on disk | waiting |",
        "|---|---|---|---|---|---|",
    ]
    for m in rows:
        wait = "" if np.isnan(m.wait_share) else f"{m.wait_share:.1%}"
        ratio = m.cases_per_s / first.cases_per_s
        lines.append(
            f"| {m.name} | {m.cases_per_s:.1f} | {ratio:.2f} x | {m.processor_ms:.0f} | {m.case_mb:.1f} | {wait} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Measure on this machine; write and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--batches", type=int, default=30, metavar="N", help="measured, after the warm-up")
    parser.add_argument("--cases", type=int, default=32, metavar="N", help="different files (default: 32)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="for 6 GB of files (default: a temporary folder)")
    parsed = parser.parse_args(arguments)
    place: AbstractContextManager[Any] = (
        tempfile.TemporaryDirectory() if parsed.folder is None else nullcontext(parsed.folder)
    )
    with place as name:
        folder, load = Path(name), os.getloadavg()[0]
        settings = {"data": {"cache_dir": str(folder / "cache"), "num_workers": parsed.workers}}
        config = config_from_mapping(settings, source="the defaults")
        rows = measure(folder, config, parsed.cases, parsed.batches, "full")
    day, hardware = datetime.now(UTC), processor_name()
    text = render(rows, config, (load, os.getloadavg()[0]), hardware, day)
    path = result_path(RESULTS, "loading_speed", hardware, day)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"{text}\nwritten to {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
