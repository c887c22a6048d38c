"""What holds retrieval back on phantoms: the texts, or the encoder? Two ceilings, in minutes.

    python benchmarks/learning_ceilings.py --cohorts benchmark_out/cohorts [--set model.windows=[plan]]

*Perfect vision*: symbols of the truth (findings, places, sizes, build) in place of the scan, n-grams in place of the
text, a small contrast between both: what the texts would let one retrieve if the scan were understood completely.
*Labels*: the vision encoder of a configuration, trained on the 18 labels alone: what it sees after so many minutes.
`compare_variants.py` writes the cohorts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from learning.runs import ROOT
from torch import Tensor, nn

from vlm3d_ct.config import Config, load_config
from vlm3d_ct.data.dataset import open_cache
from vlm3d_ct.data.labels import find_labels, read_labels
from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.data.prepare import prepare_cases
from vlm3d_ct.evaluation.metrics.binary import auroc
from vlm3d_ct.evaluation.metrics.ranking import rank_pool, summarise
from vlm3d_ct.models.build import build_vision_encoder
from vlm3d_ct.training.optimizer import build_optimizer
from vlm3d_ct.volumes.preprocess import Preprocess

LEAST_COUNT = 5
"""An n-gram that fewer reports have is left out."""
TRAITS = {"fat": (5, 25), "diaphragm_z": (-90, -50), "inspiration": (0.3, 0.9), "age_years": (20, 90)}
TRAITS |= {"sponge_hu": (80, 250), "cartilage_calcium": (0, 1), "hypostasis": (0, 1), "liver_hu": (20, 70)}
"""The patient's traits that reports speak of, and about their ranges."""


def symbols(truth: Mapping[str, Any]) -> dict[str, float]:
    """What is true of a scan, as named numbers of about 0 to 1."""
    found: dict[str, float] = {}
    for finding in truth["findings"]:
        name = finding["abnormality"]
        found |= dict.fromkeys((name, name + finding["form"], name + finding["severity"], name + finding["side"]), 1.0)
        found |= {f"{name} in {region}": 1.0 for region in finding["regions"]}
        found[f"size of {name}"] = math.log(finding["size_mm"]) / 3
    patient = truth["patient"]
    found |= {f"{key} {patient[key]}": 1.0 for key in ("sex", "phase", "arms")}
    for key, (low, high) in TRAITS.items():
        place = (patient[key] - low) / (high - low)
        found |= {f"{key} above {c}": 1 / (1 + math.exp(-20 * (place - c))) for c in (0.1, 0.3, 0.5, 0.7, 0.9)}
    return found


def ngrams(text: str) -> dict[str, float]:
    """Words and pairs of words."""
    words = re.findall(r"[a-z]+|\d+", text.lower())
    return dict.fromkeys([*words, *map(" ".join, itertools.pairwise(words))], 1.0)


def table(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> Tensor:
    """A row a case, a column a name."""
    place = {name: column for column, name in enumerate(names)}
    values = torch.zeros(len(rows), len(names))
    for row, entries in enumerate(rows):
        for name, value in entries.items():
            if name in place:
                values[row, place[name]] = value
    return values


def perfect_vision(train: Path, test: Path, epochs: int = 20) -> dict[str, float]:
    """R@k and MRR both ways in the test folder, of a contrast that was trained on the other."""
    torch.manual_seed(0)
    (known, texts), (unseen, unseen_texts) = (_symbols_and_texts(folder) for folder in (train, test))
    names = sorted({name for entries in known for name in entries})
    counts = Counter(name for entries in texts for name in entries)
    grams = sorted(name for name, count in counts.items() if count >= LEAST_COUNT)
    scan, text = table(known, names), F.normalize(table(texts, grams))
    of_scan = nn.Sequential(nn.Linear(len(names), 256), nn.GELU(), nn.Linear(256, 128))
    of_text = nn.Sequential(nn.Linear(len(grams), 256), nn.GELU(), nn.Dropout(0.3), nn.Linear(256, 128))
    scale = nn.Parameter(torch.tensor(2.6))
    parameters = [*of_scan.parameters(), *of_text.parameters(), scale]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.1)
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 + math.cos(math.pi * epoch / epochs))
        for rows in torch.randperm(len(scan)).split(256):
            logits = scale.exp() * F.normalize(of_scan(scan[rows])) @ F.normalize(of_text(text[rows])).T
            own = torch.arange(len(rows))
            loss = F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        of_text.eval()
        volume = F.normalize(of_scan(table(unseen, names))).numpy()
        report = F.normalize(of_text(F.normalize(table(unseen_texts, grams)))).numpy()
    ranks = rank_pool(volume, report, np.arange(len(volume)))
    ways = {"to report": ranks.volume_to_text, "to volume": ranks.text_to_volume}
    return {f"{name} {way}": value for way, found in ways.items() for name, value in summarise(found).items()}


