"""Faults that only the voxels of a whole scan show: values that are no HU, slices out of order, no lung.

Every threshold lies far from what good scans have; the figures beside them are the extremes over phantoms of all kinds
and three real scans, one of them an abdomen.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32

from vlm3d_ct.audit.facts import BODY_HU, SOFT_HU, Sample
from vlm3d_ct.data.case import Case
from vlm3d_ct.errors import Problem
from vlm3d_ct.volumes.faults import problem
from vlm3d_ct.volumes.volume import Volume

NOT_HU = "not-hu"
"""Code of the problem of voxels that are no Hounsfield units."""
FREE_AIR_HU = (-1100, -500)
MIN_AIR_SHARE, MIN_BODY_SHARE, MIN_SOFT_SHARE = 0.02, 0.02, 0.3
"""Good scans have at least 0.34, 0.16, and 0.75 (of the body)."""
MIN_EXTENT_MM = 40.0
"""A chest CT is longer than this along every axis."""
DEFAULT_SPACING_MATRIX = 512
"""A scan of this matrix with voxels of exactly 1 mm has the spacing of an empty header, not its own."""
SPACING_TOLERANCE = 0.02
MIN_LUNG_ML = 100.0
"""Whole chests have at least 1,500, crops of real scans 250."""
MIN_SLICES_TO_ORDER = 8
NEAR_SLICES = 2
MIN_ORDERED_SHARE = 0.5
"""Share of the slices whose most similar slice is at most two away: 1.0 in good scans."""

_HU_REMEDY = "Convert the scan again, and apply slope and intercept exactly once."
_CONVERT = "Convert the scan again from its DICOM series."


def check_volume(case: Case, volume: Volume, sample: Sample, lung_ml: float) -> Iterator[Problem]:
    """What is wrong with the voxels and the extent of a scan that was read without complaint."""
    wrong_values = list(_check_values(volume, sample))
    yield from wrong_values
    yield from _check_extent(case, volume)
    yield from _check_slices(volume)
    if case.shows_chest and not wrong_values and lung_ml < MIN_LUNG_ML:
        message = f"There is hardly any lung: less than {MIN_LUNG_ML:g} ml with air in it."
        remedy = "If this is no chest CT, leave it out; if it is one, look at the scan."
        yield problem("no-lung", volume.source, "voxels", f"{lung_ml:.0f} ml of lung", message, remedy)


def _check_values(volume: Volume, sample: Sample) -> Iterator[Problem]:
    hu = sample.voxels_hu
    air = _share((hu > FREE_AIR_HU[0]) & (hu < FREE_AIR_HU[1]))
    body = _share(hu > BODY_HU)
    if air < MIN_AIR_SHARE:
        message = f"Hardly any voxel has the value of air or lung ({FREE_AIR_HU[0]}..{FREE_AIR_HU[1]} HU)."
        yield problem(NOT_HU, volume.source, "voxels", f"{100 * air:.1f} % air", message, _HU_REMEDY)
    elif body < MIN_BODY_SHARE:
        message = f"Hardly any voxel has the value of tissue (above {BODY_HU} HU): there is no body."
        yield problem(NOT_HU, volume.source, "voxels", f"{100 * body:.1f} % tissue", message, _HU_REMEDY)
    elif (soft := _share((hu > SOFT_HU[0]) & (hu < SOFT_HU[1])) / body) < MIN_SOFT_SHARE:
        message = f"Most of the body has not the value of fat, muscle or organs ({SOFT_HU[0]}..{SOFT_HU[1]} HU)."
        yield problem(NOT_HU, volume.source, "voxels", f"{100 * soft:.1f} % of the body", message, _HU_REMEDY)


def _check_extent(case: Case, volume: Volume) -> Iterator[Problem]:
    shape, spacing = volume.voxels_hu.shape, volume.spacing_mm
    extent = [size * mm for size, mm in zip(shape, spacing, strict=True)]
    if min(extent) < MIN_EXTENT_MM:
        shown = " x ".join(f"{mm:.0f}" for mm in extent) + f" mm, {shape[0]} slices"
        message = f"The scan (z, y, x) is thinner than {MIN_EXTENT_MM:g} mm along an axis."
        remedy = "Leave out scouts and fragments, or convert the whole series."
        yield problem("short-scan", volume.source, "extent", shown, message, remedy)
    if spacing == (1.0, 1.0, 1.0) and min(shape[1:]) >= DEFAULT_SPACING_MATRIX:
        message = f"Voxels of exactly 1 mm at a matrix of {shape[2]}x{shape[1]}: the header was never filled in."
        yield problem("spacing-default", volume.source, "spacing", "1 x 1 x 1 mm", message, _CONVERT)
    stated = None if case.stored is None else case.stored.spacing_mm
    if case.stored is not None and stated is not None and not np.allclose(stated, spacing, rtol=SPACING_TOLERANCE):
        shown = f"{_mm(spacing)} for {_mm(stated)} of {case.stored.table.name}"
        message = "The header's spacing is not that of the metadata table."
        remedy = "Find out which is right; correct the header, or the row of the table."
        yield problem("spacing-metadata", volume.source, "spacing", shown, message, remedy)


def _check_slices(volume: Volume) -> Iterator[Problem]:
    """Slices that are blank, there twice, or not in their order."""
    voxels = volume.voxels_hu
    blank = (voxels.max(axis=(1, 2)) == voxels.min(axis=(1, 2))).nonzero()[0]
    filled = np.setdiff1d(np.arange(len(voxels)), blank)
    inside = blank[(blank > filled[0]) & (blank < filled[-1])]
    if len(inside):
        message = "Slices within the scan are blank."
        yield problem("blank-slices", volume.source, _slices(inside), f"{len(inside)} slices", message, _CONVERT)
    neighbours = filled[:-1][np.diff(filled) == 1]
    same = np.array([z for z in neighbours if np.array_equal(voxels[z], voxels[z + 1])], dtype=np.int64)
    if len(same):
        message = "Slices are equal to the next one to the last bit; noise makes that impossible."
        yield problem("repeated-slices", volume.source, _slices(same), f"{len(same)} slices", message, _CONVERT)
    elif len(filled) >= MIN_SLICES_TO_ORDER:
        ordered = _ordered_share(volume)
        if ordered < MIN_ORDERED_SHARE:
            message = "Slices are not in the order of their position: most resemble slices far away most."
            shown = f"{100 * ordered:.0f} % resemble a neighbour"
            yield problem("slice-order", volume.source, "slices", shown, message, _CONVERT)


def _ordered_share(volume: Volume) -> float:
    """Share of the slices whose most similar slice is at most `NEAR_SLICES` away."""
    step = max(1, min(volume.voxels_hu.shape[1:]) // 32)
    thin = np.clip(volume.voxels_hu[:, ::step, ::step], -1000, 300).astype(np.float32)
    flat: Float32[np.ndarray, "z n"] = thin.reshape(len(thin), -1)
    flat = flat - flat.mean(axis=0)
    lengths = (flat**2).sum(axis=1)
    distances = lengths[:, None] + lengths[None] - 2 * flat @ flat.T
    np.fill_diagonal(distances, np.inf)
    return _share(np.abs(distances.argmin(axis=1) - np.arange(len(flat))) <= NEAR_SLICES)


def _share(chosen: np.ndarray) -> float:
    return float(np.count_nonzero(chosen) / chosen.size)


def _slices(places: np.ndarray) -> str:
    shown = ", ".join(str(int(z)) for z in places[:8])
    return f"slices {shown}" + (", ..." if len(places) > 8 else "")


def _mm(numbers: tuple[float, float, float]) -> str:
    return "(" + ", ".join(f"{number:.3g}" for number in numbers) + ") mm"
