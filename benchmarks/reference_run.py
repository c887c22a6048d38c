"""Loss and scores per epoch of a finished run, for comparison: fills the table of docs/reference_run.md.

    python benchmarks/reference_run.py demo_out

reads the stages (folders with a metrics.jsonl and a summary.json) in the folder of a run, writes their table between
the two markers of the page, and prints it.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pages import hardware_name

PAGE = Path(__file__).parents[1] / "docs" / "reference_run.md"
BEGIN, END = "<!-- the figures begin -->", "<!-- the figures end -->"
LOSSES = ("loss", "global_loss", "region_loss", "sentence_loss", "occupancy_loss")
SCORES = ("image_to_text/R@1", "image_to_text/MRR", "text_to_image/R@1", "text_to_image/MRR", "score")


def read_stage(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Summary and records of a finished stage."""
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return summary, [json.loads(line) for line in lines]


def epoch_rows(records: Sequence[dict[str, Any]]) -> list[list[str]]:
    """One row for each epoch: the means of its logged losses, and the scores of the validation at its end."""
    of_epoch: dict[int, list[dict[str, Any]]] = {}
    scores: dict[int, dict[str, Any]] = {}
    for record in records:
        if record["kind"] == "train":
            of_epoch.setdefault(_epoch(record["epoch"]), []).append(record)
        elif record["kind"] == "validation":
            scores[_epoch(record["epoch"])] = record
    rows = []
    for epoch in sorted(of_epoch.keys() | scores.keys()):
        logged = of_epoch.get(epoch, [])
        losses = [[r[name] for r in logged if r[name] is not None] for name in LOSSES]
        means = [f"{statistics.fmean(values):.3f}" if values else "" for values in losses]
        found = scores.get(epoch, {})
        rows.append([str(epoch), *means, *(f"{found[name]:.3f}" if name in found else "" for name in SCORES)])
    return rows


def _epoch(position: float) -> int:
    """The epoch, counted from 1, that a step ends in or ends; positions are rounded to four digits."""
    return max(1, -int(-(position - 5e-4) // 1))


def render(folders: Sequence[Path], hardware: str, day: datetime) -> str:
    """The tables of all stages."""
    lines = [
        f"{day:%Y-%m-%d}, {hardware}, vlm3d-ct {version('vlm3d-ct')}, torch {version('torch')}, "
        f"Python {platform.python_version()}.",
    ]
    for folder in folders:
        summary, records = read_stage(folder)
        lines += [
            "",
            f"### {folder.name}",
            "",
            f"Stage {summary['stage']}, seed {summary['seed']}: {summary['steps']} steps of "
            f"{summary['pairs_per_step']} pairs, {summary['skipped_steps']} of them skipped; "
            f"best score {summary['best_score']:.3f} ({summary['best_checkpoint']}).",
            "",
            "| " + " | ".join(("epoch", *(name.replace("_", " ") for name in (*LOSSES, *SCORES)))) + " |",
            "|" + "---|" * (1 + len(LOSSES) + len(SCORES)),
            *("| " + " | ".join(row) + " |" for row in epoch_rows(records)),
        ]
    return "\n".join(lines)


def fill(page: Path, figures: str) -> None:
    """Replace what stands between the markers of the page."""
    before, found, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise SystemExit(f"{page}: has no markers {BEGIN} and {END}.")
    page.write_text(f"{before}{BEGIN}\n{figures}\n{END}{after}", encoding="utf-8")


def main(arguments: Sequence[str]) -> None:
    """Fill the page from a folder of stages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("run", type=Path, help="folder of the stages, such as demo_out")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to fill (default: docs/reference_run.md)")
    parsed = parser.parse_args(arguments)
    folders = [path.parent for path in sorted(parsed.run.glob("*/summary.json"), key=lambda p: p.stat().st_mtime)]
    if not folders:
        raise SystemExit(f"{parsed.run}: no finished stage: no */summary.json.")
    figures = render(folders, hardware_name(), datetime.now(UTC))
    fill(parsed.page, figures)
    print(f"{figures}\nwritten to {parsed.page}")


if __name__ == "__main__":
    main(sys.argv[1:])
