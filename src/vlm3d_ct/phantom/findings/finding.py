"""A finding: what is abnormal, where exactly, how large; and what is needed to place one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Triple
from vlm3d_ct.phantom.patient import Heart, Patient
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


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One lesion or device, as it is drawn, reported and listed in the truth.

    Attributes:
        abnormality: one of CT-RATE's 18 names.
        form: its kind in the words of a report, e.g. ``calcified`` or ``right paratracheal``; may be empty.
        side: the patient's side, ``none`` on the midline.
        regions: ids of the regions where it lies.
        centre_mm: (z, y, x) in the patient's frame; of a layer around the heart, the heart's centre.
        size_mm: largest diameter, or thickness of a fluid layer.
        severity: small or mild, moderate, large or severe.
        seed: of its texture and irregularities.
    """

    abnormality: str
    form: str = ""
    side: Side = "none"
    regions: tuple[int, ...]
    centre_mm: Triple
    size_mm: float
    severity: Severity
    seed: int

    @property
    def rng(self) -> np.random.Generator:
        """A fresh random stream of this finding; the same draws each time."""
        return random_stream("phantom finding", self.seed)


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What a finding is placed with.

    Attributes:
        rng: where the draws come from.
        patient: the healthy anatomy.
        scout: its trunk and lungs on a coarse grid.
        smallest_mm: diameter of the smallest lesion that the scan can show.
        taken: lobes that have a lesion already; each gets one at most, so that every lesion can be seen.
    """

    rng: np.random.Generator
    patient: Patient
    scout: Canvas
    smallest_mm: float
    taken: set[int] = field(default_factory=set)

    def seed(self) -> int:
        """A seed for a finding."""
        return int(self.rng.integers(2**62))

    def severity(self) -> Severity:
        """A random severity."""
        return SEVERITIES[self.rng.integers(3)]

    def take_lobe(self, among: tuple[int, ...] = (1, 2, 3, 4, 5)) -> int | None:
        """A random lobe that has no lesion yet, now taken; None if there is none."""
        free = [lobe for lobe in among if lobe not in self.taken]
        if not free:
            return None
        lobe = free[self.rng.integers(len(free))]
        self.taken.add(lobe)
        return lobe

    def point_in(self, lobe: int, radius_mm: float) -> Triple:
        """A random point of a lobe around which a ball of the given radius fits as well as anywhere."""
        grid, lobes = self.scout.grid, self.scout.lobes
        voxels = np.argwhere(lobes == lobe)
        candidates = voxels[self.rng.integers(len(voxels), size=48)]
        reach = np.maximum(1, np.rint(radius_mm / np.array(grid.spacing_mm))).astype(int)
        steps = np.concatenate([np.diag(reach), -np.diag(reach)])
        around = np.clip(candidates[:, None] + steps, 0, np.array(grid.shape) - 1)
        fits = (lobes[around[..., 0], around[..., 1], around[..., 2]] == lobe).sum(1)
        best = candidates[int(np.argmax(fits))]
        z, y, x = (o + s * float(i) for o, s, i in zip(grid.origin_mm, grid.spacing_mm, best, strict=True))
        return z, y, x


def side_of(lobe: int) -> Side:
    """The side that a lobe is on."""
    return "right" if lobe <= 3 else "left"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One of the abnormalities that the phantom can show.

    Attributes:
        abnormality: its name among CT-RATE's 18.
        weight: how often it is drawn, relative to the others.
        place: findings of this kind in a situation; empty where there is no room.
        paint: draws a finding on the healthy anatomy; the heart is given as it is, enlarged or not.
    """

    abnormality: str
    weight: float
    place: Callable[[Situation], list[Finding]]
    paint: Callable[[Canvas, Patient, Finding, Heart], None]