def _symbols_and_texts(folder: Path) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    cases = read_cases(folder).cases
    return (
        [symbols(truth[f"{case.case_id}.nii.gz"]) for case in cases],
        [ngrams(case.reports[0].answer) for case in cases],
    )


class Labelled:
    """A folder's prepared volumes in memory, with their 18 labels."""

    def __init__(self, folder: Path, config: Config):
        cases, cache = read_cases(folder).cases, open_cache(config)
        prepare_cases(cases, preprocess=Preprocess.from_config(config.preprocess), cache=cache, workers=2)
        prepared = [cache.read(case) for case in cases]
        self.voxels = torch.from_numpy(np.stack([each.voxels_hu for each in prepared]))
        self.masks = torch.from_numpy(np.stack([each.labels for each in prepared if each.labels is not None]))
        labels = read_labels(find_labels(folder)).for_cases([case.case_id for case in cases])
        self.labels = torch.from_numpy(labels).float()
        self.windows = torch.tensor(config.model.windows_hu).view(-1, 2, 1, 1, 1)

    def inputs(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Windowed intensities and region ids."""
        centre, width = self.windows[:, 0], self.windows[:, 1]
        voxels = self.voxels[rows].float()[:, None]
        return ((voxels - centre + width / 2) / width).clamp(0, 1), self.masks[rows][:, None]


def learn_labels(
    train: Labelled, test: Labelled, config: Config, minutes: float, steps: int | None = None
) -> tuple[int, list[float]]:
    """Steps that were taken, and the AUROC of each finding in the test folder.

    Args:
        train: what is learned from.
        test: what is predicted.
        config: of the encoder and its optimizer.
        minutes: of learning.
        steps: of learning, in place of the minutes: the same work on every machine.
    """
    torch.manual_seed(0)
    encoder = build_vision_encoder(config)
    head = nn.Linear(config.model.embed_dim, train.labels.shape[1])
    optimizer = build_optimizer((encoder, head), config.training)
    parameters = [*encoder.parameters(), *head.parameters()]
    start, step = time.monotonic(), 0
    while (done := step / steps if steps else (time.monotonic() - start) / (60 * minutes)) < 1:
        rows = torch.randint(len(train.labels), (config.training.batch_size,))
        for group in optimizer.param_groups:
            group["lr"] = config.training.lr * min(1, step / 100) * (1 + math.cos(math.pi * done)) / 2
        scores = head(encoder(*train.inputs(rows)).global_features)
        F.binary_cross_entropy_with_logits(scores, train.labels[rows]).backward()
        nn.utils.clip_grad_norm_(parameters, config.training.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
    encoder.eval()
    with torch.no_grad():
        parts = torch.arange(len(test.labels)).split(50)
        scores = torch.cat([head(encoder(*test.inputs(rows)).global_features) for rows in parts])
    present = test.labels.numpy() > 0
    return step, [auroc(present[:, column], scores[:, column].numpy()) for column in range(present.shape[1])]


def main() -> None:
    """Print both ceilings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=Path, default=Path("benchmark_out/cohorts"))
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--steps", type=int, help="in place of --minutes: the same work on every machine")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parsed = parser.parse_args()
    train, test = (parsed.cohorts / name / "ct_rate" for name in ("training", "test"))
    for name, value in perfect_vision(train, test).items():
        if name.startswith("R@5 "):
            print(f"perfect vision: {name} {100 * value:.1f} %")
    changes = [f"data.ctrate_dir={train}", f"data.cache_dir={parsed.cohorts / 'cache'}", *parsed.set]
    config = load_config(ROOT / "configs" / "demo_pretrain.yaml", changes)
    steps, found = learn_labels(Labelled(train, config), Labelled(test, config), config, parsed.minutes, parsed.steps)
    spent = f"{parsed.minutes:g} minutes, {steps} steps" if parsed.steps is None else f"{steps} steps"
    print(f"labels: macro AUROC {np.mean(found):.3f} after {spent}")


if __name__ == "__main__":
    main()
