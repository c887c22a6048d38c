"""The few regions that the report shows: the surest hits and the gravest misses among the regions of a case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from vlm3d_ct.data.cache import Cache
from vlm3d_ct.data.case import Case
from vlm3d_ct.embeddings import EmbeddingSet
from vlm3d_ct.evaluation.metrics.alignment import within_cases
from vlm3d_ct.text.mentions import find_mentions
from vlm3d_ct.text.regions import RegionTable
from vlm3d_ct.volumes.preprocess import Prepared

SHOWN_PER_LIST = 3
"""Regions in each list of hits and of misses."""


@dataclass(frozen=True, kw_only=True)
class RegionMatch:
    """A region of a case against the other regions of the case.

    Attributes:
        case: index of the case.
        region: index of the region.
        rival: index of the other region whose sentences came nearest.
        margin: cosine with its own sentences minus that with the rival's; not above 0 for a miss.
    """

    case: int
    region: int
    rival: int
    margin: float


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownRegion:
    """A match with what its card needs.

    Attributes:
        match: which.
        case_id: of the case.
        name: of the region; ``rival_name`` of the rival.
        sentences: what the report says of the region; ``rival_sentences`` of the rival.
        prepared: the case.
        labels: the given mask where it has the region, 0 elsewhere; None where the case has none.
    """

    match: RegionMatch
    case_id: str
    name: str
    rival_name: str
    sentences: str
    rival_sentences: str
    prepared: Prepared
    labels: UInt8[np.ndarray, "z y x"] | None


def choose_regions(embeddings: EmbeddingSet) -> tuple[list[RegionMatch], list[RegionMatch]]:
    """The surest hits and the gravest misses within cases, by margin; in each list no case and no region twice."""
    outcomes = within_cases(
        embeddings.region_volume, embeddings.region_text, embeddings.region_mentions, embeddings.region_groups
    )
    hits = np.where(outcomes.counted & outcomes.correct, -outcomes.margin, np.inf)
    misses = np.where(outcomes.counted & ~outcomes.correct, outcomes.margin, np.inf)
    found: list[list[RegionMatch]] = []
    for order in (hits, misses):
        matches: list[RegionMatch] = []
        cases, regions = set[int](), set[int]()
        for flat in np.argsort(order, axis=None, kind="stable"):
            case, region = divmod(int(flat), order.shape[1])
            if len(matches) == SHOWN_PER_LIST or not np.isfinite(order[case, region]):
                break
            if case not in cases and region not in regions:
                cases.add(case)
                regions.add(region)
                rival, margin = int(outcomes.rival[case, region]), float(outcomes.margin[case, region])
                matches.append(RegionMatch(case=case, region=region, rival=rival, margin=margin))
        found.append(matches)
    return found[0], found[1]


def show_regions(
    matches: Sequence[RegionMatch], cases: Sequence[Case], cache: Cache, table: RegionTable
) -> list[ShownRegion]:
    """The matches with voxels and sentences; ``cases`` in the order of the embeddings that the matches come from."""
    shown = []
    for match in matches:
        case = cases[match.case]
        prepared = cache.read(case)
        labels = None
        if case.kind == "volume" and prepared.labels is not None:
            labels = np.where(prepared.labels == match.region + 1, prepared.labels, 0).astype(np.uint8)
        shown.append(
            ShownRegion(
                match=match,
                case_id=case.case_id,
                name=table.names[match.region],
                rival_name=table.names[match.rival],
                sentences=sentences_about(case.reports[0].answer, match.region + 1, table),
                rival_sentences=sentences_about(case.reports[0].answer, match.rival + 1, table),
                prepared=prepared,
                labels=labels,
            )
        )
    return shown


def sentences_about(text: str, region: int, table: RegionTable) -> str:
    """The sentences of a text that mention the region (an id), joined by spaces."""
    return " ".join(text[slice(*mention.span)] for mention in find_mentions(text, table) if region in mention.regions)
