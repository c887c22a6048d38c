"""Findings of the mediastinum and its vessels: enlarged lymph nodes, hiatal hernia, calcified arteries."""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.finding import Finding, Kind, Severity, Side, Situation
from vlm3d_ct.phantom.grid import Triple
from vlm3d_ct.phantom.organs import (
    AORTA,
    ESOPHAGUS,
    HEART,
    LUNGS,
    PERICARDIUM,
    UPPER_ABDOMEN,
    aorta_path,
    aorta_radius,
)
from vlm3d_ct.phantom.patient import Heart, Patient
from vlm3d_ct.phantom.thorax import HEART_AXES, MEDIASTINUM

STATIONS: dict[str, tuple[Triple, Side]] = {
    "right paratracheal": ((44, 6, -28), "right"),
    "prevascular": ((46, -46, 8), "none"),
    "right hilar": ((6, 10, -56), "right"),
    "left hilar": ((20, 18, 58), "left"),
    "right cardiophrenic": ((-34, -48, -42), "right"),
}
"""Where nodes are enlarged: centre in mm, and side."""
CORONARIES: dict[str, tuple[Triple, Triple]] = {
    "left anterior descending": ((0.75, -0.6, 0.3), (-0.1, -0.8, 0.75)),
    "left circumflex": ((0.5, 0.45, 0.85), (-0.4, 0.5, 0.85)),
    "right": ((0.4, -0.7, -0.7), (-0.7, -0.35, -0.6)),
}
"""Start and end of each artery as directions (z, y, x) from the heart's centre."""
PLAQUES: dict[Severity, int] = {"mild": 2, "moderate": 4, "severe": 8}
AORTIC_PLAQUES: dict[Severity, int] = {"mild": 3, "moderate": 6, "severe": 12}
AORTIC_PARTS = {"ascending aorta": (1, 3), "aortic arch": (3, 7), "descending aorta": (7, 9)}
"""Which stretch of the aorta's centreline each part is."""


def place_nodes(situation: Situation) -> list[Finding]:
    """Enlarged nodes at one station, sometimes at two."""
    names = list(STATIONS)
    situation.rng.shuffle(names)
    found = []
    for name in names[: 2 if situation.rng.random() < 0.3 else 1]:
        size = float(situation.rng.uniform(max(14.0, 1.1 * situation.smallest_mm), 32))
        found.append(
            Finding(
                abnormality="Lymphadenopathy",
                form=name,
                side=STATIONS[name][1],
                regions=(MEDIASTINUM,),
                centre_mm=STATIONS[name][0],
                size_mm=size,
                severity="mild" if size < 20 else "moderate" if size < 26 else "severe",
                seed=situation.seed(),
            )
        )
    return found


