"""The end of a run in a few lines, and as ``summary.json``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from vlm3d_ct.config import Config
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.log import format_seconds, say
from vlm3d_ct.training.keeper import BEST, Kept
from vlm3d_ct.training.system import peak_memory_bytes
from vlm3d_ct.training.totals import Totals
from vlm3d_ct.volumes.atomic import write_atomically

SUMMARY_FILE = "summary.json"


@dataclass(frozen=True)
class Summary:
    """What became of a run.

    Attributes:
        stage: its name.
        seed: of all its randomness.
        steps: taken and skipped.
        epochs: as configured.
        pairs_per_step: over all ranks.
        step_seconds: wall time within steps, over interruptions; without validation and saving.
        samples_per_second: pairs over that time.
        data_wait_share: of that time.
        skipped_steps: without an update.
        best_score: of the validations whose checkpoints are kept; None where none was scored.
        best_checkpoint: its file.
        peak_memory_bytes: of rank 0 since it was started last: of the GPU, or of the process without one.
        next_command: what to run next.
    """

    stage: str
    seed: int
    steps: int
    epochs: int
    pairs_per_step: int
    step_seconds: float
    samples_per_second: float
    data_wait_share: float
    skipped_steps: int
    best_score: float | None
    best_checkpoint: str | None
    peak_memory_bytes: int
    next_command: str


def summarise(
    config: Config,
    totals: Totals,
    kept: Sequence[Kept],
    *,
    steps: int,
    pairs: int,
    output_dir: Path,
    device: torch.device,
) -> Summary:
    """The summary of a finished run.

    Args:
        config: of the stage.
        totals: over all its steps.
        kept: its checkpoints.
        steps: of the whole run.
        pairs: of one step.
        output_dir: of the run.
        device: of this rank.
    """
    scored = [(entry.score, -entry.step, entry.file) for entry in kept if entry.score is not None]
    best = max(scored, default=None)
    seconds = max(totals.step_seconds, 1e-9)
    return Summary(
        stage=config.stage,
        seed=config.seed,
        steps=steps,
        epochs=config.training.num_epochs,
        pairs_per_step=pairs,
        step_seconds=totals.step_seconds,
        samples_per_second=steps * pairs / seconds,
        data_wait_share=totals.wait_seconds / seconds,
        skipped_steps=totals.skipped_steps,
        best_score=None if best is None else best[0],
        best_checkpoint=None if best is None else best[2],
        peak_memory_bytes=peak_memory_bytes(device),
        next_command=_evaluate(config, output_dir),
    )


def _evaluate(config: Config, output_dir: Path) -> str:
    flags = {
        "checkpoint": output_dir / BEST,
        "data_dir": config.data.ctrate_dir,
        "output_dir": output_dir / "retrieval",
    }
    return "vlm3d-ct evaluate retrieval " + " ".join(f"--{name} {shlex.quote(str(v))}" for name, v in flags.items())


def write_summary(summary: Summary, output_dir: Path) -> None:
    """Write ``summary.json`` and say it in words.

    Raises:
        ConfigError: the file cannot be written; the summary has been said.
    """
    _say(summary, output_dir)
    path = output_dir / SUMMARY_FILE
    try:
        write_atomically(path, [json.dumps(asdict(summary), indent=2).encode() + b"\n"])
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written: {error.strerror}. The run is complete and its checkpoints are in place; only "
            "this file is missing. Free space before the next run."
        ) from None


def _say(summary: Summary, output_dir: Path) -> None:
    skipped = f", {summary.skipped_steps} of them skipped" if summary.skipped_steps else ""
    say(
        f"{summary.steps} steps of {summary.pairs_per_step} pairs{skipped}, in {format_seconds(summary.step_seconds)} "
        f"without validation: {summary.samples_per_second:.3g} pairs a second, {summary.data_wait_share:.0%} of it "
        f"waiting for data; at most {summary.peak_memory_bytes / 2**30:.2f} GiB of memory"
    )
    if summary.best_checkpoint is not None:
        say(f"best score {summary.best_score:.3f}: {output_dir / summary.best_checkpoint}")
    say(f"next: {summary.next_command}")
