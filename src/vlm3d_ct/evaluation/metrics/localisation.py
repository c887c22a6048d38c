"""Heat maps against lesion masks: does the hottest point hit, and how well can a cut of the map match?"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float


def pointing_hit(heat: Float[np.ndarray, "z y x"], lesion: Bool[np.ndarray, "z y x"]) -> bool:
    """Whether the hottest voxel lies in the lesion (the pointing game, Zhang et al. 2018, without its tolerance).

    Of several hottest voxels one outside makes a miss: ties count against the map, and so does a NaN anywhere. A hit
    says that one point is right, not that the map has the lesion's extent.

    Raises:
        ValueError: the map has no voxels.
    """
    highest = heat.max()
    if math.isnan(highest):
        return False
    return bool(lesion[heat == highest].all())


def dice_at(heat: Float[np.ndarray, "z y x"], lesion: Bool[np.ndarray, "z y x"], threshold: float) -> float:
    """Dice (0..1) of the voxels at or above the threshold: 2 TP / (2 TP + FP + FN); NaN where both are empty.

    It compares for equal thresholds and lesions of equal size only: a small lesion is matched less easily. The
    threshold must not come from the lesions that are measured.
    """
    marked = heat >= threshold
    total = int(np.count_nonzero(marked)) + int(np.count_nonzero(lesion))
    return 2 * int(np.count_nonzero(marked & lesion)) / total if total else math.nan


def best_dice(heat: Float[np.ndarray, "z y x"], lesion: Bool[np.ndarray, "z y x"]) -> tuple[float, float]:
    """The highest `dice_at` of any threshold, and the highest threshold that reaches it.

    The threshold is chosen on the very lesion: an upper bound of what a cut of this map can be, no performance. Only
    values that occur in the lesion can be best, so only these are tried. A lesion without voxels gives (NaN, NaN); a
    NaN in the map is never marked.
    """
    inside, outside = heat[lesion], heat[~lesion]
    num_inside = len(inside)
    inside, outside = np.sort(inside[~np.isnan(inside)]), np.sort(outside[~np.isnan(outside)])
    if not num_inside:
        return math.nan, math.nan
    if not len(inside):
        return 0.0, math.nan
    thresholds, first = np.unique(inside, return_index=True)
    true_positive = len(inside) - first
    false_positive = len(outside) - np.searchsorted(outside, thresholds, side="left")
    dice = 2 * true_positive / (true_positive + false_positive + num_inside)
    best = len(dice) - 1 - int(np.argmax(dice[::-1]))
    return float(dice[best]), float(thresholds[best])
