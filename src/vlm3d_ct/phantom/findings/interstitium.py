"""Thickened interlobular septa: a network of thin lines that outlines the lobules below the pleura.

Fleischner glossary: septa that are thickened, smooth as in oedema or nodular as in sarcoidosis and lymphangitic
spread, between lobules of 10 to 25 mm.
"""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.finding import SEVERITIES, Finding, Kind, Severity, Situation, side_of
from vlm3d_ct.phantom.findings.lobules import lobules
from vlm3d_ct.phantom.patient import Heart, Patient

SMOOTH, NODULAR = "smooth", "nodular"
SEPTUM_HU, COARSE_SEPTUM_HU = 10.0, 110.0
LOBULE_MM, COARSE_LOBULE_MM = (13.0, 22.0), (34.0, 42.0)
"""Diameter of the outlined lobules; on coarse grids several form one cell."""
COARSE_STRETCH = 2.5
SEPTUM_MM: dict[Severity, float] = {"mild": 1.0, "moderate": 1.4, "severe": 1.9}
COARSE_SEPTUM_MM: dict[Severity, float] = {"mild": 9.0, "moderate": 10.0, "severe": 11.5}
REACH_MM: dict[Severity, float] = {"mild": 26.0, "moderate": 36.0, "severe": 48.0}
"""How far below the pleura septa are seen."""
COARSE_REACH_MM = 46.0
BEAD_MM = 2.2
"""Distance along a nodular septum over which its thickness changes."""


def place_septa(situation: Situation) -> list[Finding]:
    """Septa of two or three lobes, mostly smooth."""
    lobes = situation.take_lobes(int(situation.rng.integers(2, 4)))
    if not lobes:
        return []
    form = NODULAR if situation.rng.random() < 0.35 else SMOOTH
    return [septal_finding(situation, lobes, form, companion=False)]


def septal_finding(situation: Situation, lobes: tuple[int, ...], form: str, *, companion: bool) -> Finding:
    """Thickened septa of these lobes."""
    sizes = COARSE_LOBULE_MM if situation.coarse else LOBULE_MM
    return Finding(
        abnormality="Interlobular septal thickening",
        form=form,
        side=side_of(*lobes),
        regions=lobes,
        centre_mm=situation.point_near_wall(lobes[0]),
        size_mm=float(situation.rng.uniform(*sizes)),
        severity=SEVERITIES[situation.rng.integers(3)],
        seed=situation.seed(),
        companion=companion,
    )


def paint_septa(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """The network, thinner away from the pleura."""
    box = canvas.whole()
    reach = COARSE_REACH_MM if canvas.coarse else REACH_MM[finding.severity]
    near = canvas.in_lobes(box, finding.regions) & (canvas.cavity_depth < reach)
    points = canvas.points(box, near)
    cells = lobules(points, finding.rng, finding.size_mm, COARSE_STRETCH if canvas.coarse else 1.0)
    wall = np.float32((COARSE_SEPTUM_MM if canvas.coarse else SEPTUM_MM)[finding.severity])
    depth = canvas.cavity_depth[points.index]
    thickness = wall * np.clip(np.float32(1.25) - depth / np.float32(reach), 0, 1)
    if finding.form == NODULAR:
        step = np.float32(1 / (BEAD_MM if not canvas.coarse else 4 * BEAD_MM))
        beads = np.sin(points.x * step) * np.sin(points.y * step) * np.sin(points.z * step)
        thickness = thickness * (np.float32(0.75) + np.float32(1.6) * np.maximum(beads, 0))
    edge = np.float32(1 / canvas.grid.edge_mm)
    cover = np.clip((thickness * np.float32(0.5) - cells.septum_mm) * edge + np.float32(0.5), 0, 1)
    hu = np.float32(COARSE_SEPTUM_HU if canvas.coarse else SEPTUM_HU)
    canvas.mix(points.index, cover, np.maximum(canvas.hu[points.index], hu))


INTERSTITIUM = (Kind(abnormality="Interlobular septal thickening", weight=1.3, place=place_septa, paint=paint_septa),)
