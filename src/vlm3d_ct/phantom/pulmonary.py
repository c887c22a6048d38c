"""The vessels within the lungs: a random tree from each hilum to the periphery of every lobe."""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Triple

HILA: dict[str, Triple] = {"right": (4, 10, -40), "left": (8, 14, 44)}
LOBE_SIDES = {1: "right", 2: "right", 3: "right", 4: "left", 5: "left"}
BRANCHES_PER_LOBE = 4

Branch = tuple[list[Triple], float]
"""A polyline in mm and its radius."""


def _between(start: Triple, end: Triple, share: float, rng: np.random.Generator, spread_mm: float) -> Triple:
    z, y, x = (s + share * (e - s) + spread_mm * rng.normal() for s, e in zip(start, end, strict=True))
    return z, y, x


def draw_tree(rng: np.random.Generator, scout: Canvas) -> tuple[Branch, ...]:
    """Random branches towards random points of the lobes of a scout."""
    branches: list[Branch] = []
    grid = scout.grid
    for lobe, side in LOBE_SIDES.items():
        voxels = np.argwhere(scout.lobes == lobe)
        for chosen in rng.integers(len(voxels), size=BRANCHES_PER_LOBE):
            index = voxels[chosen]
            z, y, x = (o + s * i for o, s, i in zip(grid.origin_mm, grid.spacing_mm, index, strict=True))
            tip = (z, y, x)
            bend = _between(HILA[side], tip, 0.55, rng, 6.0)
            branches.append(([HILA[side], bend], 3.6))
            branches.append(([bend, tip], 2.2))
            branches.append(([bend, _between(bend, tip, 0.9, rng, 22.0)], 1.6))
            branches.append(([_between(bend, tip, 0.5, rng, 1.0), _between(bend, tip, 1.0, rng, 24.0)], 1.2))
    return tuple(branches)


def paint_tree(canvas: Canvas, tree: tuple[Branch, ...], blood_hu: float) -> None:
    """Paint the branches where there is lung."""
    for points, radius in tree:
        canvas.rod(points, radius, max(blood_hu, tissue.LUNG_VESSEL), within=(1, 2, 3, 4, 5, 7))
