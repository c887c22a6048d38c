"""Findings that fill lung: nodules, consolidation, ground glass."""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.finding import Finding, Kind, Severity, Situation, side_of
from vlm3d_ct.phantom.grid import Triple, ellipsoid_depth, texture
from vlm3d_ct.phantom.patient import Heart, Patient
from vlm3d_ct.phantom.pulmonary import HILA

LARGEST_NODULE_MM = 30.0


def _by_size(size_mm: float, moderate_mm: float, severe_mm: float) -> Severity:
    return "mild" if size_mm < moderate_mm else "moderate" if size_mm < severe_mm else "severe"


def _in_lobe(situation: Situation, abnormality: str, form: str, sizes: tuple[float, float]) -> list[Finding]:
    lobe = situation.take_lobe()
    if lobe is None:
        return []
    size = float(situation.rng.uniform(*sizes))
    third = (sizes[1] - sizes[0]) / 3
    return [
        Finding(
            abnormality=abnormality,
            form=form,
            side=side_of(lobe),
            regions=(lobe,),
            centre_mm=situation.point_in(lobe, 0.4 * size),
            size_mm=size,
            severity=_by_size(size, sizes[0] + third, sizes[1] - third),
            seed=situation.seed(),
        )
    ]


def place_nodules(situation: Situation) -> list[Finding]:
    """One nodule, sometimes two in different lobes."""
    found = []
    for _ in range(2 if situation.rng.random() < 0.3 else 1):
        form = "calcified" if situation.rng.random() < 0.3 else "solid"
        found += _in_lobe(situation, "Lung nodule", form, (situation.smallest_mm, LARGEST_NODULE_MM))
    return found


def paint_nodule(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """A ball with a slightly lobulated edge."""
    radius = finding.size_mm / 2
    half = canvas.grid.at_least_visible((radius, radius, radius))
    box = canvas.grid.box_around(finding.centre_mm, (half[0] * 1.2, half[1] * 1.2, half[2] * 1.2))
    part = canvas.grid.crop(box)
    if 0 in part.shape:
        return
    depth = ellipsoid_depth(part, finding.centre_mm, half) + 0.06 * radius * texture(part, finding.rng, 1.2 * radius)
    hu = tissue.CALCIFIED_NODULE if finding.form == "calcified" else tissue.NODULE
    canvas.paint(box, depth, hu, where=canvas.lobes[box] == finding.regions[0])


def place_consolidation(situation: Situation) -> list[Finding]:
    """A consolidation of 40 to 75 mm."""
    return _in_lobe(situation, "Consolidation", "", (40.0, 75.0))


def paint_consolidation(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """An irregular dense area with air bronchograms that point to the hilum."""
    rng = finding.rng
    box, depth = _patch(canvas, finding, rng)
    if 0 in depth.shape:
        return
    where = canvas.lobes[box] == finding.regions[0]
    canvas.paint(box, depth, tissue.CONSOLIDATION, where=where)
    hilum = HILA[finding.side]
    for _ in range(3):
        spread = rng.normal(size=3) * 0.15 * finding.size_mm
        z, y, x = (c + s for c, s in zip(finding.centre_mm, spread, strict=True))
        inner: Triple = (z + 0.3 * (hilum[0] - z), y + 0.3 * (hilum[1] - y), x + 0.3 * (hilum[2] - x))
        canvas.rod([inner, (z, y, x)], 1.6, tissue.LUNG, within=(finding.regions[0],))


def place_opacity(situation: Situation) -> list[Finding]:
    """Ground glass of 60 to 100 mm."""
    return _in_lobe(situation, "Lung opacity", "", (60.0, 100.0))


def paint_opacity(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """A hazy area with denser patches in it."""
    rng = finding.rng
    box, depth = _patch(canvas, finding, rng)
    if 0 in depth.shape:
        return
    part = canvas.grid.crop(box)
    coarse = max(16.0, 3 * part.spacing_mm[0])
    dense = np.clip(texture(part, rng, coarse) * np.float32(0.9) + np.float32(0.25), 0, 1)
    hu = tissue.GROUND_GLASS + dense * np.float32(tissue.GROUND_GLASS_PATCH - tissue.GROUND_GLASS)
    canvas.paint(box, depth, np.asarray(hu), where=canvas.lobes[box] == finding.regions[0])


def _patch(canvas: Canvas, finding: Finding, rng: np.random.Generator) -> tuple[tuple[slice, slice, slice], np.ndarray]:
    """A box and the depth inside an irregular blob in it."""
    radius = finding.size_mm / 2
    shape = rng.uniform(0.75, 1.0, size=3)
    half = canvas.grid.at_least_visible((radius * shape[0], radius * shape[1], radius * shape[2]))
    box = canvas.grid.box_around(finding.centre_mm, (half[0] * 1.35, half[1] * 1.35, half[2] * 1.35))
    part = canvas.grid.crop(box)
    blob = ellipsoid_depth(part, finding.centre_mm, half)
    return box, blob + np.float32(0.16 * radius) * texture(part, rng, 1.1 * radius)


PARENCHYMA = (
    Kind(abnormality="Lung nodule", weight=2.0, place=place_nodules, paint=paint_nodule),
    Kind(abnormality="Consolidation", weight=1.5, place=place_consolidation, paint=paint_consolidation),
    Kind(abnormality="Lung opacity", weight=1.3, place=place_opacity, paint=paint_opacity),
)
