"""Measures which findings each intensity window can show, on phantoms; writes docs/windows.md and prints it.

python benchmarks/windows.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int16, UInt8
from phantom.cases import DrawnCase, GridName, for_each_case
from sklearn.metrics import roc_auc_score

from vlm3d_ct.config.schema import WINDOW_PRESETS
from vlm3d_ct.log import say
from vlm3d_ct.text.findings import ABNORMALITIES
from vlm3d_ct.volumes.resize import resize_average, resize_nearest
from vlm3d_ct.volumes.volume import MAX_HU, MIN_HU

PAGE = Path(__file__).parent.parent / "docs" / "windows.md"
SEED = 41
SIZE = (64, 208, 208)
FEWEST_VOXELS = 8
WINDOWS = ("plan", "lung", "bone")
VIEWS: dict[str, tuple[str, ...]] = {**{name: (name,) for name in WINDOWS}, "all three": WINDOWS}


@dataclass(frozen=True)
class Reading:
    """What the views show of one abnormality in one case: area under the ROC curve and share clipped, by view."""

    abnormality: str
    areas: tuple[float, ...]
    clipped: tuple[float, ...]


def windowed(hu: Int16[np.ndarray, " n"], name: str) -> Float32[np.ndarray, " n"]:
    """As the encoder sees it: 0..1."""
    centre, width = WINDOW_PRESETS[name]
    return np.clip((hu.astype(np.float32) - (centre - width / 2)) / width, 0, 1)


def area(lesion: Int16[np.ndarray, " n"], rest: Int16[np.ndarray, " m"], names: Sequence[str]) -> float:
    """Direction-free. Windows are monotone in HU, so the sum of channels orders voxels by all that any one tells."""
    scores = sum(windowed(np.concatenate([lesion, rest]), name).astype(np.float64) for name in names)
    value = float(roc_auc_score(np.repeat([1, 0], [len(lesion), len(rest)]), scores))
    return max(value, 1 - value)


def clipped_share(lesion: Int16[np.ndarray, " n"], names: Sequence[str]) -> float:
    """Share of the voxels that every one of the windows clips to 0 or 1."""
    return float(np.mean(np.all([np.isin(windowed(lesion, name), (0, 1)) for name in names], axis=0)))


def readings(size: tuple[int, int, int], case: DrawnCase) -> list[Reading]:
    """Of every abnormality that has voxels of its own, and others of its regions beside them."""
    hu = resize_average(case.scan.voxels_hu, size, bounds=(MIN_HU, MAX_HU))
    labels, lesions = resize_nearest(case.scan.labels, size), resize_nearest(case.scan.lesions, size)
    found = []
    for name in ABNORMALITIES:
        lesion, rest = _voxels(case, name, hu, labels, lesions)
        if min(len(lesion), len(rest)) >= FEWEST_VOXELS:
            areas = tuple(area(lesion, rest, names) for names in VIEWS.values())
            found.append(Reading(name, areas, tuple(clipped_share(lesion, names) for names in VIEWS.values())))
    return found


def _voxels(
    case: DrawnCase,
    name: str,
    hu: Int16[np.ndarray, "z y x"],
    labels: UInt8[np.ndarray, "z y x"],
    lesions: UInt8[np.ndarray, "z y x"],
) -> tuple[Int16[np.ndarray, " n"], Int16[np.ndarray, " m"]]:
    """Those of the lesions of this name, and those of the same regions that belong to no lesion."""
    numbered = [(number, f) for number, f in enumerate(case.subject.findings, start=1) if f.abnormality == name]
    regions = sorted({region for _, finding in numbered for region in finding.regions})
    return hu[np.isin(lesions, [number for number, _ in numbered])], hu[np.isin(labels, regions) & (lesions == 0)]


def page(rows: Iterable[Reading], cases: int, grid: GridName, size: tuple[int, int, int]) -> Iterator[str]:
    """Lines of the page."""
    rows = list(rows)
    centres = ", ".join(f"{name} {WINDOW_PRESETS[name][0]:g} / {WINDOW_PRESETS[name][1]:g}" for name in WINDOWS)
    yield "# What each window shows of the phantoms\n"
    prepared = "x".join(map(str, size))
    yield f"`python benchmarks/windows.py`: {cases} phantoms of the {grid} grid, prepared at {prepared}."
    yield f"Windows (centre / width in HU): {centres}; *all three* as channels. Nothing here is about patients.\n"
    yield "Area under the ROC curve of the windowed intensity (direction-free, so 0.5 is nothing): the finding's voxels"
    yield "against those of the same patient's same regions without any. Behind the stroke: the share of the finding's"
    yield "voxels that the window clips to 0 or 1 (*all three*: that each of them clips). Means over n cases; **bold**:"
    yield "0.05 or more below all three. Voxels are judged one by one, so what is told by its shape, such as dark and"
    yield "bright parts side by side, has a low area in any window; what fills its region (cardiomegaly) has none.\n"
    yield f"| finding | n | {' | '.join(VIEWS)} |"
    yield f"|---|---|{'---|' * len(VIEWS)}"
    for name in ABNORMALITIES:
        yield _row(name, [row for row in rows if row.abnormality == name])


def _row(name: str, rows: Sequence[Reading]) -> str:
    if not rows:
        return f"| {name} | 0 |{' |' * len(VIEWS)}"
    areas = np.mean([row.areas for row in rows], axis=0)
    clipped = np.mean([row.clipped for row in rows], axis=0)
    marks = ["**" if value <= areas[-1] - 0.05 else "" for value in areas]
    cells = [f"{m}{a:.2f}{m} / {100 * c:.0f} %" for m, a, c in zip(marks, areas, clipped, strict=True)]
    return f"| {name} | {len(rows)} | {' | '.join(cells)} |"


def main(arguments: Sequence[str]) -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=240)
    parser.add_argument("--grid", choices=("small", "fine", "full"), default="fine")
    parser.add_argument("--size", type=int, nargs=3, default=SIZE, metavar="N", help="prepared voxels z y x")
    parser.add_argument("--output", type=Path, default=PAGE)
    asked = parser.parse_args(arguments)
    size = (asked.size[0], asked.size[1], asked.size[2])
    read = for_each_case(partial(readings, size), SEED, asked.grid, asked.cases, "Windows")
    text = "\n".join(page((row for rows in read for row in rows), asked.cases, asked.grid, size)) + "\n"
    asked.output.write_text(text, encoding="utf-8")
    say(text)


if __name__ == "__main__":
    main(sys.argv[1:])
