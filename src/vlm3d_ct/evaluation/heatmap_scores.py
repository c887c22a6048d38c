"""How well a heat map finds a lesion, beside chance and beside the map of the regions that the phrase names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32

from vlm3d_ct.evaluation.intervals import mean_intervals
from vlm3d_ct.evaluation.lesions import LesionPhrase
from vlm3d_ct.evaluation.metrics.bootstrap import Interval
from vlm3d_ct.evaluation.metrics.localisation import best_dice, dice_at, pointing_hit

FIXED_THRESHOLD = 0.5
"""Of a map stretched to 0..1 over the body; fixed before any label was seen, and the same for every phrase."""
MEASURES = ("pointing", "dice_fixed", "dice_best", "auroc")
"""What is measured of every map, all in 0..1; see `MapScores`."""


@dataclass(frozen=True, kw_only=True)
class MapScores:
    """Scores of one map against one lesion, over the voxels of the body.

    Attributes:
        pointing: 1 where the hottest voxel lies in the lesion, else 0. Of several hottest voxels one outside makes it
            a miss; of the map of regions, where nearly all share a value, it is the share of them in the lesion.
        dice_fixed: Dice of the voxels at or above the middle between the map's least and greatest value.
        dice_best: Dice at the threshold that is best for this very lesion: an upper bound, which no user reaches.
        auroc: probability that a voxel of the lesion is hotter than another voxel of the body; ties count half.
    """

    pointing: float
    dice_fixed: float
    dice_best: float
    auroc: float


@dataclass(frozen=True, kw_only=True)
class PhraseScores:
    """Everything that is known of one phrase.

    Attributes:
        phrase: what was asked for.
        heat: scores of the encoder's map.
        region: scores of the map of the regions that the phrase names (where they are, nothing of the lesion); the
            whole body where it names none.
        lesion_share: share of the body's voxels that the lesion takes: pointing and AUROC of chance are this and 0.5.
        contrast: mean heat in the lesion minus mean heat elsewhere in the body, of the map stretched to 0..1.
    """

    phrase: LesionPhrase
    heat: MapScores
    region: MapScores
    lesion_share: float
    contrast: float

    @property
    def chance(self) -> MapScores:
        """What knows nothing gets: a random point of the body; the whole body marked; AUROC 0.5."""
        whole = 2 * self.lesion_share / (1 + self.lesion_share)
        return MapScores(pointing=self.lesion_share, dice_fixed=whole, dice_best=whole, auroc=0.5)


def score_phrase(
    phrase: LesionPhrase,
    heat: Float32[np.ndarray, "z y x"],
    region: Float32[np.ndarray, "z y x"],
    lesion: Bool[np.ndarray, "z y x"],
    body: Bool[np.ndarray, "z y x"],
) -> PhraseScores:
    """All scores of a phrase, its maps given on the lesion's grid.

    Raises:
        ValueError: the lesion is empty or reaches out of the body.
    """
    if not lesion.any() or (lesion & ~body).any():
        raise ValueError("a lesion must have voxels, all of them in the body")
    truth = lesion[body]
    stretched, named = stretch(heat[body]), stretch(region[body])
    rest = stretched[~truth]
    hottest = named == named.max()
    return PhraseScores(
        phrase=phrase,
        heat=_scores(stretched, truth, float(pointing_hit(*_as_volume(stretched, truth)))),
        region=_scores(named, truth, float(truth[hottest].mean())),
        lesion_share=float(truth.mean()),
        contrast=float(stretched[truth].mean() - rest.mean()) if rest.size else math.nan,
    )


def stretch(values: Float[np.ndarray, " v"]) -> Float32[np.ndarray, " v"]:
    """The values moved and scaled to 0..1; all zero where they are equal or one is not finite."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(high - low) or high <= low:
        return np.zeros(len(values), np.float32)
    scaled: Float32[np.ndarray, " v"] = ((values - low) / (high - low)).astype(np.float32)
    return scaled


def _scores(heat: Float32[np.ndarray, " v"], lesion: Bool[np.ndarray, " v"], pointing: float) -> MapScores:
    volume = _as_volume(heat, lesion)
    return MapScores(
        pointing=pointing,
        dice_fixed=dice_at(*volume, FIXED_THRESHOLD),
        dice_best=best_dice(*volume)[0],
        auroc=voxel_auroc(heat, lesion),
    )


def _as_volume(
    heat: Float32[np.ndarray, " v"], lesion: Bool[np.ndarray, " v"]
) -> tuple[Float32[np.ndarray, "v 1 1"], Bool[np.ndarray, "v 1 1"]]:
    return heat[:, None, None], lesion[:, None, None]


def voxel_auroc(heat: Float32[np.ndarray, " v"], lesion: Bool[np.ndarray, " v"]) -> float:
    """`metrics.binary.auroc` for millions of voxels in single precision: one sort, no copy in double precision.

    NaN where all voxels are of one class.
    """
    positive, negative = np.sort(heat[lesion]), np.sort(heat[~lesion])
    pairs = len(positive) * len(negative)
    if not pairs:
        return math.nan
    below = np.searchsorted(negative, positive, "left").sum(dtype=np.int64)
    up_to = np.searchsorted(negative, positive, "right").sum(dtype=np.int64)
    return float(below + up_to) / (2 * pairs)


@dataclass(frozen=True, kw_only=True)
class HeatMapSummary:
    """Means over phrases, with intervals over patients.

    Attributes:
        num_phrases: how many phrases the means are over.
        num_patients: of how many patients.
        heat: of the encoder's maps, by measure.
        region: of the maps of the named regions, by measure.
        chance: by measure, without an interval.
        gain: AUROC of the heat map minus that of the region map, over the same phrases.
    """

    num_phrases: int
    num_patients: int
    heat: dict[str, Interval]
    region: dict[str, Interval]
    chance: dict[str, float]
    gain: Interval


def summarise_phrases(
    scores: Sequence[PhraseScores], *, num_samples: int, seed: int
) -> tuple[HeatMapSummary, dict[str, HeatMapSummary]]:
    """Of all phrases, and by finding (in alphabetical order); every phrase weighs the same.

    Raises:
        ValueError: there is no phrase.
    """
    if not scores:
        raise ValueError("there is no phrase to summarise")
    findings = sorted({score.phrase.finding for score in scores})
    by_finding = {
        finding: _summarise([s for s in scores if s.phrase.finding == finding], num_samples, seed)
        for finding in findings
    }
    return _summarise(scores, num_samples, seed), by_finding


def _summarise(scores: Sequence[PhraseScores], num_samples: int, seed: int) -> HeatMapSummary:
    patients = [score.phrase.patient_id for score in scores]

    columns = {"gain": np.array([score.heat.auroc - score.region.auroc for score in scores])}
    for name in MEASURES:
        columns[f"heat {name}"] = np.array([getattr(score.heat, name) for score in scores])
        columns[f"region {name}"] = np.array([getattr(score.region, name) for score in scores])
    found = mean_intervals(columns, patients, num_samples=num_samples, seed=seed, differences=("gain",))
    return HeatMapSummary(
        num_phrases=len(scores),
        num_patients=len(set(patients)),
        heat={name: found[f"heat {name}"] for name in MEASURES},
        region={name: found[f"region {name}"] for name in MEASURES},
        chance={name: float(np.mean([getattr(s.chance, name) for s in scores])) for name in MEASURES},
        gain=found["gain"],
    )
