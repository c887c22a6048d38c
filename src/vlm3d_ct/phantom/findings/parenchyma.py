"""Findings that fill lung: nodules, consolidation, ground glass.

Drawn as the Fleischner Society's glossary defines them (Hansell et al., Radiology 2008; 246: 697-722): a nodule is a
rounded opacity of at most 3 cm, consolidation obscures vessels and airway walls and may hold air bronchograms, ground
glass leaves vessels visible.
"""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.effusions import pleural_on
from vlm3d_ct.phantom.findings.finding import LOWER_LOBES, Finding, Kind, Situation, severity_of, side_of
from vlm3d_ct.phantom.grid import Box, Field, Triple, ellipsoid_depth, texture
from vlm3d_ct.phantom.landmarks import HILA
from vlm3d_ct.phantom.patient import Heart, Patient

Range = tuple[float, float]

LARGEST_NODULE_MM = 30.0
COARSE_NODULE_MM: Range = (27.0, 36.0)
NODULE_SHARES, COARSE_NODULE_SHARES = (0.6, 0.25, 0.15), (0.35, 0.35, 0.3)
"""Share of the patients with nodules who have one, two, three."""
COARSE_NODULE_HU, COARSE_CALCIFIED_HU = 90.0, 500.0
"""On coarse grids a solid nodule is as dense as one that takes up contrast medium."""
CONSOLIDATION_MM: Range = (30.0, 75.0)
COARSE_CONSOLIDATION_MM: Range = (58.0, 85.0)
TWO_LOBES_SHARE = 0.4
"""Share of the consolidations and opacities that are in two lobes."""
PARAPNEUMONIC_SHARE = 0.3
"""Share of the consolidations of lower lobes that come with a small effusion."""
OPACITY_MM: Range = (35.0, 90.0)
COARSE_OPACITY_MM: Range = (52.0, 84.0)
GLASS, PATCHY = "ground glass", "patchy"
OPACITY_SPAN_HU: dict[str, float] = {GLASS: 170.0, PATCHY: 560.0}
OPACITY_HU: dict[str, Range] = {GLASS: (-760.0, -460.0), PATCHY: (-680.0, -480.0)}
"""How far an opacity's densest part is above its thinnest, and bounds of that; ground glass reads -750 to -300 on
clinical scans."""


def _in_lobe(situation: Situation, abnormality: str, form: str, size: float, sizes: Range) -> list[Finding]:
    lobe = situation.take_lobe()
    if lobe is None:
        return []
    return [
        Finding(
            abnormality=abnormality,
            form=form,
            side=side_of(lobe),
            regions=(lobe,),
            centre_mm=situation.point_in(lobe, 0.45 * size),
            size_mm=size,
            severity=severity_of(size, sizes),
            seed=situation.seed(),
        )
    ]


def place_nodules(situation: Situation) -> list[Finding]:
    """One to three nodules in different lobes; on fine grids most are small."""
    found, rng = [], situation.rng
    low, high = sizes = COARSE_NODULE_MM if situation.coarse else (situation.smallest_mm, LARGEST_NODULE_MM)
    shares = COARSE_NODULE_SHARES if situation.coarse else NODULE_SHARES
    for _ in range(1 + int(rng.choice(len(shares), p=shares))):
        form = "calcified" if rng.random() < 0.3 else "solid"
        size = low + (high - low) * float(rng.random()) ** (1 if situation.coarse else 2)
        found += _in_lobe(situation, "Lung nodule", form, size, sizes)
    return found


