"""HU of phantom tissues against the same tissues of real scans.

A real scan is one patient, a phantom cohort is many. The mean of the real scans that show a tissue is compared with the
mean of the cohort, and the spread within a tissue likewise. Blood is as bright as the contrast medium makes it: the
heart is compared with that of the phantoms whose blood, in the aorta and in the chambers, is nearest to the scan's: the
bolus reaches the right and the left heart at different times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int16, UInt8
from scipy import ndimage

from phantom.cases import DrawnCase, for_each_case, healthy_scan
from vlm3d_ct.volumes.nifti import read_mask, read_volume

MEAN_LIMIT_HU, SPREAD_LIMIT = 30.0, 2.0
NEAREST = 8
"""Phantoms whose hearts are compared with a scan's."""
FEWEST_VOXELS = 300
LUNG_HU, FAT_HU, MUSCLE_HU = (-1010, -500), (-160, -50), (-30, 130)
AIR_HU, LEAST_LUNG = -960, 0.03
"""Below this mean is air; pieces of less than this share of the scan are left out."""
Ids = UInt8[np.ndarray, "z y x"]
Voxels = Int16[np.ndarray, "z y x"]
Where = Bool[np.ndarray, "z y x"]


@dataclass(frozen=True)
class Level:
    """Mean, standard deviation and upper quartile of a tissue in HU."""

    mean_hu: float
    spread_hu: float
    upper_hu: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One tissue: real scans and phantoms.

    Attributes:
        tissue: its name.
        scans: how many real scans show it.
        phantoms: with how many phantoms they are compared.
        real, drawn: means over the scans and over the phantoms.
        range_hu: of the phantoms' means, from the 5th to the 95th percentile.
    """

    tissue: str
    scans: int
    phantoms: int
    real: Level
    drawn: Level
    range_hu: tuple[float, float]

    @property
    def difference_hu(self) -> float:
        """Of the means."""
        return self.drawn.mean_hu - self.real.mean_hu

    @property
    def spread_factor(self) -> float:
        """The larger spread by the smaller one."""
        return max(self.drawn.spread_hu, self.real.spread_hu) / min(self.drawn.spread_hu, self.real.spread_hu)


def level(voxels_hu: Voxels, inside: Where, edge: int = 1) -> Level | None:
    """Of the voxels inside, their rim of ``edge`` voxels left out; None where hardly any are left."""
    core = ndimage.binary_erosion(inside, iterations=edge)
    if np.count_nonzero(core) < FEWEST_VOXELS:
        return None
    found = voxels_hu[core].astype(np.float64)
    return Level(float(found.mean()), float(found.std()), float(np.percentile(found, 75)))


def within(voxels_hu: Voxels, bounds: tuple[int, int]) -> Where:
    """Where the intensity is within bounds."""
    return np.asarray((voxels_hu > bounds[0]) & (voxels_hu < bounds[1]))


def fat(voxels_hu: Voxels) -> Where:
    """Fat has no id anywhere: by its range, in solid pieces."""
    return np.asarray(ndimage.binary_opening(within(voxels_hu, FAT_HU)))


def lung(voxels_hu: Voxels) -> Where:
    """Lung by its range, in large pieces that are no plain air."""
    parts, count = ndimage.label(ndimage.binary_opening(within(voxels_hu, LUNG_HU)))
    numbers = np.arange(1, count + 1)
    means = ndimage.mean(voxels_hu, parts, numbers)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    return np.isin(parts, numbers[(means > AIR_HU) & (sizes > LEAST_LUNG * voxels_hu.size)])


PHANTOM_IDS = {"lung": (1, 2, 3, 4, 5), "heart": (8,), "aorta": (10,), "vertebrae": (15,), "muscle": (17,)}
REAL_IDS = {"heart": (51,), "aorta": (52,), "vertebrae": tuple(range(26, 51)), "muscle": (86, 87)}
"""Of TotalSegmentator; muscle is that beside the spine."""


def phantom_levels(case: DrawnCase) -> dict[str, Level | None]:
    """Levels of the tissues of a phantom's healthy twin."""
    scan = healthy_scan(case)
    voxels, ids = scan.voxels_hu, scan.labels
    found: dict[str, Where] = {tissue: np.isin(ids, numbers) for tissue, numbers in PHANTOM_IDS.items()}
    found["lung"] = found["lung"] & within(voxels, LUNG_HU)
    middle = int(np.argwhere(found["vertebrae"])[:, 1].mean())
    found["muscle"][:, :middle] = False
    found["muscle"] &= within(voxels, MUSCLE_HU)
    found["fat"] = fat(voxels)
    return {tissue: level(voxels, inside) for tissue, inside in found.items()}


