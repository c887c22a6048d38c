"""Pulmonary fibrotic sequela: bands with grains of calcium, and reticulation with traction bronchiectasis.

Fleischner glossary: parenchymal bands are linear opacities 1 to 3 mm thick and up to 5 cm long that reach the pleura;
reticulation is a network of small lines, with fibrosis mostly below the pleura of the lung bases, where dilated
bronchi and honeycombing (cysts of 3 to 10 mm in rows) follow.
"""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.bronchi import traction_bronchiectasis
from vlm3d_ct.phantom.findings.finding import LOWER_LOBES, Finding, Kind, Severity, Situation, side_of
from vlm3d_ct.phantom.findings.lobules import lobules
from vlm3d_ct.phantom.findings.volume_loss import plate
from vlm3d_ct.phantom.patient import Heart, Patient

BANDS, RETICULAR = "bands", "reticular"
BAND_COUNT: dict[Severity, int] = {"mild": 3, "moderate": 5, "severe": 7}
BAND_MM, COARSE_BAND_MM = (30.0, 50.0), (55.0, 75.0)
BAND_THICKNESS_MM, COARSE_BAND_THICKNESS_MM = 2.2, 10.0
COARSE_SCAR_HU = 20.0
RETICULAR_MM, COARSE_RETICULAR_MM = (5.0, 9.0), (20.0, 26.0)
"""Diameter of the meshes."""
LINE_MM, COARSE_LINE_MM = 1.1, 9.0
LINE_HU, COARSE_LINE_HU = (-200.0, 20.0), (-450.0, -50.0)
GLASS_HU = -680.0
"""Fibrosis too fine to be resolved, between the lines."""
CYST_HU = -930.0
REACH_MM: dict[Severity, float] = {"mild": 14.0, "moderate": 24.0, "severe": 36.0}
"""How far below the pleura the network reaches at the base."""
COARSE_REACH_MM = 34.0
HEIGHT_MM = 130.0
"""Height above the diaphragm at which the network ends."""


def place_fibrosis(situation: Situation) -> list[Finding]:
    """Bands in one lobe, mostly an upper one, or a network in one or both lower lobes with traction bronchiectasis."""
    rng = situation.rng
    lower = [lobe for lobe in LOWER_LOBES if lobe not in situation.taken]
    if lower and rng.random() < 0.5:
        return _place_network(situation)
    lobe = situation.take_lobe((1, 4) if rng.random() < 0.7 else (1, 2, 3, 4, 5))
    if lobe is None:
        return []
    size = float(rng.uniform(*(COARSE_BAND_MM if situation.coarse else BAND_MM)))
    return [_finding(situation, BANDS, (lobe,), size)]


def _place_network(situation: Situation) -> list[Finding]:
    lobes = situation.take_lobes(2 if situation.rng.random() < 0.75 else 1, LOWER_LOBES)
    size = float(situation.rng.uniform(*(COARSE_RETICULAR_MM if situation.coarse else RETICULAR_MM)))
    network = _finding(situation, RETICULAR, lobes, size)
    if not situation.with_companion("Bronchiectasis", 0.8):
        return [network]
    return [network, traction_bronchiectasis(situation, network)]


def _finding(situation: Situation, form: str, lobes: tuple[int, ...], size_mm: float) -> Finding:
    return Finding(
        abnormality="Pulmonary fibrotic sequela",
        form=form,
        side=side_of(*lobes),
        regions=lobes,
        centre_mm=situation.point_near_wall(lobes[0]) if form == RETICULAR else situation.point_in(lobes[0], 15.0),
        size_mm=size_mm,
        severity=situation.severity(),
        seed=situation.seed(),
    )


def paint_fibrosis(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """The bands or the network."""
    if finding.form == RETICULAR:
        _paint_network(canvas, patient, finding)
    else:
        _paint_bands(canvas, finding)


def _paint_bands(canvas: Canvas, finding: Finding) -> None:
    """Thin bands in all directions that cross each other, with grains of calcium."""
    rng, count = finding.rng, BAND_COUNT[finding.severity]
    hu = COARSE_SCAR_HU if canvas.coarse else tissue.SCAR
    thickness = COARSE_BAND_THICKNESS_MM if canvas.coarse else BAND_THICKNESS_MM
    for i in range(count):
        z, y, x = (c + 7 * rng.normal() for c in finding.centre_mm)
        angle = np.pi * (i + rng.uniform(0, 0.6)) / count
        normal = (0.25 * rng.normal(), float(np.cos(angle)), float(np.sin(angle)))
        length = finding.size_mm * (1.0 if i == 0 else rng.uniform(0.5, 1.0))
        plate(canvas, finding, (z, y, x), normal, length, thickness_mm=thickness * rng.uniform(0.8, 1.3), hu=hu)
        grain = canvas.visible((1.5, 1.5, 1.5), share=0.7)
        canvas.ellipsoid((z, y, x), grain, tissue.CALCIFIED_NODULE, within=(finding.regions[0],))


def _paint_network(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Ground glass with a network of lines, thickest at the base; severe fibrosis also honeycombs."""
    box, edge = canvas.whole(), np.float32(1 / canvas.grid.edge_mm)
    reach = np.float32(COARSE_REACH_MM if canvas.coarse else REACH_MM[finding.severity])
    near = canvas.in_lobes(box, finding.regions) & (canvas.cavity_depth < reach)
    points = canvas.points(box, near)
    cells = lobules(points, finding.rng, finding.size_mm, 2.0 if canvas.coarse else 1.0)
    height = np.clip((patient.diaphragm_z + HEIGHT_MM - points.z) / np.float32(0.6 * HEIGHT_MM), 0, 1)
    height *= np.clip(np.float32(0.65) + points.y * np.float32(0.007), np.float32(0.2), 1)  # most at the back
    patchy = np.float32(0.35 * finding.size_mm) * (cells.value - np.float32(0.5))
    depth = reach * height - canvas.cavity_depth[points.index] + patchy
    cover = np.clip(depth * np.float32(0.3), 0, 1)
    canvas.mix(points.index, cover, np.maximum(canvas.hu[points.index], np.float32(GLASS_HU)))
    if finding.severity == "severe" and not canvas.coarse:
        open_cyst = np.clip((cells.septum_mm - np.float32(LINE_MM)) * edge + np.float32(0.5), 0, 1)
        canvas.mix(points.index, cover * open_cyst * (cells.value < 0.7), CYST_HU)
    half_line = np.float32((COARSE_LINE_MM if canvas.coarse else LINE_MM) / 2)
    lines = np.clip((half_line - cells.septum_mm) * edge + np.float32(0.5), 0, 1)
    hu = np.float32(finding.between(COARSE_LINE_HU if canvas.coarse else LINE_HU))
    canvas.mix(points.index, cover * lines, np.maximum(canvas.hu[points.index], hu))


FIBROSIS = (Kind(abnormality="Pulmonary fibrotic sequela", weight=1.3, place=place_fibrosis, paint=paint_fibrosis),)
