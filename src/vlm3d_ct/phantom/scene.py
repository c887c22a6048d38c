"""A 2D case before it is written: a patient with one finding, and a few slices through it in one of three planes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from vlm3d_ct.phantom.acquisition import Acquisition, draw_acquisition
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.finding import Finding
from vlm3d_ct.phantom.grid import Grid, Number
from vlm3d_ct.phantom.planes import PLANES, Plane, as_pictures, positions, stack_grid
from vlm3d_ct.phantom.scan import Subject, draw_subject, paint_scan
from vlm3d_ct.seeding import random_stream

PLANE_SHARES = (0.7, 0.17, 0.13)
"""Of axial, coronal and sagittal slices."""
NEIGHBOURS = (-2, -1, 0, 1, 2)
SLICE_MM = 5.0
RENDERED_PIXELS = 256
SEARCHED_PIXELS, SEARCHED_SLICES = 80, 13
"""The coarse rendering in which the slice is looked for where the finding's centre does not show it."""
OFF_CENTRE_SHARE, LARGE_MM = 0.2, 60.0
"""How far from its centre a finding is cut, relative to its size; large ones not further than ones of ``LARGE_MM``."""
SMALLEST_LESION_MM = 10.0
SMALLEST_LESION_PIXELS = 6
"""Of the rendered slice; a finding that is smaller on it is drawn anew."""
ATTEMPTS = 50


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A stack of slices through a finding.

    Attributes:
        subject: the patient.
        finding: what the case is about.
        acquisition: how it was scanned.
        plane: of the slices.
        grid: of the stack.
        canvas: the stack without noise.
    """

    subject: Subject
    finding: Finding
    acquisition: Acquisition
    plane: Plane
    grid: Grid
    canvas: Canvas

    @property
    def position_mm(self) -> float:
        """Where the key slice is on the stack's axis."""
        return float(positions(self.plane, self.grid)[NEIGHBOURS.index(0)])

    @property
    def lesion(self) -> Bool[np.ndarray, "r c"]:
        """Where the finding is on the key slice."""
        ids = as_pictures(self.plane, self.canvas.lesions)[NEIGHBOURS.index(0)]
        return np.asarray(ids == 1 + self.subject.findings.index(self.finding))


def draw_scene(seed: int, number: int, *, hard: bool) -> Scene:
    """Patient ``number`` with a finding, on a slice that shows it; drawn anew while it is too small to be seen."""
    for attempt in range(ATTEMPTS):
        scene = _attempt(seed, number, attempt, hard)
        if scene is not None:
            return scene
    raise RuntimeError(f"patient {number} of seed {seed} shows no finding in {ATTEMPTS} attempts")


def _attempt(seed: int, number: int, attempt: int, hard: bool) -> Scene | None:
    subject = draw_subject(seed, number, attempt, smallest_mm=SMALLEST_LESION_MM, count=1, hard=hard)
    finding = next((finding for finding in subject.findings if not finding.companion), None)
    if finding is None:
        return None  # there was no room for it
    rng = random_stream(seed, number, attempt, "scene")
    acquisition = draw_acquisition(rng, subject.patient, "small", hard=hard)
    plane = PLANES[rng.choice(len(PLANES), p=PLANE_SHARES)]
    centre = finding.centre_mm[PLANES.index(plane)]
    beside = centre + rng.uniform(-1, 1) * OFF_CENTRE_SHARE * min(finding.size_mm, LARGE_MM)
    scene = _paint(subject, finding, acquisition, plane, beside)
    if not _is_seen(scene):
        scene = _paint(subject, finding, acquisition, plane, _best_position(scene, centre))
    return scene if _is_seen(scene) else None


def _is_seen(scene: Scene) -> bool:
    return int(np.count_nonzero(scene.lesion)) >= SMALLEST_LESION_PIXELS


def _paint(subject: Subject, finding: Finding, acquisition: Acquisition, plane: Plane, position_mm: Number) -> Scene:
    """The finding on a slice at this position."""
    grid = stack_grid(
        plane, acquisition, position_mm, slices=len(NEIGHBOURS), slice_mm=SLICE_MM, pixels=RENDERED_PIXELS
    )
    canvas = paint_scan(grid, subject, table=acquisition.table)
    return Scene(subject=subject, finding=finding, acquisition=acquisition, plane=plane, grid=grid, canvas=canvas)


def _best_position(scene: Scene, centre_mm: Number) -> float:
    """Where the finding is largest, by a coarse rendering around its centre."""
    subject, plane = scene.subject, scene.plane
    grid = stack_grid(
        plane, scene.acquisition, centre_mm, slices=SEARCHED_SLICES, slice_mm=SLICE_MM, pixels=SEARCHED_PIXELS
    )
    ids = as_pictures(plane, paint_scan(grid, subject).lesions)
    areas = (ids == 1 + subject.findings.index(scene.finding)).sum((1, 2))
    return float(positions(plane, grid)[np.argmax(areas)])