def paint_nodule(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """A ball with a slightly lobulated edge."""
    radius = finding.size_mm / 2
    half = canvas.visible((radius, radius, radius))
    box = canvas.grid.box_around(finding.centre_mm, (half[0] * 1.2, half[1] * 1.2, half[2] * 1.2))
    part = canvas.grid.crop(box)
    if 0 in part.shape:
        return
    depth = ellipsoid_depth(part, finding.centre_mm, half) + 0.06 * radius * texture(part, finding.rng, 1.2 * radius)
    if finding.form == "calcified":
        hu = COARSE_CALCIFIED_HU if canvas.coarse else tissue.CALCIFIED_NODULE
    else:
        hu = COARSE_NODULE_HU if canvas.coarse else tissue.NODULE
    canvas.paint(box, depth, hu, where=canvas.lobes[box] == finding.regions[0])


def place_consolidation(situation: Situation) -> list[Finding]:
    """A consolidation, sometimes of two lobes, in a lower lobe sometimes with a small effusion below it."""
    sizes = COARSE_CONSOLIDATION_MM if situation.coarse else CONSOLIDATION_MM
    found = []
    for _ in range(2 if situation.rng.random() < TWO_LOBES_SHARE else 1):
        found += _in_lobe(situation, "Consolidation", "", float(situation.rng.uniform(*sizes)), sizes)
    for finding in list(found):
        if finding.regions[0] in LOWER_LOBES and situation.with_companion("Pleural effusion", PARAPNEUMONIC_SHARE):
            found.append(pleural_on(situation, finding.side, "mild", companion=True))
    return found


def paint_consolidation(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """An irregular dense area with air bronchograms that point to the hilum."""
    rng, lobe = finding.rng, finding.regions[0]
    box, depth = _patch(canvas, finding, rng)
    if 0 in depth.shape:
        return
    canvas.paint(box, depth, tissue.CONSOLIDATION, where=canvas.lobes[box] == lobe)
    hilum = HILA[finding.side]
    for _ in range(4):
        z, y, x = (c + s for c, s in zip(finding.centre_mm, rng.normal(size=3) * 0.16 * finding.size_mm, strict=True))
        outer: Triple = (z - 0.2 * (hilum[0] - z), y - 0.2 * (hilum[1] - y), x - 0.2 * (hilum[2] - x))
        inner: Triple = (z + 0.3 * (hilum[0] - z), y + 0.3 * (hilum[1] - y), x + 0.3 * (hilum[2] - x))
        canvas.rod([inner, (z, y, x)], 1.8, tissue.LUNG, within=(lobe,))
        canvas.rod([(z, y, x), outer], 1.1, tissue.LUNG, within=(lobe,))


def place_opacity(situation: Situation) -> list[Finding]:
    """Ground glass, pure or with denser patches, sometimes in two lobes."""
    sizes = COARSE_OPACITY_MM if situation.coarse else OPACITY_MM
    form = GLASS if situation.rng.random() < 0.5 else PATCHY
    found = []
    for _ in range(2 if situation.rng.random() < TWO_LOBES_SHARE else 1):
        found += _in_lobe(situation, "Lung opacity", form, float(situation.rng.uniform(*sizes)), sizes)
    return found


def paint_opacity(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """A hazy area, through which vessels are seen, that fades out at its edge."""
    rng = finding.rng
    box, depth = _patch(canvas, finding, rng)
    if 0 in depth.shape:
        return
    part = canvas.grid.crop(box)
    wavelength = max(14.0, 3 * part.spacing_mm[0])
    contrast = 0.7 if finding.form == PATCHY else 0.35
    dense = np.clip(texture(part, rng, wavelength) * np.float32(contrast) + np.float32(0.4), 0, 1)
    thinnest, span = finding.between(OPACITY_HU[finding.form]), OPACITY_SPAN_HU[finding.form]
    hu = np.maximum(canvas.hu[box], np.float32(thinnest) + dense * np.float32(span))
    edge = 1.0 if canvas.coarse else 0.25
    canvas.paint(box, depth * np.float32(edge), hu, where=canvas.lobes[box] == finding.regions[0])


def _patch(canvas: Canvas, finding: Finding, rng: np.random.Generator) -> tuple[Box, Field]:
    """A box and the depth inside an irregular blob in it."""
    radius = finding.size_mm / 2
    shape = rng.uniform(0.75, 1.0, size=3)
    half = canvas.visible((radius * shape[0], radius * shape[1], radius * shape[2]))
    box = canvas.grid.box_around(finding.centre_mm, (half[0] * 1.4, half[1] * 1.4, half[2] * 1.4))
    part = canvas.grid.crop(box)
    blob = ellipsoid_depth(part, finding.centre_mm, half)
    blob = blob + np.float32(0.16 * radius) * texture(part, rng, 1.1 * radius)
    if not canvas.coarse:  # the edge follows lobules
        blob = blob + np.float32(2.5) * texture(part, rng, 11.0)
    return box, np.asarray(blob)


PARENCHYMA = (
    Kind(abnormality="Lung opacity", weight=1.5, place=place_opacity, paint=paint_opacity),
    Kind(abnormality="Consolidation", weight=1.4, place=place_consolidation, paint=paint_consolidation),
    Kind(abnormality="Lung nodule", weight=1.8, place=place_nodules, paint=paint_nodule),
)
