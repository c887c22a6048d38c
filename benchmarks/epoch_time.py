"""Hours of the plan's whole training, from measured steps: pre-training and fine-tuning on 1, 2, 8 and 64 GPUs.

    python benchmarks/epoch_time.py benchmarks/results/step_time_nvidia_h200_202612.json --link_gb_s 200 \\
        --cases_per_s 90

Takes the steps that `step_time.py` measured. What it does not measure is asked for: how fast gradients travel between
GPUs, without which only one GPU is computed, and how many prepared cases a second the loader of one GPU gives
(`loading_speed.py`), without which the loader is taken to keep up. With N GPUs a step holds the plan's 32 pairs, or one
micro-batch of every GPU where that is more. A GPU takes a = max(1, ceil(32 / (N b))) micro-batches of b pairs:

    step = max(a t + (a > 1) a f + optimizer + 2 (N - 1) / N x gradient bytes / link, a b / cases per second)
    hours = epochs x sum over the kinds of cases of ceil(cases / pairs of a step) x step / 3600

t is forward and backward pass of a micro-batch, f another forward pass, which exact accumulation makes first. Gradients
are taken not to travel beside the backward pass, which is too pessimistic; validations and checkpoints are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

GPUS = (1, 2, 8, 64)
PLANNED_PAIRS = 32


@dataclass(frozen=True)
class Stage:
    """A stage of the plan: cases of each kind, of which a step holds one; slices are taken to cost what volumes do."""

    name: str
    cases: tuple[int, ...]
    epochs: int


STAGES = (Stage("pre-training", (21_907,), 50), Stage("fine-tuning", (21_907, 9_100), 20))


@dataclass(frozen=True)
class Measured:
    """Seconds of a micro-batch of ``batch`` pairs, and what must travel.

    Attributes:
        batch: pairs.
        forward: with the losses.
        backward: without the optimizer.
        optimizer: clipping and update.
        gradient_bytes: of all parameters.
    """

    batch: int
    forward: float
    backward: float
    optimizer: float
    gradient_bytes: float


def step_seconds(m: Measured, gpus: int, link_gb_s: float | None, cases_per_s: float | None) -> float:
    """One step, see the formula above.

    Raises:
        ValueError: several GPUs without a link.
    """
    if gpus > 1 and link_gb_s is None:
        raise ValueError(f"{gpus} GPUs: how fast gradients travel between them must be given.")
    micro_batches = max(1, ceil(PLANNED_PAIRS / (gpus * m.batch)))
    computed = micro_batches * (m.forward + m.backward + (m.forward if micro_batches > 1 else 0)) + m.optimizer
    travel = 0.0 if link_gb_s is None else 2 * (gpus - 1) / gpus * m.gradient_bytes / (1e9 * link_gb_s)
    loading = 0.0 if cases_per_s is None else micro_batches * m.batch / cases_per_s
    return max(computed + travel, loading)


def steps_of(stage: Stage, m: Measured, gpus: int) -> int:
    """Steps of all epochs."""
    pairs = max(1, ceil(PLANNED_PAIRS / (gpus * m.batch))) * gpus * m.batch
    return stage.epochs * sum(ceil(cases / pairs) for cases in stage.cases)


def table(measured: Mapping[str, Measured], link_gb_s: float | None, cases_per_s: float | None) -> str:
    """As Markdown."""
    lines = ["| measured as | GPUs | step | " + " | ".join(f"{s.name}, steps | hours" for s in STAGES) + " | all |"]
    lines.append("|---" * (4 + 2 * len(STAGES)) + "|")
    for name, m in measured.items():
        for gpus in GPUS if link_gb_s is not None else GPUS[:1]:
            seconds = step_seconds(m, gpus, link_gb_s, cases_per_s)
            steps = [steps_of(stage, m, gpus) for stage in STAGES]
            hours = [count * seconds / 3600 for count in steps]
            cells = " | ".join(f"{count:,} | {taken:.2f}" for count, taken in zip(steps, hours, strict=True))
            lines.append(f"| {name} | {gpus} | {seconds:.3f} s | {cells} | {sum(hours):.2f} |")
    return "\n".join(lines)


def read(path: Path, parameters: float) -> tuple[str, dict[str, Measured]]:
    """The hardware and the training steps of a file of `step_time.py`."""
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rows = [row for row in figures["rows"] if row["case"]["trains"] and row["seconds"]]
    found = {row["case"]["name"]: Measured(row["case"]["batch"], *row["seconds"], 4 * parameters) for row in rows}
    return f"{figures['hardware']}, {figures['precision']}", found


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("steps", type=Path, help="the JSON file of step_time.py")
    parser.add_argument("--link_gb_s", type=float, metavar="X", help="gigabytes a second between GPUs, all-reduced")
    parser.add_argument("--cases_per_s", type=float, metavar="X", help="of the loader of one GPU")
    parser.add_argument("--parameters", type=float, default=197e6, help="trained (default: with BioBERT, 197e6)")
    parsed = parser.parse_args(arguments)
    hardware, measured = read(parsed.steps, parsed.parameters)
    loader = "the loader keeps up" if parsed.cases_per_s is None else f"{parsed.cases_per_s:g} cases a second and GPU"
    link = "" if parsed.link_gb_s is None else f"; gradients travel at {parsed.link_gb_s:g} GB/s"
    print(f"Computed from steps measured on {hardware}; {loader}{link}.\n")
    print(table(measured, parsed.link_gb_s, parsed.cases_per_s))


if __name__ == "__main__":
    main(sys.argv[1:])
