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
from vlm3d_ct.phantom.rounded import sine

SMOOTH, NODULAR = "smooth", "nodular"
SEPTUM_HU, COARSE_SEPTUM_HU = (-60.0, 40.0), (-560.0, -100.0)
UNEVEN_HU = 200.0
"""Range over which septa of one patient differ."""
LOBULE_MM, COARSE_LOBULE_MM = (13.0, 22.0), (34.0, 42.0)
"""Diameter of the outlined lobules; on coarse grids several form one cell."""
COARSE_STRETCH = 2.5
SEPTUM_MM: dict[Severity, float] = {"mild": 0.9, "moderate": 1.2, "severe": 1.6}
COARSE_SEPTUM_MM: dict[Severity, float] = {"mild": 5.0, "moderate": 6.0, "severe": 7.5}
SHARE: dict[Severity, float] = {"mild": 0.25, "moderate": 0.4, "severe": 0.55}
"""Of the lobules that are outlined."""
REACH_MM: dict[Severity, float] = {"mild": 20.0, "moderate": 28.0, "severe": 38.0}
"""How far below the pleura septa are seen."""
COARSE_REACH_MM: dict[Severity, float] = {"mild": 30.0, "moderate": 36.0, "severe": 42.0}
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
    reach = (COARSE_REACH_MM if canvas.coarse else REACH_MM)[finding.severity]
    near = canvas.in_lobes(box, finding.regions) & (canvas.cavity_depth < reach)
    points = canvas.points(box, near)
    cells = lobules(points, finding.rng, finding.size_mm, COARSE_STRETCH if canvas.coarse else 1.0)
    wall = np.float32((COARSE_SEPTUM_MM if canvas.coarse else SEPTUM_MM)[finding.severity])
    depth = canvas.cavity_depth[points.index]
    thickness = wall * np.clip(np.float32(1.25) - depth / np.float32(reach), 0, 1)
    if finding.form == NODULAR:
        step = np.float32(1 / (BEAD_MM if not canvas.coarse else 4 * BEAD_MM))
        beads = sine(points.x * step) * sine(points.y * step) * sine(points.z * step)
        thickness = thickness * (np.float32(0.75) + np.float32(1.6) * np.maximum(beads, 0))
    edge = np.float32(1 / canvas.grid.edge_mm)
    cover = np.clip((thickness * np.float32(0.5) - cells.septum_mm) * edge + np.float32(0.5), 0, 1)
    cover *= cells.value < SHARE[finding.severity]
    hu = np.float32(finding.between(COARSE_SEPTUM_HU if canvas.coarse else SEPTUM_HU))
    uneven = hu + np.float32(UNEVEN_HU) * (cells.value * 7 % 1 - np.float32(0.5))
    canvas.mix(points.index, cover, np.maximum(canvas.hu[points.index], uneven))


INTERSTITIUM = (Kind(abnormality="Interlobular septal thickening", weight=1.3, place=place_septa, paint=paint_septa),)
