"""What prompts say of each case, held against whole volumes or against the regions that they speak of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float32, Float64

from vlm3d_ct.evaluation.metrics.ranking import exact_rows
from vlm3d_ct.evaluation.prompts import PromptTable, Wording
from vlm3d_ct.inference import Encoder
from vlm3d_ct.log import warn
from vlm3d_ct.text.mentions import find_mentions
from vlm3d_ct.text.regions import RegionTable, load_region_table

Scoring = Literal["main", "ensemble"]
SCORINGS: tuple[Scoring, Scoring] = ("main", "ensemble")
Against = Literal["volume", "regions"]
AGAINST: tuple[Against, ...] = get_args(Against)
EmbedText = Callable[[Sequence[str]], Float32[np.ndarray, "m d"]]
Places = Callable[[Sequence[Wording]], Bool[np.ndarray, " k"]]
"""Which of a case's embeddings wordings are held against."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptScores:
    """What the prompts say of n cases.

    Attributes:
        table: the prompts.
        asked: by class, the regions that its prompts were held against; empty for whole volumes.
        margins: by scoring and class, logit of "present" minus logit of "absent"; main wording, and ensemble.
        by_wording: by class and wording, the same of every wording alone.
        positive: cosine of each case with each class's ensemble of positive prompts, for choosing one class of many.
    """

    table: PromptTable
    asked: Mapping[str, tuple[str, ...]]
    margins: Mapping[Scoring, Float64[np.ndarray, "n c"]]
    by_wording: Mapping[str, Mapping[str, Float64[np.ndarray, " n"]]]
    positive: Float64[np.ndarray, "n c"]

    def probabilities(self, scoring: Scoring) -> Float64[np.ndarray, "n c"]:
        """First entry of the softmax over the pair (present, absent), 0..1."""
        return probability(self.margins[scoring])

    @property
    def identity(self) -> str:
        """Of the prompts and what they are held against: thresholds of others mean nothing."""
        return identity(self.table, "regions" if self.asked else "volume")


def identity(table: PromptTable, against: Against) -> str:
    """See `PromptScores.identity`."""
    return table.identity if against == "volume" else f"{table.identity} against {against}"


