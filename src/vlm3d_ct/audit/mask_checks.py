"""Whether a mask belongs to its scan: lung lies on lung, organs on tissue, right and left on their sides.

A mask of a similar patient on the very same grid cannot be told from a rough one by its voxels; a mask on another grid
is refused when it is read.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int16, UInt8

from vlm3d_ct.audit.facts import Sample
from vlm3d_ct.data.case import Case
from vlm3d_ct.errors import Problem
from vlm3d_ct.text.regions import RegionTable
from vlm3d_ct.volumes.faults import problem
from vlm3d_ct.volumes.slices import SliceStack
from vlm3d_ct.volumes.volume import RegionMask

LUNG_BELOW_HU, TISSUE_ABOVE_HU = -400, -300
SOLID_REGIONS = ("heart", "aorta", "spine", "liver and gallbladder", "spleen")
"""Regions without air; names that a region table does not have are passed over."""
MIN_LUNG_FIT, MIN_SOLID_FIT = 0.2, 0.6
"""Share of the lung regions that is lung, of the solid ones that is tissue. Good masks have at least 0.57 and 0.97."""
MIN_GAIN_OF_FLIP, MIN_FIT_OF_FLIP = 0.1, 0.75
"""A flipped mask fits better by the first and at least by the second; good masks fit worse flipped by 0.05 and more."""
MAX_CROSSING_MM = 10.0
"""The centre of the right lung lies to the right of that of the left one, by more than 100 mm in good masks."""
MIN_BACKGROUND_SHARE = 0.01
MAX_LESION_SHARE = 0.75

_AGAIN = "Make the mask again from this very volume."


def check_mask(mask: RegionMask, sample: Sample, table: RegionTable) -> Iterator[Problem]:
    """What is wrong with a region mask that is on its volume's grid and holds region ids only."""
    assert sample.labels is not None
    if not mask.labels.any():
        message = "The mask holds no region at all."
        yield problem("mask-empty", mask.source, "voxels", "0 everywhere", message, f"{_AGAIN[:-1]}, or remove it.")
        return
    background = np.count_nonzero(sample.labels == 0) / sample.labels.size
    if background < MIN_BACKGROUND_SHARE:
        message = "The mask leaves no background: air around the patient is in no region."
        remedy = "Write background as 0; ids may have been shifted by one."
        yield problem("mask-full", mask.source, "voxels", f"{100 * background:.1f} % background", message, remedy)
        return
    lobes = [region.id for region in table.regions if region.lobe is not None]
    lung = np.isin(sample.labels, lobes)
    solid = np.isin(sample.labels, [region.id for region in table.regions if region.name in SOLID_REGIONS])
    yield from _check_fit(mask, sample.voxels_hu, lung, solid)
    yield from _check_sides(mask, sample, table)


def check_lesion(case: Case, stack: SliceStack) -> Iterator[Problem]:
    """What is wrong with the lesion mask of a slice."""
    if stack.lesion is None:
        return
    share = float(stack.lesion.mean())
    shown = f"{100 * share:.1f} % of the slice"
    if share == 0:
        message, remedy = "The mask marks no lesion.", "Make the mask again, or remove it."
        yield problem("mask-empty", case.mask_paths[0], "pixels", shown, message, remedy)
    elif share > MAX_LESION_SHARE:
        message, remedy = "The lesion is nearly the whole slice.", "Invert the mask: lesions are white on black."
        yield problem("mask-full", case.mask_paths[0], "pixels", shown, message, remedy)


def _fits(hu: Int16[np.ndarray, "z y x"], lung: np.ndarray, solid: np.ndarray) -> tuple[float, float]:
    """Share of the lung regions on lung, and of the solid ones on tissue; NaN where there are none."""
    in_lung, in_solid = hu[lung], hu[solid]
    return (
        float((in_lung < LUNG_BELOW_HU).mean()) if in_lung.size else float("nan"),
        float((in_solid > TISSUE_ABOVE_HU).mean()) if in_solid.size else float("nan"),
    )


def _check_fit(
    mask: RegionMask,
    hu: Int16[np.ndarray, "z y x"],
    lung: Bool[np.ndarray, "z y x"],
    solid: Bool[np.ndarray, "z y x"],
) -> Iterator[Problem]:
    fits = _fits(hu, lung, solid)
    if np.isnan(fits).all():
        return
    flips = {"z": (0,), "y": (1,), "z and y": (0, 1)}
    flipped = {
        name: float(np.nanmean(_fits(hu, np.flip(lung, axes), np.flip(solid, axes)))) for name, axes in flips.items()
    }
    name = max(flipped, key=lambda key: flipped[key])
    own = float(np.nanmean(fits))
    shown = f"{100 * fits[0]:.0f} % of the lungs on lung, {100 * fits[1]:.0f} % of organs on tissue"
    if flipped[name] > max(own + MIN_GAIN_OF_FLIP, MIN_FIT_OF_FLIP):
        message = f"Flipped along {name} the mask fits the scan: {100 * flipped[name]:.0f} % for {100 * own:.0f} %."
        yield problem("mask-flipped", mask.source, "voxels", shown.replace("nan", "-"), message, _AGAIN)
    elif fits[0] < MIN_LUNG_FIT or fits[1] < MIN_SOLID_FIT:
        message = "The regions do not lie on their organs: this is the mask of another scan, or has other ids."
        yield problem("mask-mismatch", mask.source, "voxels", shown.replace("nan", "-"), message, _AGAIN)


def _check_sides(mask: RegionMask, sample: Sample, table: RegionTable) -> Iterator[Problem]:
    assert sample.labels is not None
    centres = []
    for side in ("right", "left"):
        ids = [region.id for region in table.regions if region.lobe is not None and region.side == side]
        columns = _per_column(sample.labels, ids)
        if not columns.any():
            return
        centres.append(float(np.average(np.arange(len(columns)), weights=columns)) * sample.spacing_mm[2])
    right_mm, left_mm = centres
    if right_mm > left_mm + MAX_CROSSING_MM:
        shown = f"{right_mm - left_mm:.0f} mm to the left"
        message = "The right lung lies to the left of the left lung: sides are swapped or the mask is mirrored."
        yield problem("mask-sides", mask.source, "right lung", shown, message, _AGAIN)


def _per_column(labels: UInt8[np.ndarray, "z y x"], ids: list[int]) -> np.ndarray:
    counts: np.ndarray = np.isin(labels, ids).sum(axis=(0, 1))
    return counts
