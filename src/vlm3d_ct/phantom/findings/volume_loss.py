"""Atelectasis: plates, collapse against the mediastinum, and airless lung on an effusion."""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.effusions import passive_depth
from vlm3d_ct.phantom.findings.finding import SEVERITIES, Finding, Kind, Severity, Situation, side_of
from vlm3d_ct.phantom.grid import Box, Field, Number, Triple, ellipsoid_depth, unit_axes
from vlm3d_ct.phantom.patient import Heart, Patient

PLATE, COLLAPSE, PASSIVE = "plate-like", "collapse", "passive"
PLATE_MM = (35.0, 60.0)
COARSE_PLATE_MM = (50.0, 70.0)
PLATE_THICKNESS_MM, COARSE_PLATE_THICKNESS_MM = 4.0, 13.0
"""Plates are 2 to 10 mm thick (Fleischner glossary: linear atelectasis)."""
COLLAPSE_MM: dict[Severity, float] = {"mild": 22.0, "moderate": 30.0, "severe": 40.0}


def place_atelectasis(situation: Situation) -> list[Finding]:
    """Plates across a lobe, or the collapse of a lobe against the mediastinum."""
    form = PLATE if situation.rng.random() < 0.5 else COLLAPSE
    lobe = situation.take_lobe((2, 3, 4, 5) if form == PLATE else (1, 2, 3, 4, 5))
    if lobe is None:
        return []
    severity = situation.severity()
    sizes = COARSE_PLATE_MM if situation.coarse else PLATE_MM
    size = float(situation.rng.uniform(*sizes)) if form == PLATE else COLLAPSE_MM[severity]
    return [
        Finding(
            abnormality="Atelectasis",
            form=form,
            side=side_of(lobe),
            regions=(lobe,),
            centre_mm=situation.point_in(lobe, 20.0) if form == PLATE else _collapse_centre(situation, lobe, size),
            size_mm=size,
            severity=severity,
            seed=situation.seed(),
        )
    ]


def _collapse_depth(canvas: Canvas, box: Box, lobe: int, size_mm: float) -> Field:
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
    """The middle of the collapsed layer."""
    scout = situation.scout
    depth = _collapse_depth(scout, scout.whole(), lobe, size_mm)
    return situation.middle_of(np.argwhere((depth > 0) & (scout.lobes == lobe)))


def paint_atelectasis(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """Dense plates across the lobe, or an airless layer against the mediastinum or the fluid."""
    lobe = finding.regions[0]
    if finding.form == PLATE:
        _paint_plates(canvas, finding)
        return
    box = canvas.whole()
    if finding.form == PASSIVE:
        depth = passive_depth(canvas, box, patient, finding)
    else:
        depth = _collapse_depth(canvas, box, lobe, finding.size_mm)
    canvas.paint(box, depth, tissue.COLLAPSED_LUNG, where=canvas.lobes[box] == lobe)


def _paint_plates(canvas: Canvas, finding: Finding) -> None:
    rng, count = finding.rng, 1 + SEVERITIES.index(finding.severity)
    tilt = 0.2 if canvas.coarse else 0.7
    normal = (tilt * rng.normal(), 1.0, 0.35 * rng.normal())
    thickness = COARSE_PLATE_THICKNESS_MM if canvas.coarse else PLATE_THICKNESS_MM * rng.uniform(0.6, 1.4)
    for i in range(count):
        offset = (i - (count - 1) / 2) * 22
        z, y, x = finding.centre_mm
        centre = (z, y + offset, x)
        plate(canvas, finding, centre, normal, finding.size_mm, thickness_mm=thickness, hu=tissue.COLLAPSED_LUNG)


def plate(
    canvas: Canvas,
    finding: Finding,
    centre: Triple,
    normal: Triple,
    length_mm: Number,
    *,
    thickness_mm: Number,
    hu: Number,
) -> None:
    """Paint a flat round body within the finding's lobe."""
    grid, half = canvas.grid, length_mm / 2
    thin = max(thickness_mm / 2, 0.6 * grid.edge_mm)
    box = grid.box_around(centre, (half + 4,) * 3)
    part = grid.crop(box)
    if 0 in part.shape:
        return
    depth = ellipsoid_depth(part, centre, (thin, half, half), unit_axes(normal))
    depth = depth * np.float32(thin / (thin * half * half) ** (1 / 3))
    canvas.paint(box, np.asarray(depth), hu, where=canvas.lobes[box] == finding.regions[0])


VOLUME_LOSS = (Kind(abnormality="Atelectasis", weight=1.2, place=place_atelectasis, paint=paint_atelectasis),)