def probability(margins: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """The softmax of a pair of logits from their difference: 1 / (1 + exp(-margin))."""
    found: Float64[np.ndarray, "*n"] = 0.5 * (1.0 + np.tanh(0.5 * margins))
    return found


def score_prompts(
    volume: Float32[np.ndarray, "n d"], table: PromptTable, embed_text: EmbedText, logit_scale: float
) -> PromptScores:
    """Score every case's whole volume against every prompt.

    A margin is ``logit_scale`` times the difference of the cosines with the positive and the negative prompt. An
    ensemble compares with the mean of the (unit) embeddings of all wordings, brought back to length 1 (CLIP). Cosines
    are exact sums of embeddings rounded as in `metrics.ranking`: they do not depend on how a product was summed.
    """
    return _score(volume[:, None], lambda _: np.ones(1, np.bool_), table, embed_text, logit_scale, {})


def score_prompts_at_regions(
    region_volume: Float32[np.ndarray, "n r d"],
    table: PromptTable,
    embed_text: EmbedText,
    logit_scale: float,
    regions: RegionTable,
) -> PromptScores:
    """Score every case's regions against the prompts that speak of them (after fVLM, Shui et al. 2025).

    As `score_prompts`, for each region that a wording names or implies, or all where it speaks of none; the largest
    margin counts, for a finding is as present as where it is most so. An ensemble asks of every region that any of its
    wordings speaks of. A maximum of several margins is high by chance, too: margins rank the cases of a class, but are
    not those of one pair of prompts.

    Args:
        region_volume: unit vectors of the cases' regions.
        table: the prompts.
        embed_text: embeds texts as the region level does.
        logit_scale: the model's inverse temperature.
        regions: the region table.
    """
    places = partial(asked_places, regions=regions)
    names = {
        name: tuple(region for region, chosen in zip(regions.names, places(found), strict=True) if chosen)
        for name, found in table.wordings.items()
    }
    return _score(region_volume, places, table, embed_text, logit_scale, names)


def ask(
    encoder: Encoder,
    table: PromptTable,
    against: Against,
    volume: Float32[np.ndarray, "n d"],
    region_volume: Float32[np.ndarray, "n r d"],
) -> PromptScores:
    """What an encoder's prompts say of its embeddings of n scans; with a warning where it was not trained for it.

    Args:
        encoder: that made the embeddings.
        table: the prompts.
        against: what they are held against.
        volume: unit vectors of the scans.
        region_volume: unit vectors of their regions.
    """
    if against == "volume":
        return score_prompts(volume, table, encoder.embed_text, encoder.logit_scale)
    if encoder.config.objective.sentence_region_weight == 0:
        warn("--against regions: the model was trained without objective.sentence_region_weight; it may know no 'no'")
    embed = encoder.embed_text_for_regions
    return score_prompts_at_regions(region_volume, table, embed, encoder.logit_scale, load_region_table())


def asked_places(wordings: Sequence[Wording], regions: RegionTable) -> Bool[np.ndarray, " r"]:
    """The regions that any of these wordings names or implies; all of them where none does."""
    chosen = np.zeros(regions.num_regions, np.bool_)
    for text in (text for wording in wordings for text in (wording.positive, wording.negative)):
        for mention in find_mentions(text, regions):
            chosen[[region - 1 for region in mention.named or mention.regions]] = True
    return chosen if chosen.any() else ~chosen


def _score(
    cases: Float32[np.ndarray, "n k d"],
    places: Places,
    table: PromptTable,
    embed_text: EmbedText,
    logit_scale: float,
    asked: Mapping[str, tuple[str, ...]],
) -> PromptScores:
    wordings = [wording for found in table.wordings.values() for wording in found]
    texts = list(dict.fromkeys(text for wording in wordings for text in (wording.positive, wording.negative)))
    embedded = dict(zip(texts, embed_text(texts).astype(np.float64), strict=True))
    n, k, d = cases.shape
    exact = exact_rows(cases.reshape(n * k, d), "image").reshape(n, k, d)
    by_wording: dict[str, dict[str, Float64[np.ndarray, " n"]]] = {}
    ensemble, positive = [], []
    for name, found in table.wordings.items():
        by_wording[name] = {}
        for wording in found:
            pair = [embedded[wording.positive], embedded[wording.negative]]
            cosines = _cosines(exact[:, places([wording])], pair)
            by_wording[name][wording.name] = logit_scale * (cosines[..., 0] - cosines[..., 1]).max(axis=1)
        yes, no = [embedded[w.positive] for w in found], [embedded[w.negative] for w in found]
        own = exact[:, places(found)]
        present, absent = (_cosines(own, [_mean(vectors)])[..., 0] for vectors in (yes, no))
        ensemble.append(logit_scale * (present - absent).max(axis=1))
        positive.append(present.max(axis=1))
    main = [by_wording[name][found[0].name] for name, found in table.wordings.items()]
    return PromptScores(
        table=table,
        asked=asked,
        margins={"main": np.stack(main, axis=1), "ensemble": np.stack(ensemble, axis=1)},
        by_wording=by_wording,
        positive=np.stack(positive, axis=1),
    )


def _cosines(
    cases: Float64[np.ndarray, "n k d"], vectors: Sequence[Float64[np.ndarray, " d"]]
) -> Float64[np.ndarray, "n k m"]:
    found: Float64[np.ndarray, "n k m"] = cases @ exact_rows(np.stack(vectors).astype(np.float32), "prompt").T
    return found


def _mean(vectors: Sequence[Float64[np.ndarray, " d"]]) -> Float64[np.ndarray, " d"]:
    mean: Float64[np.ndarray, " d"] = np.mean(np.stack(vectors), axis=0)
    length = np.linalg.norm(mean)
    return mean / length if length else mean
