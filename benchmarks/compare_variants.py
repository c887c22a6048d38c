"""Does it learn what it claims? The full design against what is taken away from it, on phantoms, at equal time.

    python benchmarks/compare_variants.py                       # 8 variants x 3 seeds x 15 minutes, and evaluations
    python benchmarks/compare_variants.py --variants full "plain CLIP" --seeds 1 --minutes 5

Every run pre-trains, fine-tunes and is evaluated on 200 unseen phantoms, and on 200 whose acquisition and wording no
training saw. It goes on where it stopped: finished commands are not run again, interrupted training continues. Writes
the page (docs/benchmark.md) from the runs that are finished, whatever they are. Phantoms say nothing about CT-RATE.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from learning.runs import ROOT, Cohorts, read_json, run
from learning.variants import VARIANTS, Variant
from pages import processor_name
from scipy.stats import t as student

PAGE = ROOT / "docs" / "benchmark.md"


def _recall(stage: str, pool: str, k: int) -> Callable[[Path], float]:
    def read(folder: Path) -> float:
        results = read_json(folder / f"retrieval_{stage}_{pool}" / "results.json")
        return statistics.fmean(100 * results[way][f"R@{k}"] for way in ("image_to_text", "text_to_image"))

    return read


def _alignment(masks: str) -> Callable[[Path], float]:
    def read(folder: Path) -> float:
        results = read_json(folder / "regions_finetune_test" / "results.json")
        return 100 * float(results["alignment"][masks]["within"]["accuracy"]["estimate"])

    return read


def _pointing(folder: Path) -> float:
    heat = read_json(folder / "regions_finetune_test" / "results.json")["heat_maps"]["predicted"]["all"]
    return 100 * float(heat["heat"]["pointing"]["estimate"])


def _auroc(folder: Path) -> float:
    return float(
        read_json(folder / "zero-shot_finetune_test" / "results.json")["macro"]["ensemble"]["auroc"]["estimate"]
    )


FIGURES: Mapping[str, Callable[[Path], float]] = {
    "R@1": _recall("finetune", "test", 1),
    "R@5": _recall("finetune", "test", 5),
    "R@10": _recall("finetune", "test", 10),
    "R@5 before fine-tuning": _recall("pretrain", "test", 5),
    "R@5 hard": _recall("finetune", "hard", 5),
    "AUROC": _auroc,
    "alignment, true masks": _alignment("true"),
    "predicted": _alignment("predicted"),
    "none": _alignment("none"),
    "pointing": _pointing,
}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the 95 % interval by Student's t; NaN for a single value."""
    if len(values) < 2:
        return values[0], float("nan")
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return statistics.fmean(values), float(half)


def rows(finished: Mapping[str, Sequence[Path]]) -> list[str]:
    """One row of the table for each variant with a finished run."""
    lines = []
    for name, folders in finished.items():
        if folders:
            cells = [_cell([figure(folder) for folder in folders]) for figure in FIGURES.values()]
            minutes = statistics.fmean(read_json(folder / "run.json")["minutes"] for folder in folders)
            lines.append(f"| {name} | {len(folders)} | {minutes:.1f} | {' | '.join(cells)} |")
    return lines


def _cell(values: Sequence[float]) -> str:
    mean, half = interval(values)
    digits = 3 if abs(mean) <= 1 else 1
    return f"{mean:.{digits}f}" + ("" if half != half else f" ± {half:.{digits}f}")


def render(finished: Mapping[str, Sequence[Path]], cohorts: Cohorts, hardware: str, day: datetime) -> str:
    """The page."""
    chance = 100 * 5 / cohorts.test_patients
    table = [
        "| variant | seeds | minutes | " + " | ".join(FIGURES) + " |",
        "|---" * (len(FIGURES) + 3) + "|",
        *rows(finished),
    ]
    return "\n".join(
        [
            "# Does it learn what it claims? On phantoms",
            "",
            f"`python benchmarks/compare_variants.py`, vlm3d-ct {version('vlm3d-ct')}, torch {torch.__version__}, "
            f"{hardware}, {day:%Y-%m-%d}.",
            f"Trained on {cohorts.patients} phantoms and {cohorts.slices} slices, tested on {cohorts.test_patients} "
            f"unseen ones; chance of R@5 {chance:.1f} %. *Hard*: acquisition and wording that no training saw.",
            "Nothing here is about patients, and nothing is a CT-RATE result. Recalls (both ways), alignment and "
            "pointing in %, means over seeds with 95 % intervals (Student's t) where there are several; minutes within "
            "steps.",
            "",
            *table,
            "",
            *(f"- **{name}**: {variant.about}" for name, variant in VARIANTS.items()),
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmark_out"), help="cohorts and runs")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=15.0, help="training time of a run")
    parser.add_argument("--patients", type=int, default=1800)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--test_patients", type=int, default=200)
    parser.add_argument("--page", type=Path, default=PAGE)
    parsed = parser.parse_args(arguments)
    out = parsed.out.resolve()
    cohorts = Cohorts(out / "cohorts", parsed.patients, parsed.slices, parsed.test_patients)
    cohorts.write()
    for seed in range(parsed.seeds):
        for name in parsed.variants:
            _run(VARIANTS[name], name, seed, parsed.minutes, out, cohorts)
            write_page(parsed.page, out, cohorts)


def _run(variant: Variant, name: str, seed: int, minutes: float, out: Path, cohorts: Cohorts) -> dict[str, Any]:
    folder = out / "runs" / name.replace(" ", "_")
    return run(variant, seed, minutes, folder / f"seed_{seed}", folder / "pace", cohorts)


def write_page(page: Path, out: Path, cohorts: Cohorts) -> None:
    """The page of all finished runs."""
    finished = {
        name: [file.parent for file in sorted((out / "runs" / name.replace(" ", "_")).glob("seed_*/run.json"))]
        for name in VARIANTS
    }
    page.write_text(render(finished, cohorts, processor_name(), datetime.now(UTC)), encoding="utf-8")


if __name__ == "__main__":
    main()
