"""Fluid around the lungs and the heart, and the enlarged heart with what a failing heart brings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.finding import Finding, Kind, Severity, Side, Situation
from vlm3d_ct.phantom.findings.interstitium import SMOOTH, septal_finding
from vlm3d_ct.phantom.grid import Box, Field
from vlm3d_ct.phantom.heart import heart_depth, paint_heart
from vlm3d_ct.phantom.patient import Heart, Patient
from vlm3d_ct.phantom.region_ids import HEART, LUNGS, MEDIASTINUM, PERICARDIUM, PLEURA

Range = tuple[float, float]

PLEURAL_MM: dict[Severity, Range] = {"mild": (12, 22), "moderate": (30, 44), "severe": (55, 72)}
COARSE_PLEURAL_MM: dict[Severity, Range] = {"mild": (16, 22), "moderate": (24, 32), "severe": (36, 48)}
"""Thickness of the fluid at the back of the lung's base."""
PLEURAL_HEIGHT_MM: dict[Severity, float] = {"mild": 75.0, "moderate": 110.0, "severe": 160.0}
PASSIVE_MM: dict[Severity, Range] = {"mild": (6, 10), "moderate": (12, 20), "severe": (20, 32)}
COARSE_PASSIVE_MM: dict[Severity, Range] = {"mild": (12, 17), "moderate": (16, 22), "severe": (20, 30)}
"""Thickness of the airless lung on the fluid."""
PASSIVE_SHARE: dict[Severity, float] = {"mild": 0.4, "moderate": 0.9, "severe": 1.0}
THINNEST_MM = 2.0
"""The crescent ends where it would be thinner."""
HALF_LUNG_HU = -150.0
"""Voxels at the wall below this are partly lung."""
BOTH_SIDES_SHARE = 0.25
PERICARDIAL_MM: dict[Severity, Range] = {"mild": (5, 9), "moderate": (11, 19), "severe": (21, 30)}
COARSE_PERICARDIAL_MM: dict[Severity, Range] = {"mild": (9, 10), "moderate": (12, 15), "severe": (17, 23)}
"""Effusions of up to 10 mm are called small, up to 20 mm moderate, above that large (ESC guidelines, 2015)."""
ENLARGEMENT: dict[Severity, Range] = {"mild": (1.2, 1.26), "moderate": (1.3, 1.36), "severe": (1.4, 1.48)}
SETTLING_HU_PER_MM, SETTLED_HU = 0.2, 8.0
"""How much denser an effusion is towards the back, and at most, from its middle on."""
FAILURE_SHARE = 0.35
"""Share of the more than mildly enlarged hearts that fail: with effusions on both sides and thick septa."""
LOWER_LOBE: dict[Side, int] = {"right": 3, "left": 5}
SIDE_LOBES: dict[Side, tuple[int, ...]] = {"right": (1, 2, 3), "left": (4, 5)}


def place_pleural(situation: Situation) -> list[Finding]:
    """An effusion on one side, sometimes on both, mostly with passive atelectasis."""
    sides: list[Side] = ["right", "left"]
    situation.rng.shuffle(sides)
    free = [side for side in sides if LOWER_LOBE[side] not in situation.taken]
    found = []
    for side in free[: 2 if situation.rng.random() < BOTH_SIDES_SHARE else 1]:
        effusion = pleural_on(situation, side, situation.severity(), companion=False)
        found.append(effusion)
        if situation.rng.random() < PASSIVE_SHARE[effusion.severity]:
            found.append(_passive_atelectasis(situation, effusion))
    return found


def pleural_on(situation: Situation, side: Side, severity: Severity, *, companion: bool) -> Finding:
    """An effusion on this side; the lower lobe is taken."""
    situation.taken.add(LOWER_LOBE[side])
    sizes = COARSE_PLEURAL_MM if situation.coarse else PLEURAL_MM
    size = float(situation.rng.uniform(*sizes[severity]))
    scout = situation.scout
    depth = _crescent(scout, scout.whole(), situation.patient, severity, size)
    fluid = (depth > 0) & np.isin(scout.lobes, SIDE_LOBES[side])
    situation.room[fluid] = 0
    return Finding(
        abnormality="Pleural effusion",
        side=side,
        regions=(PLEURA,),
        centre_mm=situation.middle_of(np.argwhere(fluid)),
        size_mm=size,
        severity=severity,
        seed=situation.seed(),
        companion=companion,
    )


def _passive_atelectasis(situation: Situation, effusion: Finding) -> Finding:
    """The airless layer of the lower lobe that lies on an effusion."""
    sizes = COARSE_PASSIVE_MM if situation.coarse else PASSIVE_MM
    lobe = LOWER_LOBE[effusion.side]
    finding = Finding(
        abnormality="Atelectasis",
        form="passive",
        side=effusion.side,
        regions=(lobe,),
        centre_mm=effusion.centre_mm,
        size_mm=float(situation.rng.uniform(*sizes[effusion.severity])),
        severity=effusion.severity,
        seed=situation.seed(),
        companion=True,
        host=effusion,
    )
    scout = situation.scout
    box = scout.whole()
    layer = (passive_depth(scout, box, situation.patient, finding) > 0) & (scout.lobes == lobe)
    layer &= _crescent(scout, box, situation.patient, effusion.severity, effusion.size_mm) <= 0
    return replace(finding, centre_mm=situation.middle_of(np.argwhere(layer))) if layer.any() else finding


