"""All kinds of findings in the order in which they are painted, and the drawing of a patient's findings."""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.bronchi import BRONCHIAL
from vlm3d_ct.phantom.findings.devices import DEVICES
from vlm3d_ct.phantom.findings.effusions import FLUID_AND_HEART, PLEURAL, enlarged_heart
from vlm3d_ct.phantom.findings.emphysema import EMPHYSEMA
from vlm3d_ct.phantom.findings.fibrosis import FIBROSIS
from vlm3d_ct.phantom.findings.finding import Finding, Kind, Situation
from vlm3d_ct.phantom.findings.interstitium import INTERSTITIUM
from vlm3d_ct.phantom.findings.mediastinal import MEDIASTINAL
from vlm3d_ct.phantom.findings.mosaic import MOSAIC
from vlm3d_ct.phantom.findings.parenchyma import PARENCHYMA
from vlm3d_ct.phantom.findings.volume_loss import VOLUME_LOSS
from vlm3d_ct.phantom.patient import Patient

KINDS: tuple[Kind, ...] = (
    *FLUID_AND_HEART,
    *EMPHYSEMA,
    *MOSAIC,
    *INTERSTITIUM,
    *FIBROSIS,
    *BRONCHIAL,
    *VOLUME_LOSS,
    *PARENCHYMA,
    *PLEURAL,
    *MEDIASTINAL,
    *DEVICES,
)
"""Later kinds are painted over earlier ones."""
COUNT_SHARES = (0.15, 0.15, 0.25, 0.25, 0.15, 0.05)
"""Share of the patients for whom 0, 1, ... 5 kinds of findings are drawn; companions come on top."""


def draw_findings(situation: Situation, count: int | None = None) -> tuple[Finding, ...]:
    """Random findings of ``count`` different kinds (drawn by `COUNT_SHARES` if None) and their companions.

    In painting order. A kind for which the lungs have no room left is dropped.
    """
    rng = situation.rng
    if count is None:
        count = int(rng.choice(len(COUNT_SHARES), p=COUNT_SHARES))
    weights = np.array([kind.weight for kind in KINDS])
    chosen = [KINDS[i] for i in rng.choice(len(KINDS), size=count, replace=False, p=weights / weights.sum())]
    situation.planned.update(kind.abnormality for kind in chosen)
    chosen.sort(key=lambda kind: not kind.displaces)
    found = [finding for kind in chosen for finding in kind.place(situation)]
    order = {kind.abnormality: number for number, kind in enumerate(KINDS)}
    return tuple(sorted(found, key=lambda finding: order[finding.abnormality]))


def paint_findings(canvas: Canvas, patient: Patient, findings: tuple[Finding, ...]) -> None:
    """Paint findings, which are in painting order, on the healthy anatomy; the region ids stay as they are.

    The canvas's lesions become 1 + the index of the finding.
    """
    painters = {kind.abnormality: kind.paint for kind in KINDS}
    heart = enlarged_heart(patient, findings)
    for number, finding in enumerate(findings, start=1):
        canvas.lesion = number
        painters[finding.abnormality](canvas, patient, finding, heart)
    canvas.lesion = 0
