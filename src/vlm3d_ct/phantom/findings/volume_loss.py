"""Findings that shrink, scar or destroy lung: atelectasis, fibrotic sequela, emphysema."""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.finding import SEVERITIES, Finding, Kind, Severity, Situation, side_of
from vlm3d_ct.phantom.grid import Triple, ellipsoid_depth, unit_axes
from vlm3d_ct.phantom.patient import Heart, Patient

PLATE, COLLAPSE = "plate-like", "collapse"
COLLAPSE_MM: dict[Severity, float] = {"mild": 22.0, "moderate": 30.0, "severe": 40.0}
BULLAE: dict[Severity, int] = {"mild": 2, "moderate": 4, "severe": 7}
BANDS: dict[Severity, int] = {"mild": 2, "moderate": 4, "severe": 6}


def place_atelectasis(situation: Situation) -> list[Finding]:
    """Bands across a lobe, or the collapse of a lobe against the mediastinum."""
    form = PLATE if situation.rng.random() < 0.5 else COLLAPSE
    lobe = situation.take_lobe((2, 3, 4, 5) if form == PLATE else (1, 2, 3, 4, 5))
    if lobe is None:
        return []
    severity = situation.severity()
    size = float(situation.rng.uniform(35, 60)) if form == PLATE else COLLAPSE_MM[severity]
    centre = situation.point_in(lobe, 20.0) if form == PLATE else _collapse_centre(situation, lobe, size)
    return [_finding(situation, "Atelectasis", form, lobe, centre, size, severity)]


def _finding(
    situation: Situation, abnormality: str, form: str, lobe: int, centre: Triple, size: float, severity: Severity
) -> Finding:
    return Finding(
        abnormality=abnormality,
        form=form,
        side=side_of(lobe),
        regions=(lobe,),
        centre_mm=centre,
        size_mm=size,
        severity=severity,
        seed=situation.seed(),
    )


def _collapse_depth(canvas: Canvas, box: tuple[slice, slice, slice], lobe: int, size_mm: float) -> np.ndarray:
    """Depth inside a layer of a lobe that lies against the mediastinum; in lower lobes it narrows towards the front."""
    part = canvas.grid.crop(box)
    distance = -canvas.mediastinum_depth[box]
    limit = np.full_like(distance, size_mm)
    if lobe in (3, 5):
        limit = limit * np.clip((part.y + 5) / 45, 0, 1)
    elif lobe in (1, 4):
        limit = limit * np.clip((part.z - 5) / 30, 0, 1)
    return np.asarray(limit - distance)


def _collapse_centre(situation: Situation, lobe: int, size_mm: float) -> Triple:
    """The voxel of the collapsed layer that is nearest to its centre of mass."""
    scout = situation.scout
    depth = _collapse_depth(scout, scout.whole(), lobe, size_mm)
    voxels = np.argwhere((depth > 0) & (scout.lobes == lobe))
    nearest = voxels[np.argmin(((voxels - voxels.mean(0)) ** 2).sum(1))]
    grid = scout.grid
    z, y, x = (o + s * float(i) for o, s, i in zip(grid.origin_mm, grid.spacing_mm, nearest, strict=True))
    return z, y, x