def _crescent(canvas: Canvas, box: Box, patient: Patient, severity: Severity, size_mm: float) -> Field:
    """Depth inside a crescent along the back wall, thickest at the base, with a meniscus at its margins."""
    part = canvas.grid.crop(box)
    behind = np.clip((part.y + 20) / 60, 0, 1)
    base = patient.diaphragm_z - 30
    height = np.clip(1.25 - (part.z - base) / np.float32(PLEURAL_HEIGHT_MM[severity]), 0, 1)
    thickness = np.float32(size_mm) * behind * height
    return np.asarray(thickness - np.maximum(canvas.cavity_depth[box], THINNEST_MM), dtype=np.float32)


def passive_depth(canvas: Canvas, box: Box, patient: Patient, finding: Finding) -> Field:
    """Depth inside the effusion and the airless lung on it; the fluid is painted over it later."""
    assert finding.host is not None
    effusion = finding.host
    return _crescent(canvas, box, patient, effusion.severity, effusion.size_mm + finding.size_mm)


def paint_pleural(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """Fluid that layers along the back wall of the supine patient."""
    box = canvas.whole()
    depth = _crescent(canvas, box, patient, finding.severity, finding.size_mm)
    beside = canvas.grid.x > 0 if finding.side == "left" else canvas.grid.x < 0
    rim = (np.abs(canvas.cavity_depth) < canvas.grid.edge_mm) & (canvas.hu < HALF_LUNG_HU) & beside
    inside = canvas.in_lobes(box, SIDE_LOBES[finding.side]) | rim
    canvas.paint(box, depth, _fluid(canvas, box, finding), where=inside)


def _fluid(canvas: Canvas, box: Box, finding: Finding) -> Field:
    """Intensity of an effusion, denser towards the back, where cells and protein settle in the supine patient."""
    behind = canvas.grid.crop(box).y - np.float32(finding.centre_mm[1])
    rise = np.clip(behind * np.float32(SETTLING_HU_PER_MM), -SETTLED_HU, SETTLED_HU)
    return np.asarray(np.float32(finding.between(tissue.EFFUSION_RANGE)) + rise, dtype=np.float32)


def place_pericardial(situation: Situation) -> list[Finding]:
    """A pericardial effusion."""
    severity = situation.severity()
    sizes = COARSE_PERICARDIAL_MM if situation.coarse else PERICARDIAL_MM
    size = float(situation.rng.uniform(*sizes[severity]))
    _displace(situation, situation.patient.heart, size)
    return [
        Finding(
            abnormality="Pericardial effusion",
            regions=(PERICARDIUM,),
            centre_mm=situation.patient.heart.centre_mm,
            size_mm=size,
            severity=severity,
            seed=situation.seed(),
        )
    ]


def _displace(situation: Situation, heart: Heart, margin_mm: float) -> None:
    """Leave no room for lesions in a heart and in a layer around it."""
    box, depth = heart_depth(situation.scout, heart, margin_mm)
    situation.room[box][depth > -margin_mm] = 0


def paint_pericardial(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """A layer of fluid between the epicardial fat and the lungs."""
    box, depth = heart_depth(canvas, heart, finding.size_mm + 14)
    free = canvas.is_in(box, (*LUNGS, MEDIASTINUM, PERICARDIUM, HEART))
    shell = np.minimum(depth + np.float32(finding.size_mm), -depth)
    canvas.paint(box, shell, _fluid(canvas, box, finding), where=free)
    canvas.lobes[box][shell > 0] = 0  # the lung is pushed aside


def place_cardiomegaly(situation: Situation) -> list[Finding]:
    """An enlarged heart, which may fail; the size is its long diameter."""
    severity = situation.severity()
    heart = situation.patient.heart.scaled(float(situation.rng.uniform(*ENLARGEMENT[severity])))
    _displace(situation, heart, 0.0)
    enlarged = Finding(
        abnormality="Cardiomegaly",
        regions=(HEART,),
        centre_mm=heart.centre_mm,
        size_mm=2 * heart.half_mm[0],
        severity=severity,
        seed=situation.seed(),
    )
    return [enlarged, *(_heart_failure(situation) if severity != "mild" else [])]


def _heart_failure(situation: Situation) -> list[Finding]:
    """Small effusions on both sides and smoothly thickened septa, where there is room for both."""
    if {3, 5} & situation.taken or not situation.with_companion("Pleural effusion", FAILURE_SHARE):
        return []
    found = [pleural_on(situation, side, "mild", companion=True) for side in SIDE_LOBES]
    upper = situation.take_lobes(2, (1, 4))
    if upper and situation.with_companion("Interlobular septal thickening", 1.0):
        found.append(septal_finding(situation, upper, SMOOTH, companion=True))
    return found


def enlarged_heart(patient: Patient, findings: tuple[Finding, ...]) -> Heart:
    """The heart as it is in the presence of these findings."""
    for finding in findings:
        if finding.abnormality == "Cardiomegaly":
            return patient.heart.scaled(finding.size_mm / (2 * patient.heart.half_mm[0]))
    return patient.heart


def paint_cardiomegaly(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """The heart again, larger; the region ids stay those of the healthy heart."""
    paint_heart(canvas, patient, heart, labelled=False)
    box, depth = heart_depth(canvas, heart, 0.0)
    canvas.lobes[box][depth > 0] = 0  # the lung is pushed aside


FLUID_AND_HEART = (
    Kind(abnormality="Cardiomegaly", weight=1.3, place=place_cardiomegaly, paint=paint_cardiomegaly, displaces=True),
    Kind(
        abnormality="Pericardial effusion",
        weight=1.2,
        place=place_pericardial,
        paint=paint_pericardial,
        displaces=True,
    ),
)
PLEURAL = (Kind(abnormality="Pleural effusion", weight=1.5, place=place_pleural, paint=paint_pleural, displaces=True),)
