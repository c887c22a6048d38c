"""Emphysema: centrilobular holes, subpleural rows of air spaces, bullae.

Fleischner glossary: centrilobular emphysema are areas of low attenuation without walls, several millimetres wide, in
the middle of lobules of the upper lobes; paraseptal emphysema is a row of air spaces with thin walls below the pleura;
a bulla is an air space of more than 1 cm with a wall of less than 1 mm. Emphysematous lung reads below -950 HU
(Gevenois et al., 1995).
"""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.finding import Finding, Kind, Severity, Situation, side_of
from vlm3d_ct.phantom.findings.lobules import lobules
from vlm3d_ct.phantom.grid import ellipsoid_depth
from vlm3d_ct.phantom.patient import Heart, Patient

BULLOUS, CENTRILOBULAR, PARASEPTAL = "bullous", "centrilobular", "paraseptal"
HOLE_HU = -985.0
BULLAE: dict[Severity, int] = {"mild": 3, "moderate": 4, "severe": 7}
BULLA_MM = (14.0, 60.0)
COARSE_BULLA_MM = (38.0, 56.0)
BULLA_WALL_MM = 0.9
BULLA_DISTANCE = 0.95
"""Distance of the other bullae's centres from the largest one's, in its diameters."""
COARSE_WALL_SHARE, COARSE_WALL_HU = 1.5, (-500.0, -50.0)
"""Of a bulla's wall on a coarse grid: thickness in voxels, bounds of the intensity."""
HOLE_MM = (5.0, 9.0)
"""Diameter of a centrilobular hole."""
HOLE_SPACING_MM = 11.0
HOLE_SHARE: dict[Severity, float] = {"mild": 0.35, "moderate": 0.65, "severe": 0.95}
PARASEPTAL_MM = (9.0, 20.0)
PARASEPTAL_WALL_MM = 1.1
PARASEPTAL_SHARE: dict[Severity, float] = {"mild": 0.4, "moderate": 0.65, "severe": 0.9}
VESSEL_LOSS = 0.55
"""Share of a vessel's contrast that is lost in the emphysematous lobe."""


def place_emphysema(situation: Situation) -> list[Finding]:
    """Emphysema, mostly of the upper lobes; on coarse grids, which only show bullae, bullous."""
    rng = situation.rng
    form = BULLOUS if situation.coarse else (BULLOUS, CENTRILOBULAR, PARASEPTAL)[rng.integers(3)]
    upper = rng.random() < 0.75
    lobes = situation.take_lobes(2 if rng.random() < 0.5 else 1, (1, 4) if upper else (1, 2, 3, 4, 5))
    severity = situation.severity()
    if form == BULLOUS:
        sizes = COARSE_BULLA_MM if situation.coarse else BULLA_MM
    else:
        sizes = HOLE_MM if form == CENTRILOBULAR else PARASEPTAL_MM
    size = float(rng.uniform(*sizes))
    groups = [(lobe,) for lobe in lobes] if form == BULLOUS else [lobes] if lobes else []
    return [
        Finding(
            abnormality="Emphysema",
            form=form,
            side=side_of(*group),
            regions=group,
            centre_mm=situation.point_near_wall(group[0]) if form == PARASEPTAL else situation.point_in(group[0], 20.0),
            size_mm=size,
            severity=severity,
            seed=situation.seed(),
        )
        for group in groups
    ]


def paint_emphysema(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """Air spaces of the finding's form."""
    painters = {BULLOUS: _paint_bullae, CENTRILOBULAR: _paint_holes, PARASEPTAL: _paint_row}
    painters[finding.form](canvas, patient, finding)


def _paint_bullae(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Dark lung, poor in vessels, and bullae with visible walls around the finding's centre."""
    rng, lobe, grid = finding.rng, finding.regions[0], canvas.grid
    box = canvas.whole()
    points = canvas.points(box, canvas.lobes == lobe)
    old = canvas.hu[points.index]
    dark = tissue.EMPHYSEMA + (1 - VESSEL_LOSS) * np.maximum(old - np.float32(patient.lung_hu + 60), 0)
    canvas.mix(points.index, np.full(len(old), 0.9, dtype=np.float32), dark)
    wall = COARSE_WALL_SHARE * grid.edge_mm if canvas.coarse else max(BULLA_WALL_MM, grid.edge_mm)
    wall_hu = finding.between(COARSE_WALL_HU) if canvas.coarse else tissue.BULLA_WALL
    for i in range(BULLAE[finding.severity]):
        aside = rng.normal(size=3)
        aside *= 0.0 if i == 0 else BULLA_DISTANCE * finding.size_mm / np.linalg.norm(aside)
        z, y, x = (c + float(step) for c, step in zip(finding.centre_mm, aside, strict=True))
        radius = finding.size_mm / 2 * (1.0 if i == 0 else rng.uniform(0.6, 1.0))
        half = canvas.visible((radius, radius, radius))
        box = grid.box_around((z, y, x), (half[0] + 4, half[1] + 4, half[2] + 4))
        part = grid.crop(box)
        if 0 in part.shape:
            continue
        depth = ellipsoid_depth(part, (z, y, x), half)
        inside = canvas.lobes[box] == lobe
        canvas.paint(box, depth, wall_hu, where=inside)
        canvas.paint(box, depth - np.float32(wall), tissue.AIR + 10, where=inside)


def _paint_holes(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Holes without walls in the middle of lobules, away from the pleura."""
    rng, box = finding.rng, canvas.whole()
    points = canvas.points(box, canvas.in_lobes(box, finding.regions) & (canvas.cavity_depth > 5))
    cells = lobules(points, rng, HOLE_SPACING_MM)
    radius = np.float32(finding.size_mm / 2) * (np.float32(0.6) + np.float32(0.5) * (cells.value * 7 % 1))
    cover = np.clip((radius - cells.centre_mm) * np.float32(0.5 / canvas.grid.edge_mm) + np.float32(0.5), 0, 1)
    canvas.mix(points.index, cover * (cells.value < HOLE_SHARE[finding.severity]), HOLE_HU)


def _paint_row(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """One row of air spaces with thin walls along the pleura."""
    rng, box, size = finding.rng, canvas.whole(), np.float32(finding.size_mm)
    edge = np.float32(1 / canvas.grid.edge_mm)
    near = canvas.in_lobes(box, finding.regions) & (canvas.cavity_depth < 0.9 * size + PARASEPTAL_WALL_MM)
    points = canvas.points(box, near)
    cells = lobules(points, rng, finding.size_mm)
    inner = np.float32(0.9) * size - canvas.cavity_depth[points.index]
    space = np.minimum(cells.septum_mm, inner) - np.float32(PARASEPTAL_WALL_MM / 2)
    affected = cells.value < PARASEPTAL_SHARE[finding.severity]
    canvas.mix(
        points.index, affected * np.clip((inner + np.float32(PARASEPTAL_WALL_MM)) * edge, 0, 1), tissue.BULLA_WALL
    )
    canvas.mix(points.index, affected * np.clip(space * edge + np.float32(0.5), 0, 1), HOLE_HU)


EMPHYSEMA = (Kind(abnormality="Emphysema", weight=1.5, place=place_emphysema, paint=paint_emphysema),)
