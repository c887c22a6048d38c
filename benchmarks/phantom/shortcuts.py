"""Shortcuts: can an abnormality be guessed from what is not the abnormality?

For every abnormality a classifier is trained on features that should say nothing of it, and judged by its area under
the ROC curve over five folds. Two classifiers are tried, logistic regression and boosted trees, and the better one
counts, so that the table errs on the side of finding a shortcut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from isal import igzip
from jaxtyping import Bool, Float64
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from phantom.cases import DrawnCase, GridName, for_each_case, labels_of
from vlm3d_ct.phantom.scan import Scan
from vlm3d_ct.phantom.wording import write_report
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.text.findings import ABNORMALITIES

LIMIT = 0.65
FOLDS = 5
NUM_REGIONS = 20
HISTOGRAM_EDGES_HU = np.concatenate([np.arange(-1024, 400, 32), np.arange(400, 3200, 200)])
"""Fine where tissues are, coarse in bone and metal."""
EVEN_REGIONS = (17, 18, 19)
"""Chest wall, liver and spleen."""
BY_NATURE = {
    ("global histogram", "Cardiomegaly"): "a large heart is more blood and less lung",
    ("global histogram", "Medical material"): "metal is denser than anything else",
    ("global histogram", "Emphysema"): "lung below -950 HU is its definition",
}
"""Where the finding is that quantity; each is still measured and shown."""


@dataclass(frozen=True)
class Features:
    """What the shortcuts see of one case: a row of numbers by the shortcut's name."""

    rows: dict[str, list[float]]
    labels: tuple[bool, ...]


def features(case: DrawnCase) -> Features:
    """All shortcuts of a case."""
    voxels, acquisition = case.scan.voxels_hu, case.acquisition
    report = write_report(
        random_stream(*case.subject.coordinates, "report"), case.subject.patient, case.subject.findings, hard=False
    ).answer
    rows = {
        "shape and spacing": [*acquisition.shape, *acquisition.spacing_mm, acquisition.slice_thickness_mm],
        "noise": _noise(case.scan),
        "file size": [len(igzip.compress(array.tobytes(), 1)) / 1e3 for array in (voxels, case.scan.labels)],
        "text length": [len(report), len(report.split())],
        "global histogram": _histogram(voxels),
        "region masks": _shapes(case.scan.labels),
    }
    return Features({name: [float(number) for number in row] for name, row in rows.items()}, case.labels)


def _noise(scan: Scan) -> list[float]:
    """Median size of second differences along x and y within even tissues."""
    voxels, levels = scan.voxels_hu.astype(np.float32), []
    for region in EVEN_REGIONS:
        inside = scan.labels == region
        for axis in (1, 2):
            second, within = np.diff(voxels, 2, axis=axis), np.diff(inside, axis=axis)
            head, tail = (
                tuple(part if a == axis else slice(None) for a in range(3))
                for part in (slice(1, None), slice(None, -1))
            )
            clear = ~(within[head] | within[tail]) & np.take(inside, range(1, inside.shape[axis] - 1), axis=axis)
            found = np.abs(second[clear])
            levels.append(float(np.median(found)) if found.size else 0.0)
    return levels


def _histogram(voxels_hu: np.ndarray) -> list[float]:
    """Logarithm of the number of voxels in each bin."""
    counts, _ = np.histogram(np.clip(voxels_hu, -1024, 3071), bins=HISTOGRAM_EDGES_HU)
    return np.log1p(counts).tolist()


def _shapes(labels: np.ndarray) -> list[float]:
    """Volume, centre and box of every region, in voxels."""
    row: list[float] = []
    ids = range(1, NUM_REGIONS + 1)
    counts = np.bincount(labels.ravel(), minlength=NUM_REGIONS + 1)[1 : NUM_REGIONS + 1]
    centres = ndimage.center_of_mass(np.ones_like(labels), labels, ids)
    boxes = ndimage.find_objects(labels, max_label=NUM_REGIONS)
    for count, centre, box in zip(counts, centres, boxes, strict=True):
        ends = [end for part in box for end in (part.start, part.stop)] if box else [0] * 6
        row += [float(count), *(0.0 if count == 0 else float(c) for c in centre), *ends]
    return row


def measure(seed: int, grid: GridName, count: int) -> dict[str, dict[str, float]]:
    """Area under the ROC curve by shortcut and abnormality, over ``count`` cases."""
    cases = for_each_case(features, seed, grid, count, f"Shortcuts, {grid} grid")
    labels = labels_of(case.labels for case in cases)
    return {
        name: {
            abnormality: _worst(name, np.array([case.rows[name] for case in cases]), labels[:, column])
            for column, abnormality in enumerate(ABNORMALITIES)
        }
        for name in cases[0].rows
    }


def _worst(name: str, rows: Float64[np.ndarray, "n f"], present: Bool[np.ndarray, " n"]) -> float:
    """Of lengths each one alone: characters and words together tell short words from long ones."""
    if name != "text length":
        return guess(rows, present)
    return max(guess(rows[:, [column]], present) for column in range(rows.shape[1]))


def guess(rows: Float64[np.ndarray, "n f"], present: Bool[np.ndarray, " n"]) -> float:
    """Area under the ROC curve of the better of two classifiers, out of fold."""
    varying = rows[:, rows.std(0) > 1e-12]
    if not varying.shape[1]:
        return 0.5
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    models = (
        make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)),
        HistGradientBoostingClassifier(max_iter=60, max_depth=3, learning_rate=0.1, random_state=0),
    )
    scores = [cross_val_predict(model, varying, present, cv=folds, method="predict_proba")[:, 1] for model in models]
    return max(float(roc_auc_score(present, score)) for score in scores)
