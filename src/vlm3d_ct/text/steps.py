"""The sentences of a text one by one: which tokens are theirs, which regions they speak of, and which say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from vlm3d_ct.seeding import derive_seed
from vlm3d_ct.text.mentions import SentenceMentions, find_mentions
from vlm3d_ct.text.regions import RegionTable
from vlm3d_ct.text.report import Step
from vlm3d_ct.text.sentences import split_sentences

MOST_STEPS = 24
"""Sentences of a text that are steps; those beyond count for the volume and region levels only."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedSteps:
    """The sentences of a text, each a step of its reasoning.

    Attributes:
        of_token: the number of the sentence that a token belongs to, from 1, those beyond the steps included; 0 for
            none.
        regions: what each sentence names; where it names none, what its step's entities name; where those name none,
            what its findings imply.
        groups: identity of each sentence, negative where it only states normality; 0 where there is none.
        places: identity of the set of regions.
    """

    of_token: Int64[np.ndarray, " t"]
    regions: Bool[np.ndarray, "s r"]
    groups: Int64[np.ndarray, " s"]
    places: Int64[np.ndarray, " s"]


def text_group(text: str) -> int:
    """A stable, positive 63-bit id of a text without regard to case and white space."""
    return max(1, derive_seed("text group", " ".join(text.casefold().split())))


def encode_steps(
    text: str,
    sentences: Sequence[SentenceMentions],
    token_spans: Int64[np.ndarray, "t 2"],
    steps: Sequence[Step],
    table: RegionTable,
) -> EncodedSteps:
    """The first `MOST_STEPS` sentences of which a token is left.

    Args:
        text: the answer.
        sentences: all its sentences, with what they mention.
        token_spans: (start, end) of the tokens that are kept, in characters of ``text``.
        steps: the record's steps, for their entities; each is looked for in ``text``, in order.
        table: the regions.
    """
    of_token = np.zeros(len(token_spans), np.int64)
    regions = np.zeros((MOST_STEPS, table.num_regions), np.bool_)
    groups, places = np.zeros(MOST_STEPS, np.int64), np.zeros(MOST_STEPS, np.int64)
    spans = step_spans(text, steps)
    number = 0
    for sentence in sentences:
        start, end = sentence.span
        inside = (token_spans[:, 0] >= start) & (token_spans[:, 1] <= end)
        if not inside.any():
            continue
        number += 1
        of_token[inside] = number
        if number > MOST_STEPS:
            continue
        found = sentence.named or _entity_regions(start, spans, table) or sentence.regions
        regions[number - 1, [region - 1 for region in found]] = True
        group = text_group(text[start:end])
        groups[number - 1] = -group if sentence.normal else group
        places[number - 1] = text_group(" ".join(map(str, sorted(found))))
    return EncodedSteps(of_token=of_token, regions=regions, groups=groups, places=places)


def number_sentences(text: str, token_spans: Int64[np.ndarray, "t 2"]) -> EncodedSteps:
    """The sentences of a text whose regions nobody asks for: their tokens' numbers as `encode_steps` gives them."""
    of_token = np.zeros(len(token_spans), np.int64)
    number = 0
    for start, end in split_sentences(text):
        inside = (token_spans[:, 0] >= start) & (token_spans[:, 1] <= end)
        number += bool(inside.any())
        of_token[inside] = number
    return EncodedSteps(
        of_token=of_token,
        regions=np.zeros((MOST_STEPS, 0), np.bool_),
        groups=np.zeros(MOST_STEPS, np.int64),
        places=np.zeros(MOST_STEPS, np.int64),
    )


def step_spans(text: str, steps: Sequence[Step]) -> list[tuple[int, int, Step]]:
    """(start, end, step) of each step that stands in the text; looked for in order, and elsewhere if not there."""
    spans, position = [], 0
    for step in steps:
        start = text.find(step.text, position)
        if start >= 0:
            position = start + len(step.text)
        else:
            start = text.find(step.text)
        if start >= 0:
            spans.append((start, start + len(step.text), step))
    return spans


def _entity_regions(place: int, spans: Sequence[tuple[int, int, Step]], table: RegionTable) -> frozenset[int]:
    """What the entities of the steps at a place of the text name."""
    entities = [entity for start, end, step in spans if start <= place < end for entity in step.entities]
    mentioned = (mention for entity in entities for mention in find_mentions(entity, table))
    return frozenset(region for mention in mentioned for region in mention.regions)
