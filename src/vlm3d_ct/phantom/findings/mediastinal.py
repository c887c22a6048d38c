"""Findings of the mediastinum and its vessels: enlarged lymph nodes, hiatal hernia, calcified arteries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.finding import Finding, Kind, Severity, Side, Situation, severity_of
from vlm3d_ct.phantom.grid import Triple
from vlm3d_ct.phantom.heart import CORONARIES, coronary_paths, on_heart
from vlm3d_ct.phantom.landmarks import aorta_path, aorta_radius
from vlm3d_ct.phantom.patient import Heart, Patient
from vlm3d_ct.phantom.region_ids import (
    AORTA,
    ESOPHAGUS,
    HEART,
    LUNGS,
    MEDIASTINUM,
    OUTSIDE,
    PERICARDIUM,
    UPPER_ABDOMEN,
)

STATIONS: dict[str, tuple[Triple, Side]] = {
    "right paratracheal": ((44, 6, -28), "right"),
    "prevascular": ((46, -46, 8), "none"),
    "right hilar": ((6, 10, -56), "right"),
    "left hilar": ((20, 18, 58), "left"),
}
"""Where nodes are enlarged: centre in mm, and side."""
CARDIOPHRENIC = "right cardiophrenic"
CARDIOPHRENIC_DIRECTION = (-0.2, -0.75, -0.65)
"""Where the nodes between heart and diaphragm are, as a direction (z, y, x) from the heart's centre."""
CARDIOPHRENIC_SHARE = 1.12
PLAQUES: dict[Severity, int] = {"mild": 2, "moderate": 4, "severe": 8}
AORTIC_PLAQUES: dict[Severity, int] = {"mild": 3, "moderate": 5, "severe": 9}
NODE_MM, COARSE_NODE_MM = (14.0, 34.0), (28.0, 40.0)
"""Long diameter; nodes are enlarged above a short axis of 10 mm."""
NODE_COUNT_SHARES = (0.5, 0.35, 0.15)
"""Share of one, two, three stations."""
COARSE_NODE_HU = 80.0
"""On coarse grids enlarged nodes are as dense as those that take up contrast medium."""
HERNIA_MM, COARSE_HERNIA_MM = (35.0, 75.0), (60.0, 90.0)
PLAQUE_MM, COARSE_PLAQUE_MM = (4.0, 9.0), (18.0, 24.0)
AORTIC_PLAQUE_MM, COARSE_AORTIC_PLAQUE_MM = (6.0, 14.0), (16.0, 22.0)
CALCIUM_HU, COARSE_CALCIUM_HU = (450.0, 1100.0), (350.0, 900.0)
ATHEROSCLEROSIS_SHARE = 0.3
"""Share of the patients with coronary calcification whose aorta is calcified with it."""
AORTIC_PARTS = {"ascending aorta": (1, 3), "aortic arch": (3, 7), "descending aorta": (7, 9)}
"""Which stretch of the aorta's centreline each part is."""


def place_nodes(situation: Situation) -> list[Finding]:
    """Enlarged nodes at one to three stations."""
    stations = {**STATIONS, CARDIOPHRENIC: (_cardiophrenic(situation.patient.heart), "right")}
    names = list(stations)
    situation.rng.shuffle(names)
    sizes = COARSE_NODE_MM if situation.coarse else NODE_MM
    found = []
    for name in names[: 1 + int(situation.rng.choice(len(NODE_COUNT_SHARES), p=NODE_COUNT_SHARES))]:
        size = float(situation.rng.uniform(*sizes))
        found.append(
            Finding(
                abnormality="Lymphadenopathy",
                form=name,
                side=stations[name][1],
                regions=(MEDIASTINUM,),
                centre_mm=stations[name][0],
                size_mm=size,
                severity=severity_of(size, sizes),
                seed=situation.seed(),
            )
        )
    return found


def _cardiophrenic(heart: Heart) -> Triple:
    return on_heart(heart, np.array(CARDIOPHRENIC_DIRECTION), CARDIOPHRENIC_SHARE)


