"""Fluid and the heart: pleural effusion, pericardial effusion, cardiomegaly."""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.finding import Finding, Kind, Severity, Side, Situation
from vlm3d_ct.phantom.grid import Box
from vlm3d_ct.phantom.organs import HEART, LUNGS, PERICARDIUM, heart_depth, paint_heart
from vlm3d_ct.phantom.patient import Heart, Patient
from vlm3d_ct.phantom.thorax import MEDIASTINUM, PLEURA

PLEURAL_MM: dict[Severity, tuple[float, float]] = {"mild": (16, 24), "moderate": (32, 44), "severe": (55, 72)}
PLEURAL_HEIGHT_MM: dict[Severity, float] = {"mild": 75.0, "moderate": 120.0, "severe": 190.0}
PERICARDIAL_MM: dict[Severity, tuple[float, float]] = {"mild": (10, 13), "moderate": (15, 20), "severe": (23, 30)}
ENLARGEMENT: dict[Severity, tuple[float, float]] = {"mild": (1.2, 1.26), "moderate": (1.3, 1.36), "severe": (1.4, 1.48)}
LOWER_LOBES: dict[Side, int] = {"right": 3, "left": 5}
SIDE_LOBES: dict[Side, tuple[int, ...]] = {"right": (1, 2, 3), "left": (4, 5)}


def place_pleural(situation: Situation) -> list[Finding]:
    """An effusion on one side, sometimes on both."""
    sides: list[Side] = ["right", "left"]
    situation.rng.shuffle(sides)
    free = [side for side in sides if LOWER_LOBES[side] not in situation.taken]
    found = []
    for side in free[: 2 if situation.rng.random() < 0.25 else 1]:
        situation.taken.add(LOWER_LOBES[side])
        severity = situation.severity()
        size = float(situation.rng.uniform(*PLEURAL_MM[severity]))
        scout = situation.scout
        depth = _pleural_depth(scout, scout.whole(), situation.patient, severity, size)
        voxels = np.argwhere((depth > 0) & np.isin(scout.lobes, SIDE_LOBES[side]))
        nearest = voxels[np.argmin(((voxels - voxels.mean(0)) ** 2).sum(1))]
        z, y, x = (
            o + s * float(i) for o, s, i in zip(scout.grid.origin_mm, scout.grid.spacing_mm, nearest, strict=True)
        )
        found.append(
            Finding(
                abnormality="Pleural effusion",
                side=side,
                regions=(PLEURA,),
                centre_mm=(z, y, x),
                size_mm=size,
                severity=severity,
                seed=situation.seed(),
            )
        )
    return found


def _pleural_depth(canvas: Canvas, box: Box, patient: Patient, severity: Severity, size_mm: float) -> np.ndarray:
    """Depth inside a crescent along the back wall, thickest at the base."""
    part = canvas.grid.crop(box)
    behind = np.clip((part.y + 20) / 60, 0, 1)
    base = patient.diaphragm_z - 30
    height = np.clip(1.25 - (part.z - base) / np.float32(PLEURAL_HEIGHT_MM[severity]), 0, 1)
    return np.asarray(np.float32(size_mm) * behind * height - canvas.cavity_depth[box], dtype=np.float32)


def paint_pleural(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """Fluid that layers along the back wall of the supine patient."""
    box = canvas.whole()
    depth = _pleural_depth(canvas, box, patient, finding.severity, finding.size_mm)
    canvas.paint(box, depth, tissue.EFFUSION, where=np.isin(canvas.lobes, SIDE_LOBES[finding.side]))


def place_pericardial(situation: Situation) -> list[Finding]:
    """A pericardial effusion."""
    severity = situation.severity()
    heart = situation.patient.heart
    size = float(situation.rng.uniform(*PERICARDIAL_MM[severity]))
    z, y, x = heart.centre_mm
    return [
        Finding(
            abnormality="Pericardial effusion",
            regions=(PERICARDIUM,),
            centre_mm=(z, y, x),
            size_mm=size,
            severity=severity,
            seed=situation.seed(),
        )
    ]


def paint_pericardial(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """A layer of fluid between the epicardial fat and the lungs."""
    box, depth = heart_depth(canvas, heart, finding.size_mm + 14)
    free = canvas.is_in(box, (*LUNGS, MEDIASTINUM, PERICARDIUM, HEART))
    shell = np.minimum(depth + np.float32(finding.size_mm), -depth)
    canvas.paint(box, shell, tissue.EFFUSION, where=free)


def place_cardiomegaly(situation: Situation) -> list[Finding]:
    """An enlarged heart; the size is its long diameter."""
    severity = situation.severity()
    heart = situation.patient.heart.scaled(float(situation.rng.uniform(*ENLARGEMENT[severity])))
    return [
        Finding(
            abnormality="Cardiomegaly",
            regions=(HEART,),
            centre_mm=heart.centre_mm,
            size_mm=2 * heart.half_mm[0],
            severity=severity,
            seed=situation.seed(),
        )
    ]


def enlarged_heart(patient: Patient, findings: tuple[Finding, ...]) -> Heart:
    """The heart as it is in the presence of these findings."""
    for finding in findings:
        if finding.abnormality == "Cardiomegaly":
            return patient.heart.scaled(finding.size_mm / (2 * patient.heart.half_mm[0]))
    return patient.heart


def paint_cardiomegaly(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """The heart again, larger; the region ids stay those of the healthy heart."""
    paint_heart(canvas, heart, patient.blood_hu, labelled=False)


FLUID_AND_HEART = (
    Kind(abnormality="Cardiomegaly", weight=1.3, place=place_cardiomegaly, paint=paint_cardiomegaly),
    Kind(abnormality="Pericardial effusion", weight=1.0, place=place_pericardial, paint=paint_pericardial),
)
PLEURAL = (Kind(abnormality="Pleural effusion", weight=1.8, place=place_pleural, paint=paint_pleural),)
