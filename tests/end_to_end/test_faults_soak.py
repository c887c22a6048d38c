"""A run that goes on and on: neither its memory nor its open files grow (R10)."""

from __future__ import annotations

import multiprocessing
import os
import statistics
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny import tiny_config
from vlm3d_ct.config import Config
from vlm3d_ct.data.dataset import CaseDataset
from vlm3d_ct.models import VisionLanguageModel
from vlm3d_ct.training.run import train
from vlm3d_ct.training.trainer import Stopping, Validate

SMALL = (
    "preprocess.size=[4, 16, 16]",
    "preprocess.slice_size=[4, 16, 16]",
    "model.embed_dim=16",
    "model.num_heads=2",
    "text.small_width=16",
    "text.max_len=32",
    "training.gradient_checkpointing=false",
    "training.batch_size=2",
    "training.log_interval=10",
    "data.num_workers=2",
)
STEPS_PER_EPOCH = 11  # of 21 volumes
IN_FLIGHT = 4
"""Batches that two workers prepare ahead."""


def measure() -> dict[str, int]:
    """Resident bytes of this process and its children (anonymous pages), and this process's open files."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    anonymous = 0
    for pid in (str(os.getpid()), *children):
        status = Path(f"/proc/{pid}/status").read_text()
        anonymous += 1024 * int(status.split("RssAnon:")[1].split()[0])
    return {"bytes": anonymous, "files": len(list(Path("/proc/self/fd").iterdir())), "processes": 1 + len(children)}


class Measured:
    """A validation that measures the process instead of the model; checkpoints are written as always."""

    def __init__(self) -> None:
        self.samples: list[dict[str, int]] = []

    def __call__(self, _config: Config, _dataset: CaseDataset, _device: torch.device) -> Validate:
        def validate(_model: VisionLanguageModel, _stopping: Stopping) -> Mapping[str, float]:
            self.samples.append(measure())
            return {"score": 0.0}

        return validate


def soak(folder: Path, steps: int, samples: int, data: tuple[str, ...]) -> list[dict[str, int]]:
    """Train for so many steps and measure at equal distances."""
    torch.set_num_threads(1)
    epochs = steps // STEPS_PER_EPOCH
    config = tiny_config(
        *SMALL, *data, f"training.num_epochs={epochs}", f"training.val_interval={max(1, epochs // samples)}"
    )
    measured = Measured()
    train(config, folder / "run", None, measured)
    return measured.samples


def soak_apart(folder: Path, steps: int, samples: int, data: tuple[str, ...]) -> list[dict[str, int]]:
    """`soak` in a process of its own, which no other test has filled."""
    volumes = tuple(entry for entry in data if not entry.startswith("data.omniabnorm_dir"))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(soak, folder, steps, samples, volumes).result()


def growth(samples: list[dict[str, int]]) -> float:
    """Of the median memory, from the second fifth of the run (the first is warm-up) to the last fifth."""
    fifth = len(samples) // 5
    early, late = samples[fifth : 2 * fifth], samples[-fifth:]
    middle = [statistics.median(sample["bytes"] for sample in part) for part in (early, late)]
    return middle[1] / middle[0] - 1


def check(samples: list[dict[str, int]], limit: float) -> None:
    assert {sample["processes"] for sample in samples} == {3}, samples  # the run and its two loader workers
    fifth = len(samples) // 5
    files = [sample["files"] for sample in samples]
    # a batch on its way from a worker is an open file for a moment, and so is the checkpoint that is being written; a
    # file left open by each of the validations between would make fifteen
    assert abs(statistics.median(files[-fifth:]) - statistics.median(files[fifth : 2 * fifth])) <= 1, files
    assert max(files[fifth:]) - min(files[fifth:]) <= IN_FLIGHT, files
    assert growth(samples) < limit, samples


def test_300_steps_leave_no_file_open(phantom_data: tuple[str, ...], tmp_path: Path):
    samples = soak_apart(tmp_path, 300, 25, phantom_data)
    check(samples, 0.03)  # the allocator's steps are coarse against so short a run


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_20000_steps_leak_nothing(phantom_data: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[Any]):
    samples = soak_apart(tmp_path, 20_000, 100, phantom_data)
    with capsys.disabled():
        files = sorted({sample["files"] for sample in samples})
        print(f"\n20,000 steps: memory grew by {growth(samples):.2%}, open files {files}, {samples[-1]}")
    check(samples, 0.01)