def paint_atelectasis(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """Dense plates across the lobe, or an airless layer against the mediastinum."""
    lobe = finding.regions[0]
    if finding.form == COLLAPSE:
        box = canvas.whole()
        depth = _collapse_depth(canvas, box, lobe, finding.size_mm)
        canvas.paint(box, depth, tissue.COLLAPSED_LUNG, where=canvas.lobes[box] == lobe)
        return
    rng = finding.rng
    count = 1 + SEVERITIES.index(finding.severity)
    normal = (rng.normal() * 0.2, 1.0, rng.normal() * 0.35)
    for i in range(count):
        offset = (i - (count - 1) / 2) * 22
        centre = (finding.centre_mm[0], finding.centre_mm[1] + offset, finding.centre_mm[2])
        _plate(canvas, finding, centre, normal, thickness_mm=5.0, hu=tissue.COLLAPSED_LUNG)


def _plate(canvas: Canvas, finding: Finding, centre: Triple, normal: Triple, *, thickness_mm: float, hu: float) -> None:
    """A flat round body within the finding's lobe, upright so that thick slices do not swallow it."""
    grid, half = canvas.grid, finding.size_mm / 2
    thin = max(thickness_mm / 2, grid.edge_mm)
    box = grid.box_around(centre, (half + 4,) * 3)
    part = grid.crop(box)
    if 0 in part.shape:
        return
    depth = ellipsoid_depth(part, centre, (thin, half, half), unit_axes(normal))
    depth = depth * np.float32(thin / (thin * half * half) ** (1 / 3))
    canvas.paint(box, np.asarray(depth) + np.float32(0.3 * thin), hu, where=canvas.lobes[box] == finding.regions[0])


def place_scar(situation: Situation) -> list[Finding]:
    """Bands, mostly in an upper lobe."""
    lobe = situation.take_lobe((1, 4) if situation.rng.random() < 0.7 else (1, 2, 3, 4, 5))
    if lobe is None:
        return []
    size = float(situation.rng.uniform(35, 55))
    point = situation.point_in(lobe, 15.0)
    return [_finding(situation, "Pulmonary fibrotic sequela", "", lobe, point, size, situation.severity())]


def paint_scar(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """Thin bands in all directions that cross each other, with grains of calcium."""
    rng = finding.rng
    for i in range(BANDS[finding.severity]):
        z, y, x = (c + 7 * rng.normal() for c in finding.centre_mm)
        angle = np.pi * (i + rng.uniform(0, 0.6)) / BANDS[finding.severity]
        normal = (0.25 * rng.normal(), float(np.cos(angle)), float(np.sin(angle)))
        _plate(canvas, finding, (z, y, x), normal, thickness_mm=3.0, hu=tissue.SCAR)
        grain = canvas.grid.at_least_visible((2.0, 2.0, 2.0), share=0.6)
        canvas.ellipsoid((z, y, x), grain, tissue.CALCIFIED_NODULE, within=(finding.regions[0],))


def place_emphysema(situation: Situation) -> list[Finding]:
    """Emphysema with bullae in one lobe, or in both upper lobes."""
    severity = situation.severity()
    lobes: list[int] = []
    if situation.rng.random() < 0.4 and not situation.taken & {1, 4}:
        situation.taken.update((1, 4))
        lobes = [1, 4]
    elif (lobe := situation.take_lobe((1, 4) if situation.rng.random() < 0.6 else (1, 2, 3, 4, 5))) is not None:
        lobes = [lobe]
    size = float(situation.rng.uniform(max(24.0, 1.6 * situation.smallest_mm), 44.0))
    return [
        _finding(situation, "Emphysema", "bullous", lobe, situation.point_in(lobe, 20.0), size, severity)
        for lobe in lobes
    ]


def paint_emphysema(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """Lung darker than lung and poor in vessels, and bullae with visible walls around the finding's centre."""
    rng, lobe, grid = finding.rng, finding.regions[0], canvas.grid
    where = canvas.lobes == lobe
    canvas.hu[where] += np.float32(0.8) * (np.float32(tissue.EMPHYSEMA) - canvas.hu[where])
    wall = max(1.5, 1.7 * grid.edge_mm)
    for i in range(BULLAE[finding.severity]):
        spread = 0.0 if i == 0 else 0.75 * finding.size_mm
        z, y, x = (c + spread * rng.normal() for c in finding.centre_mm)
        radius = finding.size_mm / 2 * (1.0 if i == 0 else rng.uniform(0.6, 1.0))
        half = grid.at_least_visible((radius, radius, radius))
        box = grid.box_around((z, y, x), (half[0] + 4, half[1] + 4, half[2] + 4))
        part = grid.crop(box)
        if 0 in part.shape:
            continue
        depth = ellipsoid_depth(part, (z, y, x), half)
        inside = canvas.lobes[box] == lobe
        canvas.paint(box, depth, tissue.BULLA_WALL, where=inside)
        canvas.paint(box, depth - np.float32(wall), tissue.AIR + 10, where=inside)


VOLUME_LOSS = (
    Kind(abnormality="Emphysema", weight=1.0, place=place_emphysema, paint=paint_emphysema),
    Kind(abnormality="Pulmonary fibrotic sequela", weight=1.0, place=place_scar, paint=paint_scar),
    Kind(abnormality="Atelectasis", weight=1.4, place=place_atelectasis, paint=paint_atelectasis),
)
