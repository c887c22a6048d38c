"""A finding: what is abnormal, where exactly, how large; and what is needed to place one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Number, Triple
from vlm3d_ct.phantom.patient import Heart, Patient
from vlm3d_ct.phantom.pulmonary import Tree
from vlm3d_ct.seeding import random_stream

Side = Literal["left", "right", "none"]
Severity = Literal["mild", "moderate", "severe"]
SEVERITIES: tuple[Severity, ...] = ("mild", "moderate", "severe")
LOBE_NAMES = {
    1: "right upper lobe",
    2: "right middle lobe",
    3: "right lower lobe",
    4: "left upper lobe",
    5: "left lower lobe",
}

LOWER_LOBES = (3, 5)

Path = tuple[Triple, ...]
"""A polyline in mm."""
COARSEST_MM = 12.0
"""Scans whose smallest visible lesion is larger than this are coarse: findings are placed large on them."""
SUBPLEURAL_MM = 22.0
"""What lies less deep than this counts as near the pleura."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One lesion or device, as it is drawn, reported and listed in the truth.

    Attributes:
        abnormality: one of CT-RATE's 18 names.
        form: its kind in the words of a report, e.g. ``calcified`` or ``right paratracheal``; may be empty.
        side: the patient's side, ``none`` on the midline or on both sides.
        regions: ids of the regions where it lies.
        centre_mm: (z, y, x) in the patient's frame; of a layer around the heart, the heart's centre; of what is
            spread over several lobes, a point of it in the first of them.
        size_mm: largest diameter, or thickness of a layer of fluid or airless lung; of what is spread over lobes, the
            diameter of one lobule, cyst or bronchus of it.
        severity: small or mild, moderate, large or severe.
        seed: of its texture and irregularities.
        companion: whether it came with another finding, as passive atelectasis comes with an effusion.
        host: the finding whose shape it follows.
        paths: the lines that it follows: diseased airways, each from its inner to its outer end, or wires.
    """

    abnormality: str
    form: str = ""
    side: Side = "none"
    regions: tuple[int, ...]
    centre_mm: Triple
    size_mm: float
    severity: Severity
    seed: int
    companion: bool = False
    host: Finding | None = None
    paths: tuple[Path, ...] = ()

    @property
    def rng(self) -> np.random.Generator:
        """A fresh random stream of this finding; the same draws each time."""
        return random_stream("phantom finding", self.seed)

    def between(self, bounds: tuple[Number, Number]) -> float:
        """A number between these bounds that belongs to this finding: an intensity, say."""
        return float(random_stream("phantom intensity", self.seed).uniform(*bounds))


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What a finding is placed with.

    Attributes:
        rng: where the draws come from.
        patient: the healthy anatomy.
        scout: its trunk and lungs on a coarse grid.
        smallest_mm: diameter of the smallest lesion that the scan can show.
        tree: the bronchi and vessels in the lungs.
        taken: lobes that have a lesion already; each gets one kind at most, so that every lesion can be seen.
        planned: the abnormalities that the patient has or will get.
        room: the scout's lobes without what fluid or an enlarged heart push aside; lesions are placed in it.
    """

    rng: np.random.Generator
    patient: Patient
    scout: Canvas
    smallest_mm: float
    tree: Tree
    taken: set[int] = field(default_factory=set)
    planned: set[str] = field(default_factory=set)
    room: UInt8[np.ndarray, "z y x"] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "room", self.scout.lobes.copy())

    @property
    def coarse(self) -> bool:
        """Whether findings must be large and strong to be seen."""
        return self.smallest_mm > COARSEST_MM

    def seed(self) -> int:
        """A seed for a finding."""
        return int(self.rng.integers(2**62))

    def severity(self) -> Severity:
        """A random severity."""
        return SEVERITIES[self.rng.integers(3)]

    def take_lobe(self, among: tuple[int, ...] = (1, 2, 3, 4, 5)) -> int | None:
        """A random lobe that has no lesion yet, now taken; None if there is none."""
        lobes = self.take_lobes(1, among)
        return lobes[0] if lobes else None

    def take_lobes(self, count: int, among: tuple[int, ...] = (1, 2, 3, 4, 5)) -> tuple[int, ...]:
        """Up to ``count`` random lobes that have no lesion yet, now taken, in ascending order."""
        free = [lobe for lobe in among if lobe not in self.taken]
        lobes = sorted(int(lobe) for lobe in self.rng.permutation(free)[:count])
        self.taken.update(lobes)
        return tuple(lobes)

    def with_companion(self, abnormality: str, share: Number) -> bool:
        """Whether an abnormality accompanies the finding that is being placed, in this share of the cases; never if
        the patient has it anyway."""
        drawn = self.rng.random() < share
        if not drawn or abnormality in self.planned:
            return False
        self.planned.add(abnormality)
        return True

    def point_in(self, lobe: int, radius_mm: float) -> Triple:
        """A random point of a lobe around which a ball of the given radius fits as well as anywhere."""
        voxels = self._free(self.room == lobe, lobe)
        candidates = voxels[self.rng.integers(len(voxels), size=48)]
        reach = np.maximum(1, np.rint(radius_mm / np.array(self.scout.grid.spacing_mm))).astype(int)
        steps = np.concatenate([np.diag(reach), -np.diag(reach)])
        around = np.clip(candidates[:, None] + steps, 0, np.array(self.scout.grid.shape) - 1)
        fits = (self.room[around[..., 0], around[..., 1], around[..., 2]] == lobe).sum(1)
        return self._place(candidates[int(np.argmax(fits))])

    def point_near_wall(self, lobe: int) -> Triple:
        """A random point of a lobe below the costal pleura, of its lower half in a lower lobe."""
        voxels = self._free((self.room == lobe) & (self.scout.cavity_depth < SUBPLEURAL_MM), lobe)
        if lobe in LOWER_LOBES:
            voxels = voxels[: len(voxels) // 2 + 1]
        return self._place(voxels[self.rng.integers(len(voxels))])

    def front_of_cavity(self, z: Number, x: Number) -> float:
        """The y at which the thoracic cavity ends in front, at a height and a distance from the midline."""
        grid = self.scout.grid
        iz, _, ix = grid.voxel((z, 0, x))
        depth = self.scout.cavity_depth[iz, :, ix]
        inside = int(np.argmax(depth > 0))
        outside = max(inside - 1, 0)
        share = float(depth[inside] / max(depth[inside] - depth[outside], 1e-3))
        return float(grid.y[0, inside, 0]) - share * float(grid.spacing_mm[1])

    def bronchi_in(self, lobe: int, count: int) -> tuple[Path, ...]:
        """Some bronchi of a lobe, spread over it, each from the lobar bronchus, which is left out, to its end."""
        paths = self.tree.airways.paths(lobe)
        start, step = self.rng.random(), len(paths) / count
        return tuple(paths[int((start + number) * step) % len(paths)][1:] for number in range(min(count, len(paths))))

    def middle_of(self, voxels: Int64[np.ndarray, "n 3"]) -> Triple:
        """The one of these voxels of the scout that is nearest to their centre of mass."""
        return self._place(voxels[np.argmin(((voxels - voxels.mean(0)) ** 2).sum(1))])

    def _free(self, chosen: Bool[np.ndarray, "z y x"], lobe: int) -> Int64[np.ndarray, "n 3"]:
        """The chosen voxels of a lobe, all of it if there is no room left in them."""
        return np.argwhere(chosen if chosen.any() else self.scout.lobes == lobe)

    def _place(self, voxel: Int64[np.ndarray, "3"]) -> Triple:
        grid = self.scout.grid
        z, y, x = (o + s * float(i) for o, s, i in zip(grid.origin_mm, grid.spacing_mm, voxel, strict=True))
        return z, y, x


def side_of(*lobes: int) -> Side:
    """The side that lobes are on, ``none`` if they are on both."""
    sides: set[Side] = {"right" if lobe <= 3 else "left" for lobe in lobes}
    return sides.pop() if len(sides) == 1 else "none"


def severity_of(size_mm: Number, range_mm: tuple[Number, Number]) -> Severity:
    """The severity by the third of its range that a size lies in."""
    low, high = range_mm
    return SEVERITIES[min(2, max(0, int(3 * (size_mm - low) / (high - low))))]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One of the abnormalities that the phantom can show.

    Attributes:
        abnormality: its name among CT-RATE's 18.
        weight: how often it is drawn, relative to the others.
        place: findings of this kind and their companions in a situation; empty where there is no room.
        paint: draws a finding on the healthy anatomy; the heart is given as it is, enlarged or not.
        displaces: whether the lung makes room for it; such kinds are placed before the lesions of the lungs.
    """

    abnormality: str
    weight: float
    place: Callable[[Situation], list[Finding]]
    paint: Callable[[Canvas, Patient, Finding, Heart], None]
    displaces: bool = False
