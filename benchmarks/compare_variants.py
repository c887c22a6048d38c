"""Does it learn what it claims? The full design against what is taken away from it, on phantoms, at equal time.

    python benchmarks/compare_variants.py                       # all variants x 3 seeds: about 16 hours on 2 cores
    python benchmarks/compare_variants.py --variants full "plain CLIP" --seeds 0 --minutes 5

Every run pre-trains, fine-tunes and is evaluated on 200 unseen phantoms, and on 200 each whose acquisition, whose
wording, or both no training saw. It goes on where it stopped: finished commands are not run again, interrupted
training continues, and what a finished run found is kept in benchmarks/results/learning: without its record a run is
done again. Writes the page (docs/benchmark.md) from all records, with docs/benchmark_notes.md at its end, which is
written by hand.
Phantoms say nothing about CT-RATE.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from learning import records
from learning.page import NOTES, render
from learning.plots import draw
from learning.runs import ROOT, Cohorts, read_json, recipe, run
from learning.variants import SHORTER, VARIANTS
from pages import RESULTS, processor_name

PAGE = ROOT / "docs" / "benchmark.md"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and write the page."""
    parsed = _parser().parse_args(arguments)
    out = parsed.out.resolve()
    cohorts = Cohorts(out / "cohorts", parsed.patients, parsed.slices, parsed.test_patients)
    if not parsed.page_only:
        alike = parsed.minutes == parsed.ablation_minutes  # then the full design itself is what ablations are held to
        for seed in parsed.seeds:
            for name in (name for name in parsed.variants if not (alike and name == SHORTER)):
                _run(name, seed, parsed, out, cohorts)
                write_page(parsed)
    write_page(parsed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmark_out"), help="cohorts and runs")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=30.0, help="training time of the full design and plain CLIP")
    parser.add_argument(
        "--ablation_minutes",
        type=float,
        default=15.0,
        help="of all others; where it differs from --minutes, the full design is trained so long, too, beside them",
    )
    parser.add_argument("--patients", type=int, default=8000)
    parser.add_argument("--slices", type=int, default=400)
    parser.add_argument("--test_patients", type=int, default=200)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of both stages of every run")
    parser.add_argument("--records", type=Path, default=RESULTS / "learning", help="what finished runs found")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--page_only", action="store_true", help="write the page from the records; run nothing")
    return parser


def _run(name: str, seed: int, parsed: argparse.Namespace, out: Path, cohorts: Cohorts) -> None:
    variant, folder = VARIANTS[name], out / "runs" / name.replace(" ", "_").replace(",", "")
    minutes = parsed.minutes if variant.takes_long else parsed.ablation_minutes
    conditions, kept = _conditions(parsed, minutes), records.path_of(parsed.records, name, seed)
    if kept.exists():
        differing = records.differences(read_json(kept)["conditions"], conditions)
        also = f"; under other conditions than now: {differing}" if differing else ""
        print(f"{name}, seed {seed}: not run again, its record is {kept}{also}", flush=True)
        return
    cohorts.write()
    done = run(variant, seed, minutes, folder / f"seed_{seed}", folder / "pace", cohorts, parsed.set)
    found = records.Record(
        variant=name,
        seed=seed,
        conditions=conditions,
        minutes=done["minutes"],
        epochs=done["epochs"],
        figures=records.read_figures(folder / f"seed_{seed}"),
        auroc=records.read_auroc(folder / f"seed_{seed}"),
    )
    records.save(found, parsed.records)


def _conditions(parsed: argparse.Namespace, minutes: float) -> dict[str, Any]:
    found = {
        "vlm3d-ct": version("vlm3d-ct"),
        "torch": torch.__version__,
        "hardware": processor_name(),
        "threads": torch.get_num_threads(),
        "patients": parsed.patients,
        "slices": parsed.slices,
        "test patients": parsed.test_patients,
        "planned minutes": minutes,
        "recipe": recipe(),
    }
    return found | ({"settings": " ".join(parsed.set)} if parsed.set else {})


def write_page(parsed: argparse.Namespace) -> None:
    """The page of all runs whose records are kept, and its pictures."""
    found = {name: records.load(parsed.records, name) for name in VARIANTS}
    if any(found.values()):
        pictures = parsed.page.parent / "pictures"
        linked = [(what, f"{pictures.name}/{name}") for what, name in draw(found, pictures)]
        parsed.page.write_text(render(found, linked, parsed.page.with_name(NOTES)), encoding="utf-8")


if __name__ == "__main__":
    main()
