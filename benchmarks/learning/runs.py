"""One run: pre-training, fine-tuning and the evaluations, each a command; what is finished is not done again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learning.variants import Variant

ROOT = Path(__file__).parents[2]
PRETRAIN_SHARE = 0.8
"""Of a run's minutes; the rest is fine-tuning."""


@dataclass(frozen=True)
class Cohorts:
    """Phantoms of different seeds, which share no patient: training, test, and a hard test set."""

    root: Path
    patients: int
    slices: int
    test_patients: int

    def write(self) -> None:
        """Write those that are not there yet."""
        sizes = {"training": (self.patients, self.slices), "test": (self.test_patients, 0)}
        sizes["hard"] = (self.test_patients, 0)
        for seed, (name, (patients, slices)) in enumerate(sizes.items(), 1):
            done = self.root / f"{name}.written"
            if not done.exists():
                more = ["--hard"] if name == "hard" else []
                counts = ["--patients", str(patients), "--slices", str(slices), "--seed", str(seed), *more]
                command("phantom", str(self.root / name), *counts)
                done.touch()

    def volumes(self, name: str) -> Path:
        """The folder of volumes of one of the three."""
        return self.root / name / "ct_rate"

    @property
    def settings(self) -> list[str]:
        """Where training finds them."""
        return [f"data.ctrate_dir={self.volumes('training')}", f"data.cache_dir={self.root / 'cache'}"]


def command(*arguments: str) -> None:
    """Run ``vlm3d-ct`` as a user would.

    Raises:
        subprocess.CalledProcessError: it failed; its message was printed.
    """
    subprocess.run([str(Path(sys.executable).with_name("vlm3d-ct")), *arguments], cwd=ROOT, check=True)


def train(config: str, output_dir: Path, settings: Sequence[str], seed: int, epochs: int, *more: str) -> float:
    """Train a stage, or go on with it, or find it finished; returns the seconds that it trained."""
    flags = [part for setting in settings for part in ("--set", setting)]
    flags += ["--num_epochs", str(epochs), "--seed", str(seed), "--set", f"training.val_interval={epochs}"]
    if not (output_dir / "summary.json").exists():
        command("train", "--config", config, "--output_dir", str(output_dir), *flags, *more)
    return float(read_json(output_dir / "summary.json")["step_seconds"])


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def seconds_an_epoch(variant: Variant, folder: Path, cohorts: Cohorts) -> tuple[float, float]:
    """Of both stages, from one epoch of each: measured once, so that a restart plans the same epochs."""
    found = []
    for stage in ("pretrain", "finetune"):
        settings = stage_settings(variant, stage, cohorts)
        found.append(train(f"configs/demo_{stage}.yaml", folder / stage, settings, 0, 1))
    return found[0], found[1]


def stage_settings(variant: Variant, stage: str, cohorts: Cohorts) -> list[str]:
    """The settings of a stage of a variant."""
    settings = [*cohorts.settings, *variant.both]
    if stage == "finetune":
        slices = str(cohorts.root / "training" / "omniabnorm") if variant.slices else "null"
        settings += [*variant.finetune, f"data.omniabnorm_dir={slices}"]
    return settings


def run(variant: Variant, seed: int, minutes: float, folder: Path, pace: Path, cohorts: Cohorts) -> dict[str, Any]:
    """Train and evaluate; what was done before is taken from its folder.

    Args:
        variant: what to train.
        seed: of the run.
        minutes: that both stages take together.
        folder: of this run.
        pace: where the variant's time for an epoch is measured.
        cohorts: what to train and to test on.
    """
    result = folder / "run.json"
    if result.exists():
        found: dict[str, Any] = read_json(result)
        return found
    paces = seconds_an_epoch(variant, pace, cohorts)
    shares = (PRETRAIN_SHARE, 1 - PRETRAIN_SHARE)
    first, second = (max(1, round(60 * minutes * share / each)) for share, each in zip(shares, paces, strict=True))
    trained = train(
        "configs/demo_pretrain.yaml", folder / "pretrain", stage_settings(variant, "pretrain", cohorts), seed, first
    )
    start = ["--resume", str(folder / "pretrain" / "checkpoint_last.pth")]
    settings = stage_settings(variant, "finetune", cohorts)
    trained += train("configs/demo_finetune.yaml", folder / "finetune", settings, seed, second, *start)
    for stage in ("pretrain", "finetune"):
        for pool in ("test", "hard"):
            evaluate("retrieval", folder, stage, pool, cohorts)
    evaluate("zero-shot", folder, "finetune", "test", cohorts)
    evaluate("regions", folder, "finetune", "test", cohorts, "--masks", "true", "predicted", "none")
    found = {"minutes": trained / 60, "epochs": [first, second]}
    result.write_text(json.dumps(found), encoding="utf-8")
    return found


def evaluate(kind: str, folder: Path, stage: str, pool: str, cohorts: Cohorts, *more: str) -> None:
    """Evaluate the last checkpoint of a stage on one of the cohorts, unless it is done."""
    output_dir = folder / f"{kind}_{stage}_{pool}"
    if (output_dir / "results.json").exists():
        return
    where = ["--checkpoint", str(folder / stage / "checkpoint_last.pth"), "--data_dir", str(cohorts.volumes(pool))]
    command("evaluate", kind, *where, "--output_dir", str(output_dir), *more)