def paint_node(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """One enlarged node and a smaller neighbour."""
    rng, radius = finding.rng, finding.size_mm / 2
    z, y, x = finding.centre_mm
    around = (MEDIASTINUM, *LUNGS)
    hu = COARSE_NODE_HU if canvas.coarse else tissue.LYMPH_NODE
    half = canvas.visible((radius, radius, 0.85 * radius))
    canvas.ellipsoid((z, y, x), half, hu, within=around)
    beside = (z + radius * rng.uniform(0.8, 1.4), y + radius * rng.normal() * 0.4, x)
    small = canvas.visible((0.6 * radius, 0.6 * radius, 0.6 * radius), share=0.6)
    canvas.ellipsoid(beside, small, hu, within=around)


def place_hernia(situation: Situation) -> list[Finding]:
    """A hernia behind the heart."""
    sizes = COARSE_HERNIA_MM if situation.coarse else HERNIA_MM
    size = float(situation.rng.uniform(*sizes))
    centre: Triple = (situation.patient.diaphragm_z + 4 + 0.4 * size, 38, 6)
    half = size / 2
    box = situation.scout.grid.box_around(centre, (half, half, half))
    situation.room[box] = 0
    return [
        Finding(
            abnormality="Hiatal hernia",
            regions=(ESOPHAGUS,),
            centre_mm=centre,
            size_mm=size,
            severity=severity_of(size, sizes),
            seed=situation.seed(),
        )
    ]


def paint_hernia(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """A pouch of stomach with gas in front and fluid behind."""
    z, y, x = finding.centre_mm
    radius = finding.size_mm / 2
    around = (MEDIASTINUM, *LUNGS, HEART, PERICARDIUM, ESOPHAGUS, UPPER_ABDOMEN, OUTSIDE)
    half = canvas.visible((radius, 0.75 * radius, radius))
    canvas.ellipsoid((z, y, x), half, tissue.STOMACH, within=around)
    gas = (0.7 * half[0], 0.45 * half[1], 0.7 * half[2])
    canvas.ellipsoid((z, y - 0.35 * half[1], x), gas, tissue.GAS, within=around)


def place_aortic_calcification(situation: Situation) -> list[Finding]:
    """Plaques in one part of the aorta."""
    return [_aortic_calcification(situation, companion=False)]


def _aortic_calcification(situation: Situation, *, companion: bool) -> Finding:
    part = list(AORTIC_PARTS)[situation.rng.integers(len(AORTIC_PARTS))]
    sizes = COARSE_AORTIC_PLAQUE_MM if situation.coarse else AORTIC_PLAQUE_MM
    finding = Finding(
        abnormality="Arterial wall calcification",
        form=part,
        regions=(AORTA,),
        centre_mm=situation.patient.heart.centre_mm,
        size_mm=float(situation.rng.uniform(*sizes)),
        severity=situation.severity(),
        seed=situation.seed(),
        companion=companion,
    )
    plaques = _aortic_plaques(situation.patient, finding)
    return replace(finding, centre_mm=plaques[len(plaques) // 2])


def _aortic_plaques(patient: Patient, finding: Finding) -> list[Triple]:
    """Points on the wall, spread along the part."""
    rng, count = finding.rng, AORTIC_PLAQUES[finding.severity]
    first, last = AORTIC_PARTS[finding.form]
    path = np.array(aorta_path(patient)[first : last + 1])
    points = []
    for i in range(count):
        along = (i + rng.uniform(0.2, 0.8)) / count * (len(path) - 1)
        leg = min(int(along), len(path) - 2)
        direction = path[leg + 1] - path[leg]
        across = rng.normal(size=3)
        across -= direction * (across @ direction) / (direction @ direction)
        point = path[leg] + (along - leg) * direction
        z, y, x = point + 0.92 * aorta_radius(patient) * across / np.linalg.norm(across)
        points.append((float(z), float(y), float(x)))
    return points


def paint_aortic_calcification(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """Plaques on the wall of one part."""
    flat = 0.3 * finding.size_mm
    half = canvas.visible((finding.size_mm / 2, flat, flat), share=0.8)
    hu = finding.between(COARSE_CALCIUM_HU if canvas.coarse else CALCIUM_HU)
    for point in _aortic_plaques(patient, finding):
        canvas.ellipsoid(point, half, hu)


def place_coronary_calcification(situation: Situation) -> list[Finding]:
    """Plaques in one coronary artery, sometimes also in the aorta."""
    arteries = [name for name in CORONARIES if not (situation.coarse and name == "left main")]
    artery = arteries[situation.rng.integers(len(arteries))]
    severity = situation.severity()
    plaques = _coronary_plaques(situation.patient.heart, artery, severity)
    side: Side = "right" if artery == "right" else "left"
    sizes = COARSE_PLAQUE_MM if situation.coarse else PLAQUE_MM
    coronary = Finding(
        abnormality="Coronary artery wall calcification",
        form=artery,
        side=side,
        regions=(HEART,),
        centre_mm=plaques[len(plaques) // 2],
        size_mm=float(situation.rng.uniform(*sizes)),
        severity=severity,
        seed=situation.seed(),
    )
    if situation.with_companion("Arterial wall calcification", ATHEROSCLEROSIS_SHARE):
        return [coronary, _aortic_calcification(situation, companion=True)]
    return [coronary]


def _coronary_plaques(heart: Heart, artery: str, severity: Severity) -> list[Triple]:
    """Points along an artery."""
    path = np.array(coronary_paths(heart)[artery])
    count = PLAQUES[severity]
    places = (np.arange(count) + 0.5) / count * (len(path) - 1)
    points = np.stack([np.interp(places, np.arange(len(path)), path[:, axis]) for axis in range(3)], axis=1)
    return [(float(z), float(y), float(x)) for z, y, x in points]


def paint_coronary_calcification(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """Plaques in the epicardial fat along the artery."""
    radius = finding.size_mm / 2
    flat = 0.6 * radius
    half = canvas.visible((radius, flat, flat), share=0.9)
    hu = finding.between(COARSE_CALCIUM_HU if canvas.coarse else CALCIUM_HU)
    for point in _coronary_plaques(heart, finding.form, finding.severity):
        canvas.ellipsoid(point, half, hu)


MEDIASTINAL = (
    Kind(abnormality="Hiatal hernia", weight=1.0, place=place_hernia, paint=paint_hernia, displaces=True),
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
