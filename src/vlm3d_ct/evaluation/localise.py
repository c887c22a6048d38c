"""Scores the phrases of a pool case by case; of the maps nothing is kept but those of the few phrases to be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from vlm3d_ct.data.cache import Cache
from vlm3d_ct.data.case import Case
from vlm3d_ct.evaluation.heatmap_scores import PhraseScores, score_phrase, stretch
from vlm3d_ct.evaluation.heatmaps import map_phrases, resize_map
from vlm3d_ct.evaluation.lesions import LesionPhrase, read_scene
from vlm3d_ct.inference import Encoder, MaskUse
from vlm3d_ct.log import track
from vlm3d_ct.volumes.preprocess import Prepared
from vlm3d_ct.volumes.resize import Size, resize_nearest

SHOWN_PER_LIST = 3
"""Phrases in each list of hits and of misses."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownPhrase:
    """A phrase with what its picture needs, all on the grid of the prepared case.

    Attributes:
        scores: of the phrase.
        prepared: the case.
        heat: the encoder's map stretched to 0..1 over the body, 0 elsewhere.
        lesion: where the lesion is.
    """

    scores: PhraseScores
    prepared: Prepared
    heat: Float32[np.ndarray, "z y x"]
    lesion: Bool[np.ndarray, "z y x"]


def score_phrases(
    encoder: Encoder,
    cases: Sequence[Case],
    cache: Cache,
    phrases: Sequence[LesionPhrase],
    masks: Mapping[str, MaskUse],
) -> tuple[dict[str, list[PhraseScores]], int]:
    """Scores of every phrase by use of the masks, and how many phrases were left out as their lesion has no voxel.

    At most one case's voxels and features are held. A scan of 512 x 512 x 300 voxels takes about 1.5 GB with its maps.

    Raises:
        DataError: a lesion mask cannot be used.
    """
    by_case: dict[str, list[LesionPhrase]] = {}
    for phrase in phrases:
        by_case.setdefault(phrase.case_id, []).append(phrase)
    chosen = [case for case in cases if case.case_id in by_case]
    scores: dict[str, list[PhraseScores]] = {name: [] for name in masks}
    num_empty = 0
    for case in track(chosen, "Heat maps", total=len(chosen)):
        scene = read_scene(case, cache)
        present = [phrase for phrase in by_case[case.case_id] if np.isin(scene.lesions, phrase.lesion_ids).any()]
        num_empty += len(by_case[case.case_id]) - len(present)
        if not present:
            continue
        size = _size(scene.lesions)
        for name, use in masks.items():
            maps = map_phrases(encoder, scene.prepared, [phrase.text for phrase in present], use)
            scores[name] += [
                score_phrase(
                    phrase,
                    resize_map(maps.heat[i], size),
                    resize_map(maps.regions[i], size),
                    np.isin(scene.lesions, phrase.lesion_ids),
                    scene.body,
                )
                for i, phrase in enumerate(present)
            ]
    return scores, num_empty


def hits_and_misses(scores: Sequence[PhraseScores]) -> tuple[list[PhraseScores], list[PhraseScores]]:
    """The phrases of the highest and of the lowest AUROC, three each, the most extreme first; none is in both lists."""
    order = sorted(scores, key=lambda score: (-score.heat.auroc, score.phrase.case_id, score.phrase.text))
    known = [score for score in order if not np.isnan(score.heat.auroc)]
    return known[:SHOWN_PER_LIST], known[SHOWN_PER_LIST:][::-1][:SHOWN_PER_LIST]


def show_phrase(
    encoder: Encoder, cases: Sequence[Case], cache: Cache, scores: PhraseScores, masks: MaskUse
) -> ShownPhrase:
    """The map of one phrase once more, for a picture."""
    case = next(case for case in cases if case.case_id == scores.phrase.case_id)
    scene = read_scene(case, cache)
    size = _size(scene.prepared.voxels_hu)
    heat = resize_map(map_phrases(encoder, scene.prepared, [scores.phrase.text], masks).heat[0], size)
    body = resize_nearest(scene.body.astype(np.uint8), size).astype(bool)
    lesion = resize_nearest(np.isin(scene.lesions, scores.phrase.lesion_ids).astype(np.uint8), size).astype(bool)
    stretched = np.zeros(size, np.float32)
    stretched[body] = stretch(heat[body])
    return ShownPhrase(scores=scores, prepared=scene.prepared, heat=stretched, lesion=lesion)


def _size(array: np.ndarray) -> Size:
    z, y, x = array.shape
    return z, y, x
