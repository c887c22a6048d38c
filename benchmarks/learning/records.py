"""A finished run as one small file that is kept with the code, so that many can fill a table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from learning.runs import HARD, read_json
from vlm3d_ct.checkpoint import load_checkpoint

WAYS = {"image_to_text": "to report", "text_to_image": "to volume"}
RECALLS = ("R@1", "R@5", "R@10", "MRR")
LEAST_AUROC = 0.65
WHOLE = "zero-shot_finetune_test"
"""The evaluation of prompts held against whole volumes; beside it may lie one against regions."""


@dataclass(frozen=True)
class Record:
    """What is known of a run.

    Attributes:
        variant: its name.
        seed: of the run.
        conditions: what runs must share to be compared: code, cohorts, settings, hardware.
        minutes: within steps.
        epochs: of both stages.
        figures: by name; recalls, alignments and pointing in percent.
        auroc: zero-shot, by finding.
    """

    variant: str
    seed: int
    conditions: dict[str, Any]
    minutes: float
    epochs: list[int]
    figures: dict[str, float]
    auroc: dict[str, float] = field(default_factory=dict)


def path_of(folder: Path, variant: str, seed: int) -> Path:
    """Where a run's record is kept."""
    return folder / f"{re.sub('[^a-z0-9]+', '_', variant.lower())}_seed_{seed}.json"


def save(record: Record, folder: Path) -> None:
    """Keep it."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(asdict(record), indent=1) + "\n"
    path_of(folder, record.variant, record.seed).write_text(content, encoding="utf-8")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two conditions, in words; empty where nothing does."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name} {before.get(name)} then, {now.get(name)} now" for name in names)


def load(folder: Path, variant: str) -> list[Record]:
    """The records of a variant, by seed."""
    stem = path_of(folder, variant, 0).stem.removesuffix("0")
    found = [Record(**read_json(path)) for path in folder.glob(f"{stem}[0-9]*.json")]
    return sorted(found, key=lambda record: record.seed)


def read_figures(folder: Path) -> dict[str, float]:
    """All figures of a run's evaluations."""
    found: dict[str, float] = {}
    pools = {"": "finetune_test", " before fine-tuning": "pretrain_test", " without masks": "finetune_test_predicted"}
    pools |= {f" {hard}": f"finetune_{hard}" for hard in HARD}
    for suffix, pool in pools.items():
        results = read_json(folder / f"retrieval_{pool}" / "results.json")
        for way, words in WAYS.items():
            for name in RECALLS:
                factor = 1 if name == "MRR" else 100
                found[f"{name} {words}{suffix}"] = factor * float(results[way][name])
    health = read_json(folder / "retrieval_finetune_test" / "results.json")["embedding_health"]
    found |= {name.replace("_", " "): float(health[name]) for name in ("volume_effective_rank", "volume_mean_cosine")}
    for name, where in (("AUROC", _zero_shot(folder)), ("AUROC, whole volumes", folder / WHOLE)):
        zero_shot = read_json(where / "results.json")
        found[name] = float(zero_shot["macro"]["ensemble"]["auroc"]["estimate"])
    found["findings below"] = float(sum(value < LEAST_AUROC for value in read_auroc(folder).values()))
    regions = read_json(folder / "regions_finetune_test" / "results.json")
    for masks, alignment in regions["alignment"].items():
        found[f"alignment, {masks} masks"] = 100 * float(alignment["within"]["accuracy"]["estimate"])
    found["pointing"] = 100 * float(regions["heat_maps"]["predicted"]["all"]["heat"]["pointing"]["estimate"])
    weights = load_checkpoint(folder / "finetune" / "checkpoint_last.pth")["model"]
    found["parameters"] = sum(w.numel() for w in weights.values() if isinstance(w, torch.Tensor)) / 1e6
    return found


def read_auroc(folder: Path) -> dict[str, float]:
    """The zero-shot AUROC of each finding that some patients of the test have and some have not."""
    classes = read_json(_zero_shot(folder) / "results.json")["classes"]["ensemble"]
    found = {name: scores["auroc"]["estimate"] for name, scores in classes.items()}
    return {name: float(estimate) for name, estimate in found.items() if estimate is not None}


def _zero_shot(folder: Path) -> Path:
    """Prompts held against regions where the run was trained for it, else against whole volumes."""
    of_regions = folder / f"{WHOLE}_regions"
    return of_regions if of_regions.exists() else folder / WHOLE


def common_findings(records: Iterable[Record]) -> list[str]:
    """The findings that all of these have an AUROC of, in the order of the first."""
    seen = [record.auroc for record in records]
    return [name for name in (seen[0] if seen else ()) if all(name in auroc for auroc in seen)]
