"""Region masks as imperfect as automatic ones: dilated, eroded, a region missing or merged with a neighbour.

What goes wrong is drawn for each case, from a random stream of its own: a mask tells nothing about the findings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from scipy import ndimage

Kind = Literal["dilated", "eroded", "missing", "merged"]
KINDS: tuple[Kind, ...] = ("dilated", "eroded", "missing", "merged")
KIND_SHARES = (0.4, 0.4, 0.1, 0.1)
NUM_CHANGES = (2, 7)
"""Changes of a mask: from the first number to one less than the second."""
BORDER_MM = (1.0, 4.0)
"""How far a border moves; at least one voxel."""
_DISC = ndimage.generate_binary_structure(2, 1)[None]
"""A border moves within its slice, as masks that are made slice by slice are wrong."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is wrong with one region of a mask.

    Attributes:
        kind: what happened.
        region: to which region id.
        voxels: how far its border was moved; 0 where it was not.
        into: the region that it was merged into; 0 where it was not.
    """

    kind: Kind
    region: int
    voxels: int = 0
    into: int = 0


def roughen(
    labels: UInt8[np.ndarray, "z y x"], spacing_mm: tuple[float, float, float], rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "z y x"], tuple[Change, ...]]:
    """A copy of a mask with a few random changes, and what they are, in the order in which they were made."""
    rough = labels.copy()
    present = np.array([region for region, box in enumerate(ndimage.find_objects(labels), start=1) if box is not None])
    count = min(len(present), int(rng.integers(*NUM_CHANGES)))
    changes = []
    for region in rng.permutation(present)[:count]:
        kind = KINDS[rng.choice(len(KINDS), p=KIND_SHARES)]
        voxels = max(1, round(rng.uniform(*BORDER_MM) / spacing_mm[2]))
        box = ndimage.find_objects(rough, max_label=int(region))[-1]
        if box is None:
            continue  # what was grown before has swallowed it
        changes.append(_apply(rough[_wider(box, labels.shape, voxels + 1)], int(region), kind, voxels))
    return rough, tuple(changes)


def _wider(box: tuple[slice, ...], shape: tuple[int, ...], margin: int) -> tuple[slice, ...]:
    return tuple(
        slice(max(0, part.start - margin), min(size, part.stop + margin)) for part, size in zip(box, shape, strict=True)
    )


def _apply(part: UInt8[np.ndarray, "z y x"], region: int, kind: Kind, voxels: int) -> Change:
    """Change one region in the part of the mask around it."""
    inside = part == region
    if kind == "missing":
        part[inside] = 0
        return Change(kind=kind, region=region)
    if kind == "eroded":
        part[inside & ~ndimage.binary_erosion(inside, _DISC, iterations=voxels, border_value=1)] = 0
        return Change(kind=kind, region=region, voxels=voxels)
    grown = ndimage.binary_dilation(inside, _DISC, iterations=voxels)
    if kind == "dilated":
        part[grown] = region
        return Change(kind=kind, region=region, voxels=voxels)
    around = np.bincount(part[grown & ~inside], minlength=2)
    around[[0, region] if region < len(around) else [0]] = 0
    into = int(np.argmax(around)) if around.any() else 0
    part[inside] = into
    return Change(kind=kind if into else "missing", region=region, into=into)
