"""All kinds of findings in the order in which they are painted, and the drawing of a patient's findings."""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.devices import DEVICES
from vlm3d_ct.phantom.findings.effusions import FLUID_AND_HEART, PLEURAL, enlarged_heart
from vlm3d_ct.phantom.findings.finding import Finding, Kind, Situation
from vlm3d_ct.phantom.findings.mediastinal import MEDIASTINAL
from vlm3d_ct.phantom.findings.parenchyma import PARENCHYMA
from vlm3d_ct.phantom.findings.volume_loss import VOLUME_LOSS
from vlm3d_ct.phantom.patient import Patient

KINDS: tuple[Kind, ...] = (*FLUID_AND_HEART, *VOLUME_LOSS, *PARENCHYMA, *PLEURAL, *MEDIASTINAL, *DEVICES)
"""Later kinds are painted over earlier ones."""
COUNT_SHARES = (0.15, 0.15, 0.25, 0.25, 0.15, 0.05)
"""Share of the patients with 0, 1, ... 5 kinds of findings."""


def draw_findings(situation: Situation, count: int | None = None) -> tuple[Finding, ...]:
    """Random findings of ``count`` different kinds (drawn by `COUNT_SHARES` if None), in painting order."""
    rng = situation.rng
    if count is None:
        count = int(rng.choice(len(COUNT_SHARES), p=COUNT_SHARES))
    weights = np.array([kind.weight for kind in KINDS])
    chosen = rng.choice(len(KINDS), size=count, replace=False, p=weights / weights.sum())
    by_kind = {int(index): KINDS[index].place(situation) for index in chosen}
    return tuple(finding for index in sorted(by_kind) for finding in by_kind[index])


def paint_findings(canvas: Canvas, patient: Patient, findings: tuple[Finding, ...]) -> None:
    """Paint findings, which are in painting order, on the healthy anatomy; the region ids stay as they are."""
    painters = {kind.abnormality: kind.paint for kind in KINDS}
    heart = enlarged_heart(patient, findings)
    for finding in findings:
        painters[finding.abnormality](canvas, patient, finding, heart)