def paint_node(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """One enlarged node and a smaller neighbour."""
    rng, radius = finding.rng, finding.size_mm / 2
    z, y, x = finding.centre_mm
    around = (MEDIASTINUM, *LUNGS)
    half = canvas.grid.at_least_visible((radius, radius, 0.85 * radius))
    canvas.ellipsoid((z, y, x), half, tissue.LYMPH_NODE, within=around)
    beside = (z + radius * rng.uniform(0.8, 1.4), y + radius * rng.normal() * 0.4, x)
    small = canvas.grid.at_least_visible((0.6 * radius, 0.6 * radius, 0.6 * radius), share=0.6)
    canvas.ellipsoid(beside, small, tissue.LYMPH_NODE, within=around)


def place_hernia(situation: Situation) -> list[Finding]:
    """A hernia of 35 to 75 mm behind the heart."""
    size = float(situation.rng.uniform(35, 75))
    return [
        Finding(
            abnormality="Hiatal hernia",
            regions=(ESOPHAGUS,),
            centre_mm=(situation.patient.diaphragm_z + 4 + 0.4 * size, 38, 6),
            size_mm=size,
            severity="mild" if size < 48 else "moderate" if size < 62 else "severe",
            seed=situation.seed(),
        )
    ]


def paint_hernia(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """A pouch of stomach with gas in front and fluid behind."""
    z, y, x = finding.centre_mm
    radius = finding.size_mm / 2
    around = (MEDIASTINUM, *LUNGS, HEART, PERICARDIUM, ESOPHAGUS, UPPER_ABDOMEN, 0)
    half = canvas.grid.at_least_visible((radius, 0.75 * radius, radius))
    canvas.ellipsoid((z, y, x), half, tissue.STOMACH, within=around)
    gas = (0.65 * half[0], 0.38 * half[1], 0.65 * half[2])
    canvas.ellipsoid((z, y - 0.35 * half[1], x), gas, tissue.GAS, within=around)


def place_aortic_calcification(situation: Situation) -> list[Finding]:
    """Plaques in one part of the aorta."""
    part = list(AORTIC_PARTS)[situation.rng.integers(len(AORTIC_PARTS))]
    first, last = AORTIC_PARTS[part]
    centre = np.mean(aorta_path(situation.patient)[first : last + 1], axis=0)
    severity = situation.severity()
    return [
        Finding(
            abnormality="Arterial wall calcification",
            form=part,
            regions=(AORTA,),
            centre_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
            size_mm=float(situation.rng.uniform(6, 12)),
            severity=severity,
            seed=situation.seed(),
        )
    ]


def paint_aortic_calcification(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """Plaques on the wall, spread along the part."""
    rng, count = finding.rng, AORTIC_PLAQUES[finding.severity]
    first, last = AORTIC_PARTS[finding.form]
    path = np.array(aorta_path(patient)[first : last + 1])
    half = canvas.grid.at_least_visible((finding.size_mm / 2, 0.3 * finding.size_mm, 0.3 * finding.size_mm), share=0.7)
    for i in range(count):
        along = (i + rng.uniform(0.2, 0.8)) / count * (len(path) - 1)
        leg = min(int(along), len(path) - 2)
        point = path[leg] + (along - leg) * (path[leg + 1] - path[leg])
        direction = path[leg + 1] - path[leg]
        across = rng.normal(size=3)
        across -= direction * (across @ direction) / (direction @ direction)
        z, y, x = point + 0.92 * aorta_radius(patient) * across / np.linalg.norm(across)
        canvas.ellipsoid((float(z), float(y), float(x)), half, tissue.CALCIUM)


def _on_heart(heart: Heart, direction: np.ndarray, share: float) -> Triple:
    """The point in a direction from the heart's centre, at a share of the way to its surface."""
    along = HEART_AXES @ direction / np.array(heart.half_mm)
    z, y, x = np.array(heart.centre_mm) + direction * share / np.linalg.norm(along)
    return float(z), float(y), float(x)


def place_coronary_calcification(situation: Situation) -> list[Finding]:
    """Plaques in one coronary artery."""
    artery = list(CORONARIES)[situation.rng.integers(len(CORONARIES))]
    start, end = CORONARIES[artery]
    side: Side = "right" if artery == "right" else "left"
    return [
        Finding(
            abnormality="Coronary artery wall calcification",
            form=artery,
            side=side,
            regions=(HEART,),
            centre_mm=_on_heart(situation.patient.heart, (np.array(start) + np.array(end)) / 2, 0.95),
            size_mm=float(situation.rng.uniform(4, 8)),
            severity=situation.severity(),
            seed=situation.seed(),
        )
    ]


def paint_coronary_calcification(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """Plaques in the epicardial fat along the artery."""
    start, end = (np.array(direction) for direction in CORONARIES[finding.form])
    count, radius = PLAQUES[finding.severity], finding.size_mm / 2
    half = canvas.grid.at_least_visible((radius, 0.7 * radius, 0.7 * radius), share=0.8)
    for i in range(count):
        direction = start + (i + 0.5) / count * (end - start)
        canvas.ellipsoid(_on_heart(heart, direction, 0.95), half, tissue.CALCIUM)


MEDIASTINAL = (
    Kind(abnormality="Hiatal hernia", weight=1.0, place=place_hernia, paint=paint_hernia),
    Kind(abnormality="Lymphadenopathy", weight=1.3, place=place_nodes, paint=paint_node),
    Kind(
        abnormality="Arterial wall calcification",
        weight=1.4,
        place=place_aortic_calcification,
        paint=paint_aortic_calcification,
    ),
    Kind(
        abnormality="Coronary artery wall calcification",
        weight=1.4,
        place=place_coronary_calcification,
        paint=paint_coronary_calcification,
    ),
)