def real_levels(folder: Path) -> list[dict[str, Level | None]]:
    """Levels of the tissues of the scans in the folder of real data."""
    scans = []
    for name, ids_name in (
        ("chest_right_ct", None),
        ("thorax_cta", "thorax_cta_totalsegmentator_ids"),
        ("abdomen_small_ct", "abdomen_small_totalsegmentator_ids"),
    ):
        volume = read_volume(folder / f"{name}.nii.gz")
        voxels = volume.voxels_hu
        found: dict[str, Where] = {"fat": fat(voxels)}
        if name == "chest_right_ct":
            mask = read_mask(folder / "chest_right_lung_mask.nii.gz", like=volume).labels
            found["lung"] = (mask == 1) & within(voxels, LUNG_HU)
        elif name == "thorax_cta":
            found["lung"] = lung(voxels)
        if ids_name is not None:
            ids = read_mask(folder / f"{ids_name}.nii.gz", like=volume, max_label=255).labels
            found |= {tissue: np.isin(ids, numbers) for tissue, numbers in REAL_IDS.items()}
        scans.append({tissue: level(voxels, inside) for tissue, inside in found.items()})
    return scans


def measure(folder: Path, seed: int, count: int) -> list[Comparison]:
    """Compare all tissues with ``count`` phantoms of the fine grid, half of them in the arterial phase."""
    drawn = [
        levels
        for arterial in (False, True)
        for levels in for_each_case(phantom_levels, seed, "fine", count // 2, "Tissues", arterial=arterial)
    ]
    real = real_levels(folder)
    return [compare(tissue, real, drawn) for tissue in ("lung", "heart", "vertebrae", "muscle", "fat")]


def compare(
    tissue: str, real: Sequence[dict[str, Level | None]], drawn: Sequence[dict[str, Level | None]]
) -> Comparison:
    """One tissue; the heart with the phantoms whose blood is nearest: the upper quartiles of aorta and heart."""
    scans = [scan for scan in real if scan.get(tissue) is not None]
    chosen = list(drawn)
    if tissue == "heart":
        chosen = [nearest for scan in scans for nearest in _nearest(scan, drawn)]
    levels = [found for case in chosen if (found := case[tissue]) is not None]
    means = [found.mean_hu for found in levels]
    return Comparison(
        tissue=tissue,
        scans=len(scans),
        phantoms=len(levels),
        real=_mean([found for scan in scans if (found := scan[tissue]) is not None]),
        drawn=_mean(levels),
        range_hu=(float(np.percentile(means, 5)), float(np.percentile(means, 95))),
    )


def _nearest(
    scan: dict[str, Level | None], drawn: Sequence[dict[str, Level | None]]
) -> Sequence[dict[str, Level | None]]:
    if scan.get("aorta") is None:
        return []

    def distance(case: dict[str, Level | None]) -> float:
        pairs = [(case[place], scan.get(place)) for place in ("aorta", "heart")]
        return sum(
            float("inf") if own is None or other is None else abs(own.upper_hu - other.upper_hu) for own, other in pairs
        )

    return sorted(drawn, key=distance)[:NEAREST]


def _mean(levels: Sequence[Level]) -> Level:
    table = np.array([(found.mean_hu, found.spread_hu, found.upper_hu) for found in levels])
    mean, spread, upper = (float(number) for number in table.mean(0))
    return Level(mean, spread, upper)
