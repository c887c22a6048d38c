"""How long a training waits for a checkpoint of the full-size model, against a plain `torch.save` of the same content.

Both encoders of the plan's size, the text encoder a BERT-base with random weights, and AdamW's two moments: about
2.4 GB. Measured in one process and one run: a plain `torch.save` to the same folder (not waiting for it), the
pause of a `Saver.save` after the rehearsal that every run begins with, and the time until that checkpoint is on disk
and verified. Needs about 8 GB of memory and 8 GB of disk. Writes
benchmarks/results/checkpoint_pause_<hardware>_<yyyymm>.md and prints it.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pages import RESULTS, hardware_name, result_path
from transformers import BertConfig

from vlm3d_ct.config import Config, config_from_mapping
from vlm3d_ct.distributed import pick_device
from vlm3d_ct.models import rebuild
from vlm3d_ct.training.keeper import Keeper
from vlm3d_ct.training.optimizer import build_optimizer, full_state_dict
from vlm3d_ct.training.saver import Saver

VOCABULARY = 28_996
"""BioBERT's."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One row of the table: seconds, the median of the repetitions.

    Attributes:
        size: bytes of a checkpoint.
        plain_s: `torch.save` of the content as it is, while nothing else can happen.
        pause_s: how long `Saver.save` keeps the training waiting.
        longest_pause_s: the longest of them.
        saved_s: until the checkpoint is on the disk, verified, under its name.
        copy_gb: what the copy adds to the resident set.
    """

    size: int
    plain_s: float
    pause_s: float
    longest_pause_s: float
    saved_s: float
    copy_gb: float


def content_of(config: Config, bert: BertConfig, device: torch.device) -> dict[str, Any]:
    """Weights and an optimiser state as after the first step."""
    model = rebuild(config, bert.to_json_string()).to(device)
    optimizer = full_state_dict(build_optimizer((model,), config.training))
    for moments in optimizer["state"].values():
        for tensor in moments.values():
            tensor.add_(1)  # so that the memory is really there
    return {"model": model.state_dict(), "optimizer": optimizer}


def measure(config: Config, bert: BertConfig, folder: Path, repetitions: int) -> Measurement:
    """Measure in this process."""
    device = pick_device()
    content, plain, pauses, saved = content_of(config, bert, device), [], [], []
    saver = Saver(Keeper(folder, keep_best=1, keep_last=1), every_minutes=0.0)
    before = _resident_gb()
    saver.rehearse(content)
    copy_gb = _resident_gb() - before
    for number in range(1, repetitions + 1):
        start = time.perf_counter()
        torch.save(content, folder / "plain.pth")
        plain.append(time.perf_counter() - start)
        (folder / "plain.pth").unlink()
        start = time.perf_counter()
        saver.save(content, number, None)
        pauses.append(time.perf_counter() - start)
        saver.settle()
        saved.append(time.perf_counter() - start)
    size = (folder / f"checkpoint_step_{repetitions:08d}.pth").stat().st_size
    return Measurement(
        size=size,
        plain_s=statistics.median(plain),
        pause_s=statistics.median(pauses),
        longest_pause_s=max(pauses),
        saved_s=statistics.median(saved),
        copy_gb=copy_gb,
    )


def _resident_gb() -> float:
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 1e9
    return float("nan")


def render(m: Measurement, repetitions: int, load: float, hardware: str, day: datetime) -> str:
    """The page of results."""
    return "\n".join(
        [
            f"# Pause of a training for a checkpoint: {hardware}, {day:%Y-%m-%d}",
            "",
            f"`python benchmarks/checkpoint_pause.py`, vlm3d-ct {version('vlm3d-ct')}, torch {torch.__version__}, "
            f"{torch.get_num_threads()} threads, load {load:.1f} at the start (above 0, other work was running).",
            f"Median of {repetitions}; both ways in turn, in one process and folder. The plain `torch.save` neither "
            "hashes nor waits for the disk; ours is on the disk and verified when it is said to be saved.",
            "",
            "| checkpoint | plain torch.save | pause | longest | pause : plain | until on the disk | copy in memory |",
            "|---|---|---|---|---|---|---|",
            f"| {m.size / 1e9:.2f} GB | {m.plain_s:.2f} s | {m.pause_s:.2f} s | {m.longest_pause_s:.2f} s | "
            f"{m.pause_s / m.plain_s:.2f} | {m.saved_s:.1f} s | {m.copy_gb:.2f} GB |",
            "",
        ]
    )


def main(arguments: Sequence[str]) -> None:
    """Measure, write and print the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--repetitions", type=int, default=3, metavar="N")
    parser.add_argument("--folder", metavar="DIR", help="where to write; else a temporary folder")
    parsed = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=parsed.folder) as folder:
        config = config_from_mapping({}, source="the defaults")
        measured = measure(config, BertConfig(vocab_size=VOCABULARY), Path(folder), parsed.repetitions)
    day, hardware = datetime.now(UTC), hardware_name()
    text = render(measured, parsed.repetitions, load, hardware, day)
    path = result_path(RESULTS, "checkpoint_pause", hardware, day)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"{text}\nwritten to {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
