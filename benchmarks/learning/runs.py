"""One run: pre-training, fine-tuning and the evaluations, each a command; what is finished is not done again."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learning.variants import Variant
from vlm3d_ct.config import config_to_mapping, load_config

ROOT = Path(__file__).parents[2]
PRETRAIN_SHARE = 0.6
"""Of a run's minutes; the rest is fine-tuning."""
BASE = (
    "augment.sentence_probability=0.2",
    "augment.rotation_probability=0.3",
    "objective.sentence_weight=3",
    "objective.sentence_region_weight=3",
    "training.precision=bf16",
)
"""Settings of every run beside the demo's: thousands of patients are not learned by heart as the demo's few are, there
is time for one more level, and bf16 takes three fifths of the time where the processor multiplies in it."""
HARD = {"hard": "both", "scans": "scans", "words": "words"}
"""What no training saw in each of the hard test sets."""
PACE_PATIENTS = 640
"""Of the cohort by which a variant's time for a step is measured, with slices in the proportion of the training's."""


@dataclass(frozen=True)
class Cohorts:
    """Phantoms of different seeds, which share no patient: training, test, hard test sets, and one for the pace."""

    root: Path
    patients: int
    slices: int
    test_patients: int

    def write(self) -> None:
        """Write those that are not there yet."""
        pace = min(self.patients, PACE_PATIENTS)
        sizes = {
            "training": (self.patients, self.slices),
            "test": (self.test_patients, 0),
            "hard": (self.test_patients, 0),
            "pace": (pace, max(48, self.slices * pace // self.patients)),
            "scans": (self.test_patients, 0),
            "words": (self.test_patients, 0),
        }
        for seed, (name, (patients, slices)) in enumerate(sizes.items(), 1):
            done = self.root / f"{name}.written"
            if done.exists():
                self._check(name, patients, slices)
            else:
                more = ["--hard", HARD[name]] if name in HARD else []
                counts = ["--patients", str(patients), "--slices", str(slices), "--seed", str(seed), *more]
                command("phantom", str(self.root / name), *counts)
                done.touch()

    def _check(self, name: str, patients: int, slices: int) -> None:
        there = read_json(self.root / name / "phantom.json")
        if (there["patients"], there["slices"]) != (patients, slices):
            raise ValueError(
                f"{self.root / name}: holds {there['patients']} patients and {there['slices']} slices, wanted are "
                f"{patients} and {slices}. Give another --out, or the --patients, --slices and --test_patients of then."
            )

    def volumes(self, name: str) -> Path:
        """The folder of volumes of one of the cohorts."""
        return self.root / name / "ct_rate"

    def settings(self, variant: Variant, stage: str, more: Sequence[str], cohort: str = "training") -> list[str]:
        """The settings of a stage of a variant on one of the cohorts; its own come after ``more``."""
        found = [*BASE, *more, f"data.ctrate_dir={self.volumes(cohort)}", f"data.cache_dir={self.root / 'cache'}"]
        found += variant.both
        if stage == "finetune":
            slices = str(self.root / cohort / "omniabnorm") if variant.slices else "null"
            found += [*variant.finetune, f"data.omniabnorm_dir={slices}"]
        return found + split_step(stage, found, variant.micro_batches)


def recipe() -> str:
    """A short hash of the settings that all runs share, beside what the command line gives."""
    parts: list[Any] = [PRETRAIN_SHARE]
    for stage in ("pretrain", "finetune"):
        settings = config_to_mapping(load_config(ROOT / f"configs/demo_{stage}.yaml", BASE))
        for planned in ("num_epochs", "val_interval"):
            del settings["training"][planned]
        parts.append(settings)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def split_step(stage: str, settings: Sequence[str], micro_batches: int) -> list[str]:
    """What splits the pairs of a stage's step into so many micro-batches; nothing for one.

    Raises:
        ValueError: the pairs cannot be split evenly.
    """
    if micro_batches == 1:
        return []
    training = load_config(ROOT / f"configs/demo_{stage}.yaml", settings).training
    pairs = training.batch_size * training.accumulation_steps
    if pairs % micro_batches:
        raise ValueError(
            f"training.batch_size={training.batch_size} x training.accumulation_steps={training.accumulation_steps}: "
            f"{pairs} pairs of {stage} cannot be split into {micro_batches} micro-batches. Set a multiple of it."
        )
    return [f"training.batch_size={pairs // micro_batches}", f"training.accumulation_steps={micro_batches}"]


def command(*arguments: str) -> None:
    """Run ``vlm3d-ct`` as a user would.

    Raises:
        subprocess.CalledProcessError: it failed; its message was printed.
    """
    subprocess.run([str(Path(sys.executable).with_name("vlm3d-ct")), *arguments], cwd=ROOT, check=True)


def train(config: str, output_dir: Path, settings: Sequence[str], seed: int, epochs: int, *more: str) -> Any:
    """Train a stage, or go on with it, or find it finished; returns its summary."""
    flags = [part for setting in settings for part in ("--set", setting)]
    flags += ["--num_epochs", str(epochs), "--seed", str(seed), "--set", f"training.val_interval={epochs}"]
    if not (output_dir / "summary.json").exists():
        command("train", "--config", config, "--output_dir", str(output_dir), *flags, *more)
    return read_json(output_dir / "summary.json")


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def seconds_an_epoch(variant: Variant, folder: Path, cohorts: Cohorts, more: Sequence[str]) -> list[float]:
    """Of both stages, from one epoch of the small cohort: measured once, so that a restart plans the same epochs."""
    seconds = []
    for stage in ("pretrain", "finetune"):
        settings = cohorts.settings(variant, stage, more, "pace")
        summary = train(f"configs/demo_{stage}.yaml", folder / stage, settings, 0, 1)
        share = cohorts.patients / min(cohorts.patients, PACE_PATIENTS)
        seconds.append(summary["step_seconds"] * share)
    return seconds


def plan_epochs(minutes: float, paces: Sequence[float]) -> list[int]:
    """Epochs of both stages, at least one each. Whole epochs do not add up: fine-tuning takes what is left.

    Args:
        minutes: that both stages take together.
        paces: seconds an epoch of each stage takes.
    """
    pretrain, finetune = paces
    first = max(1, round(60 * minutes * PRETRAIN_SHARE / pretrain))
    return [first, max(1, round((60 * minutes - first * pretrain) / finetune))]


def run(
    variant: Variant,
    seed: int,
    minutes: float,
    folder: Path,
    pace: Path,
    cohorts: Cohorts,
    more: Sequence[str] = (),
) -> dict[str, Any]:
    """Train and evaluate; what was done before is taken from its folder.

    Args:
        variant: what to train.
        seed: of the run.
        minutes: that both stages take together.
        folder: of this run.
        pace: where the variant's time for an epoch is measured.
        cohorts: what to train and to test on.
        more: settings of both stages that come before the variant's own.

    Returns:
        ``minutes`` within steps and ``epochs`` of both stages.

    Raises:
        ValueError: the folder holds a run that was asked for otherwise.
    """
    asked = {"settings": list(more), "recipe": recipe(), "variant": repr(variant)}
    _claim(folder, {"minutes": minutes, **asked})
    _claim(pace, asked)
    result = folder / "run.json"
    if result.exists():
        found: dict[str, Any] = read_json(result)
        return found
    epochs = plan_epochs(minutes, seconds_an_epoch(variant, pace, cohorts, more))
    seconds, start = 0.0, []
    for stage, count in zip(("pretrain", "finetune"), epochs, strict=True):
        settings = cohorts.settings(variant, stage, more)
        summary = train(f"configs/demo_{stage}.yaml", folder / stage, settings, seed, count, *start)
        seconds += summary["step_seconds"]
        start = ["--resume", str(folder / stage / "checkpoint_last.pth")]
    evaluate("retrieval", folder, "pretrain_test", cohorts)
    evaluate("retrieval", folder, "finetune_test", cohorts)
    evaluate("retrieval", folder, "finetune_test_predicted", cohorts, "--masks", "predicted")
    for hard in HARD:
        evaluate("retrieval", folder, f"finetune_{hard}", cohorts)
    evaluate("zero-shot", folder, "finetune_test", cohorts)
    if asks_regions(variant, cohorts, more):
        evaluate("zero-shot", folder, "finetune_test_regions", cohorts, "--against", "regions")
    evaluate("regions", folder, "finetune_test", cohorts, "--masks", "true", "predicted", "none")
    found = {"minutes": seconds / 60, "epochs": epochs}
    result.write_text(json.dumps(found), encoding="utf-8")
    return found


def asks_regions(variant: Variant, cohorts: Cohorts, more: Sequence[str]) -> bool:
    """Whether prompts can be held against regions: where sentences and their opposites were in training."""
    config = load_config(ROOT / "configs/demo_finetune.yaml", cohorts.settings(variant, "finetune", more))
    return config.objective.sentence_region_weight > 0


def _claim(folder: Path, asked: dict[str, Any]) -> None:
    """Note what a folder's run is asked for; finished stages of another one must not become part of it."""
    note = folder / "asked.json"
    if not note.exists():
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(asked), encoding="utf-8")
    if (before := read_json(note)) != asked:
        raise ValueError(f"{folder}: was begun with {before}, asked for is {asked}. Give another --out.")


def evaluate(kind: str, folder: Path, what: str, cohorts: Cohorts, *more: str) -> None:
    """Evaluate the last checkpoint of a stage on a cohort (``STAGE_COHORT...``), unless it is done."""
    output_dir = folder / f"{kind}_{what}"
    if (output_dir / "results.json").exists():
        return
    stage, cohort = what.split("_")[:2]
    where = ["--checkpoint", str(folder / stage / "checkpoint_last.pth"), "--data_dir", str(cohorts.volumes(cohort))]
    command("evaluate", kind, *where, "--output_dir", str(output_dir), *more)
