"""What it costs to explain a step: gradient norms of the parts, health of the embeddings, and the record.

In one process, a step (forward, losses, backward, clipping, AdamW) over made-up pairs and what a logged step does on
top of it are timed in turn; the medians are compared. Prints a table.

    python benchmarks/trainer_overhead.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from made_up import made_up_pairs

from vlm3d_ct.config import Config, config_from_mapping, config_to_mapping, load_config
from vlm3d_ct.models import build
from vlm3d_ct.objectives import ContrastiveObjective
from vlm3d_ct.text.tokenize import train_small_tokenizer
from vlm3d_ct.training.account import Account
from vlm3d_ct.training.optimizer import build_optimizer
from vlm3d_ct.training.recorder import Recorder
from vlm3d_ct.training.step import Update, backward

DEMO = Path(__file__).parents[1] / "configs" / "demo_pretrain.yaml"
TINY = (
    "preprocess.size=[8,32,32]",
    "model.embed_dim=32",
    "model.depth=4",
    "model.patch_size=[4,8,8]",
    "model.sub_patch_size=null",
    "text.max_len=96",
)


@dataclass(frozen=True)
class Measurement:
    """Medians over so many steps, in seconds: of the bare step, and of what a logged step adds."""

    name: str
    pairs: int
    num_steps: int
    step_seconds: float
    log_seconds: float

    def overhead(self, log_interval: int) -> float:
        """Share of a step's time, with every so many steps logged."""
        return self.log_seconds / (log_interval * self.step_seconds)


def measure(name: str, config: Config, pairs: int, num_steps: int) -> Measurement:
    """Measure one configuration on this machine's CPU, in fp32 and with a small text encoder."""
    overrides = ("text.source=small", "training.precision=fp32")
    config = config_from_mapping(config_to_mapping(config), source=name, overrides=overrides)
    torch.manual_seed(0)
    words = [f"finding {letter} of lobe {other}." for letter in "abcdefgh" for other in "stuvwxyz"]
    model = build(config, train_small_tokenizer(words, 200)).model.train()
    objective = ContrastiveObjective(config.objective)
    optimizer = build_optimizer((model, objective), config.training)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    update = Update([*model.parameters(), *objective.parameters()], optimizer, scaler, config.training.gradient_clip)
    account = Account(config, model, objective, steps_per_epoch=100, pairs=pairs)
    batch, bare, logged = made_up_pairs(config, pairs), [], []
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(Path(folder), Path(folder) / "tensorboard", 0)
        for step in range(1, num_steps + 2):
            times = [time.perf_counter()]
            backward(model, objective, [batch])
            times.append(time.perf_counter())
            norms = account.gradient_norms(torch.ones(()))
            times.append(time.perf_counter())
            update(1e-4)
            times.append(time.perf_counter())
            recorder.record("train", step, step / 100, norms | account.observe(step))
            times.append(time.perf_counter())
            if step > 1:  # the first one fills buffers
                bare.append(times[1] - times[0] + times[3] - times[2])
                logged.append(times[2] - times[1] + times[4] - times[3])
        recorder.close()
    return Measurement(name, pairs, num_steps, statistics.median(bare), statistics.median(logged))


def main(arguments: Sequence[str]) -> None:
    """Measure a tiny model and the demo's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=30, metavar="N", help="steps of each (default: 30)")
    parsed = parser.parse_args(arguments)
    demo = load_config(DEMO)
    tiny = load_config(DEMO, TINY)
    print("| model | pairs | bare step | logging a step | share, every step | share, every 10th |")
    print("|---|---|---|---|---|---|")
    for name, config, pairs in (("tiny", tiny, 8), ("demo", demo, demo.training.batch_size)):
        m = measure(name, config, pairs, parsed.steps)
        print(
            f"| {m.name} | {m.pairs} | {1e3 * m.step_seconds:.1f} ms | {1e3 * m.log_seconds:.2f} ms "
            f"| {m.overhead(1):.2%} | {m.overhead(10):.2%} |"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
