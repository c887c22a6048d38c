"""Measures what `docs/phantom.md` says of the phantoms: truth in the voxels, shortcuts, HU, speed, texts, bytes.

Writes benchmarks/results/phantom_figures_<hardware>_<yyyymm>.md and prints it. The default counts take long on two
cores; smaller ones give wider errors, and --only measures a part.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pages import RESULTS, hardware_name, result_path
from phantom import lesions, shortcuts, speed, texts, tissues

from vlm3d_ct.errors import ConfigError
from vlm3d_ct.log import say
from vlm3d_ct.text.findings import ABNORMALITIES

GRIDS: tuple[shortcuts.GridName, ...] = ("small", "fine")
PARTS = ("speed", "texts", "lesions", "shortcuts", "tissues")
SEEDS = {"speed": 31, "texts": 32, "lesions": 33, "shortcuts": 34, "tissues": 35}
BYTES_SEED, BYTES_PATIENTS, BYTES_SLICES = 36, 24, 16


def speed_section(counts: argparse.Namespace) -> Iterator[str]:
    """Time, memory, cases a second, bytes."""
    full = speed.full_case(SEEDS["speed"])
    cores = os.cpu_count() or 1
    rate = speed.small_rate(SEEDS["speed"], counts.small, cores)
    one, many = (speed.digest(BYTES_SEED, BYTES_PATIENTS, BYTES_SLICES, workers) for workers in (1, max(2, cores)))
    yield "| what | measured | goal |"
    yield "|---|---|---|"
    yield (
        f"| one case of {'x'.join(map(str, full.shape))} with both masks, written, one process | {full.seconds:.1f} s, "
        f"{full.gib:.2f} GiB | {speed.SECONDS_LIMIT:g} s, {speed.GIB_LIMIT:g} GiB |"
    )
    yield f"| small cases written, {cores} processes | {rate:.1f} a second | {speed.RATE_LIMIT:g} a second |"
    said = "the same" if one == many else "DIFFERENT"
    yield f"| bytes with 1 and with {max(2, cores)} processes | {said} | the same |"
    yield ""
    yield f"SHA-256 over {BYTES_PATIENTS} volumes and {BYTES_SLICES} slices of seed {BYTES_SEED}: `{one}`."


def texts_section(counts: argparse.Namespace) -> Iterator[str]:
    """Distinct reports."""
    share = texts.distinct_share(SEEDS["texts"], counts.texts)
    yield f"Distinct reports among {counts.texts} patients: {100 * share:.2f} % (goal {100 * texts.LIMIT:g} %)."


def lesions_section(counts: argparse.Namespace) -> Iterator[str]:
    """Area under the ROC curve of the rules."""
    measured = {grid: lesions.measure(SEEDS["lesions"], grid, getattr(counts, grid) // 3) for grid in GRIDS}
    yield (
        "Area under the ROC curve of a rule that reads HU under the lesion mask, against the same voxels of the same "
        f"patient without findings (goal {lesions.LIMIT}); in brackets how many findings."
    )
    yield ""
    yield "| abnormality | rule | small grid | fine grid |"
    yield "|---|---|---|---|"
    for name in ABNORMALITIES:
        cells = [f"{area:.3f} ({seen})" for area, seen, _ in (measured[grid][name] for grid in GRIDS)]
        yield f"| {name} | {lesions.RULES[name][1]} | {' | '.join(cells)} |"
    covered = {grid: sum(hidden for _, _, hidden in measured[grid].values()) for grid in GRIDS}
    yield ""
    yield f"Covered by others and not read: {covered['small']} on the small grid, {covered['fine']} on the fine."


def shortcuts_section(counts: argparse.Namespace) -> Iterator[str]:
    """Area under the ROC curve of what should say nothing."""
    for grid in GRIDS:
        number = getattr(counts, grid)
        measured = shortcuts.measure(SEEDS["shortcuts"], grid, number)
        yield (
            f"{grid.capitalize()} grid, {number} cases: area under the ROC curve out of fold, the better of two "
            f"classifiers (goal: at most {shortcuts.LIMIT}); **bold** above it, (n) where the finding is that quantity "
            "by nature."
        )
        yield ""
        yield f"| abnormality | {' | '.join(measured)} |"
        yield f"|---|{'---|' * len(measured)}"
        for name in ABNORMALITIES:
            cells = [_shortcut_cell(shortcut, name, areas[name]) for shortcut, areas in measured.items()]
            yield f"| {name} | {' | '.join(cells)} |"
        yield ""


def _shortcut_cell(shortcut: str, abnormality: str, area: float) -> str:
    if area <= shortcuts.LIMIT:
        return f"{area:.2f}"
    return f"{area:.2f} (n)" if (shortcut, abnormality) in shortcuts.BY_NATURE else f"**{area:.2f}**"


def tissues_section(counts: argparse.Namespace) -> Iterator[str]:
    """HU against real scans."""
    yield "| tissue | real scans | mean, spread | phantoms | mean, spread | their means | difference | factor |"
    yield "|---|---|---|---|---|---|---|---|"
    for found in tissues.measure(Path(counts.realdata), SEEDS["tissues"], counts.tissues):
        low, high = found.range_hu
        yield (
            f"| {found.tissue} | {found.scans} | {found.real.mean_hu:.0f}, {found.real.spread_hu:.0f} | "
            f"{found.phantoms} | {found.drawn.mean_hu:.0f}, {found.drawn.spread_hu:.0f} | {low:.0f} to {high:.0f} | "
            f"{found.difference_hu:+.0f} | {found.spread_factor:.2f} |"
        )
    yield ""
    yield "*Their means*: of the single phantoms, from the 5th to the 95th percentile."
    yield f"Goal: means within {tissues.MEAN_LIMIT_HU:g} HU, spreads within a factor of {tissues.SPREAD_LIMIT:g}."


SECTIONS = {
    "speed": ("Speed and bytes", speed_section),
    "texts": ("Texts", texts_section),
    "lesions": ("Is it in the voxels?", lesions_section),
    "shortcuts": ("Shortcuts", shortcuts_section),
    "tissues": ("HU against real scans", tissues_section),
}


def sections(counts: argparse.Namespace, parts: Sequence[str], hardware: str, day: datetime) -> Iterator[str]:
    """The page of results, a piece as soon as it is measured."""
    numbers = ", ".join(f"{name} {getattr(counts, name)}" for name in ("small", "fine", "texts", "tissues"))
    yield (
        f"# Phantom figures: {hardware}, {day:%Y-%m-%d}\n\n"
        f"`python benchmarks/phantom_figures.py`, vlm3d-ct {version('vlm3d-ct')}, Python {platform.python_version()}.\n"
        "The small grid is that of `--size small`; the fine grid has the findings of `--size full` on 96x208x208 "
        f"voxels. Counts: {numbers}; for the lesions a third of them.\n"
    )
    for part in parts:
        title, section = SECTIONS[part]
        say(title)
        yield "\n".join(("", f"## {title}", "", *section(counts))).rstrip("\n") + "\n"


def main(arguments: Sequence[str]) -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="some of the sections")
    parser.add_argument("--small", type=int, default=1200, metavar="N", help="cases of the small grid")
    parser.add_argument("--fine", type=int, default=300, metavar="N", help="cases of the fine grid")
    parser.add_argument("--texts", type=int, default=10_000, metavar="N", help="reports")
    parser.add_argument("--tissues", type=int, default=160, metavar="N", help="phantoms compared with real scans")
    parser.add_argument("--realdata", default="../shared/realdata", metavar="DIR", help="folder of the real scans")
    parser.add_argument("--results", default=str(RESULTS), metavar="DIR", help="where the page is written")
    counts = parser.parse_args(arguments)
    if "tissues" in counts.only and not Path(counts.realdata).is_dir():
        raise ConfigError(f"--realdata {counts.realdata}: is not a folder. Name it, or leave out tissues with --only.")
    day, hardware = datetime.now(UTC), hardware_name()
    pieces = []
    for piece in sections(counts, counts.only, hardware, day):
        print(piece, flush=True)
        pieces.append(piece)
    path = result_path(Path(counts.results), "phantom_figures", hardware, day)
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(pieces), encoding="utf-8")
    print(f"written to {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
