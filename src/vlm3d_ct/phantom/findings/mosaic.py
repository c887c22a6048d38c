"""Mosaic attenuation: a patchwork of lobules that differ in density.

Fleischner glossary: a patchwork of regions of differing attenuation; where small airways or vessels are obstructed the
dark parts are abnormal, their vessels are smaller, and blood is sent to the bright ones.
"""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.finding import Finding, Kind, Severity, Situation, side_of
from vlm3d_ct.phantom.findings.lobules import lobules
from vlm3d_ct.phantom.patient import Heart, Patient

PATCH_MM, COARSE_PATCH_MM = (18.0, 26.0), (36.0, 46.0)
"""Diameter of one patch; neighbours of one kind merge into larger, geographic ones."""
COARSE_STRETCH = 1.6
DARK_SHARE: dict[Severity, float] = {"mild": 0.35, "moderate": 0.5, "severe": 0.6}
CONTRAST: tuple[float, float] = (0.4, 0.85)
"""Bounds of how strong the pattern is, relative to the rise and the fall below."""
DARK_FALL_HU, LOWEST_HU = 65.0, -970.0
VESSEL_SHARE = 0.7
"""Share of a vessel's contrast that is left in the dark parts."""
LUNG_SPREAD_HU = 70.0
"""Lung tissue is within this of its mean; darker are airways, brighter vessels and walls."""
BRIGHT_RISE_HU = 75.0


def place_mosaic(situation: Situation) -> list[Finding]:
    """A patchwork over one to three lobes."""
    lobes = situation.take_lobes(int(situation.rng.integers(1, 4)))
    if not lobes:
        return []
    return [
        Finding(
            abnormality="Mosaic attenuation pattern",
            side=side_of(*lobes),
            regions=lobes,
            centre_mm=situation.point_in(lobes[0], 25.0),
            size_mm=float(situation.rng.uniform(*(COARSE_PATCH_MM if situation.coarse else PATCH_MM))),
            severity=situation.severity(),
            seed=situation.seed(),
        )
    ]


def paint_mosaic(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """Air trapping in some lobules, which are the lesion, and more blood in the others."""
    box = canvas.whole()
    points = canvas.points(box, canvas.in_lobes(box, finding.regions))
    cells = lobules(points, finding.rng, finding.size_mm, COARSE_STRETCH if canvas.coarse else 1.0)
    old = canvas.hu[points.index]
    healthy = np.float32(patient.lung_hu) + np.float32(patient.lung_gradient) * points.y
    above = old - healthy - np.float32(LUNG_SPREAD_HU)  # vessels and walls
    strength = finding.between(CONTRAST)
    trap = np.maximum(healthy - np.float32(strength * DARK_FALL_HU), np.float32(LOWEST_HU))
    dark = np.minimum(old, trap + np.float32(VESSEL_SHARE) * np.maximum(above, 0))
    is_lung = (above < 0) & (above > -2 * LUNG_SPREAD_HU)
    bright = old + np.float32(strength * BRIGHT_RISE_HU) * is_lung
    trapped = cells.value < DARK_SHARE[finding.severity]
    canvas.mix(points.index, trapped.astype(np.float32), dark)
    canvas.mix(points.index, (~trapped).astype(np.float32), bright, marked=False)


MOSAIC = (Kind(abnormality="Mosaic attenuation pattern", weight=1.4, place=place_mosaic, paint=paint_mosaic),)
