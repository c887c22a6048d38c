"""Is each abnormality in the voxels? A rule that reads HU inside the true lesion mask, against the healthy twin.

For every finding one number is read from the voxels under its lesion mask, and the same number from the same voxels
of the same patient scanned without findings (with other noise). The area under the ROC curve over all cases says how
well the number tells a lesion from healthy tissue in its place.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Int16
from sklearn.metrics import roc_auc_score

from phantom.cases import DrawnCase, GridName, for_each_case, healthy_scan
from vlm3d_ct.text.findings import ABNORMALITIES

LIMIT = 0.95
FEWEST_VOXELS = 8
"""Findings that later ones cover to less than this are left out, and counted."""
Voxels = Int16[np.ndarray, " n"]


def _mean(hu: Voxels) -> float:
    return float(hu.mean())


def _spread(hu: Voxels) -> float:
    """Lumen, wall and vessel side by side, or light and dark lobules."""
    return float(np.subtract(*np.percentile(hu, [90, 10])))


def _dense(hu: Voxels) -> float:
    """Calcium and metal: the densest tenth."""
    return float(np.percentile(hu, 90))


def _without_fat(hu: Voxels) -> float:
    """A pouch of stomach takes the place of the mediastinum's fat."""
    return float(-((hu > -150) & (hu < -30)).mean())


def _dark(hu: Voxels) -> float:
    """Air without tissue: share below -950 HU (Gevenois et al., 1995)."""
    return float((hu < -950).mean())


RULES: dict[str, tuple[Callable[[Voxels], float], str]] = {
    "Medical material": (_dense, "90th percentile"),
    "Arterial wall calcification": (_dense, "90th percentile"),
    "Cardiomegaly": (_mean, "mean, outside the healthy heart"),
    "Pericardial effusion": (_mean, "mean, outside the healthy heart"),
    "Coronary artery wall calcification": (_dense, "90th percentile"),
    "Hiatal hernia": (_without_fat, "share that is no fat"),
    "Lymphadenopathy": (_mean, "mean"),
    "Emphysema": (_dark, "share below -950 HU"),
    "Atelectasis": (_mean, "mean"),
    "Lung nodule": (_mean, "mean"),
    "Lung opacity": (_mean, "mean"),
    "Pulmonary fibrotic sequela": (_mean, "mean"),
    "Pleural effusion": (_mean, "mean"),
    "Mosaic attenuation pattern": (_mean, "mean below that of the lung around"),
    "Peribronchial thickening": (_mean, "mean"),
    "Consolidation": (_mean, "mean"),
    "Bronchiectasis": (_spread, "90th less 10th percentile"),
    "Interlobular septal thickening": (_mean, "mean"),
}
HEART, PERICARDIUM = 8, 9
LUNGS = (1, 2, 3, 4, 5, 7)
MOSAIC = "Mosaic attenuation pattern"
"""Its dark lobules are read against the lung around them, which differs from patient to patient."""
AROUND_THE_HEART = ("Cardiomegaly", "Pericardial effusion")
"""Their masks hold healthy heart as well; what is new is outside it."""


def readings(case: DrawnCase) -> list[tuple[str, float, float]]:
    """Of every finding that can be seen: its abnormality, and the rule's number with and without it."""
    healthy, found = healthy_scan(case), []
    heart, lungs = np.isin(case.scan.labels, (HEART, PERICARDIUM)), np.isin(case.scan.labels, LUNGS)
    for number, finding in enumerate(case.subject.findings, start=1):
        inside = case.scan.lesions == number
        if finding.abnormality in AROUND_THE_HEART:
            inside &= ~heart
        rule, _ = RULES[finding.abnormality]
        if np.count_nonzero(inside) < FEWEST_VOXELS:
            found.append((finding.abnormality, float("nan"), float("nan")))
        elif finding.abnormality == MOSAIC:
            around = lungs & ~inside
            found.append(
                (
                    MOSAIC,
                    *(rule(scan.voxels_hu[around]) - rule(scan.voxels_hu[inside]) for scan in (case.scan, healthy)),
                )
            )
        else:
            found.append((finding.abnormality, rule(case.scan.voxels_hu[inside]), rule(healthy.voxels_hu[inside])))
    return found


def measure(seed: int, grid: GridName, count: int) -> dict[str, tuple[float, int, int]]:
    """By abnormality: area under the ROC curve, findings read, findings left out because hardly any voxel is theirs."""
    rows = [row for case in for_each_case(readings, seed, grid, count, f"Lesions, {grid} grid") for row in case]
    measured = {}
    for name in ABNORMALITIES:
        values = np.array([(diseased, healthy) for abnormality, diseased, healthy in rows if abnormality == name])
        values = values.reshape(-1, 2)
        seen = values[np.isfinite(values[:, 0])]
        truth = np.repeat([1, 0], len(seen))
        area = float(roc_auc_score(truth, seen.T.ravel())) if len(seen) else float("nan")
        measured[name] = (area, len(seen), len(values) - len(seen))
    return measured
