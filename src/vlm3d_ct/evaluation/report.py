"""The report of a retrieval evaluation: one HTML file that holds everything it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from vlm3d_ct.embeddings import EmbeddingSet
from vlm3d_ct.evaluation.charts import rank_histogram, training_curves
from vlm3d_ct.evaluation.examples import MATCHES_PER_LIST, Example
from vlm3d_ct.evaluation.matches import Match, best_and_worst
from vlm3d_ct.evaluation.metrics_log import MetricsLog
from vlm3d_ct.evaluation.pictures import sections_picture, thumbnail
from vlm3d_ct.evaluation.results import RIGHT_ITEM, describe_shared_texts, format_share
from vlm3d_ct.evaluation.retrieval import DIRECTIONS, RECALL_AT, Direction, RetrievalResult

NUM_SECTION_PICTURES = 3
MAX_TEXT_CHARACTERS = 1200


@dataclass(frozen=True, kw_only=True)
class Side:
    """One item of a match as the page shows it: a case, its text, its thumbnail (a data URI)."""

    case_id: str
    text: str
    picture: str


@dataclass(frozen=True, kw_only=True)
class ShownMatch:
    """A match with what the page shows of it; ``rival`` is None where that case was not loaded or does not exist."""

    match: Match
    own: Side
    rival: Side | None


class ReportWriter:
    """Renders the page for one evaluation.

    Args:
        pool_name: what was evaluated, in words.
        embeddings: of the pool.
        results: what to show, the main one first; single cases are judged by the last.
        examples: the cases to show; all pictures and texts come from them.
        logs: the stages of training, in order.
        left_out: cases not in the pool, by reason.
        window_hu: (centre, width) of the pictures.
        region_names: name of region id i + 1 at index i.
    """

    def __init__(
        self,
        *,
        pool_name: str,
        embeddings: EmbeddingSet,
        results: Sequence[RetrievalResult],
        examples: Sequence[Example],
        logs: Sequence[MetricsLog],
        left_out: Mapping[str, int],
        window_hu: tuple[float, float],
        region_names: Sequence[str],
    ):
        self.pool_name, self.embeddings, self.results = pool_name, embeddings, results
        self.examples = {example.case_id: example for example in examples}
        self.logs, self.left_out = logs, left_out
        self.window_hu, self.region_names = window_hu, region_names
        self._sides: dict[str, Side] = {}

    def render(self) -> str:
        """The page: no script, no address outside of it, every text escaped."""
        environment = Environment(
            loader=PackageLoader("vlm3d_ct.evaluation"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        environment.filters["share"] = format_share
        main = self.results[0]
        return environment.get_template("retrieval.html").render(
            pool_name=self.pool_name,
            provenance=self.embeddings.provenance,
            left_out=self.left_out,
            main=main,
            results=self.results,
            recall_names=[f"R@{k}" for k in RECALL_AT],
            right_item=RIGHT_ITEM,
            shared_texts=describe_shared_texts(main),
            logs=[(log, training_curves(log)) for log in self.logs],
            histogram=rank_histogram(
                main.image_to_text_ranks, main.text_to_image_ranks, one_right_item=main.duplicates == "own"
            ),
            section_pictures=self._section_pictures(),
            matches={direction: self._matches(direction) for direction in DIRECTIONS},
            window_hu=self.window_hu,
        )

    def _section_pictures(self) -> list[tuple[str, str]]:
        """Case id and picture of the first examples, those with regions before those without."""
        order = sorted(self.examples.values(), key=lambda example: example.labels is None or not example.labels.any())
        return [
            (
                example.case_id,
                sections_picture(
                    example.voxels_hu,
                    example.labels,
                    example.spacing_mm,
                    window_hu=self.window_hu,
                    region_names=("lesion",) if example.voxels_hu.dtype == np.uint8 else self.region_names,
                ),
            )
            for example in order[:NUM_SECTION_PICTURES]
        ]

    def _matches(self, direction: Direction) -> dict[str, list[ShownMatch]]:
        """The best and the worst matches of the pool whose case was loaded, by the last of the rules."""
        best, worst = best_and_worst(self.embeddings, self.results[-1], direction, MATCHES_PER_LIST)
        return {
            title: [self._shown(match) for match in matches if match.case_id in self.examples]
            for title, matches in (("Best", best), ("Worst", worst))
        }

    def _shown(self, match: Match) -> ShownMatch:
        rival = self._side(match.rival_id) if match.rival_id in self.examples else None
        return ShownMatch(match=match, own=self._side(match.case_id), rival=rival)

    def _side(self, case_id: str) -> Side:
        if case_id not in self._sides:
            example = self.examples[case_id]
            self._sides[case_id] = Side(
                case_id=case_id,
                text=shorten(example.text),
                picture=thumbnail(example.voxels_hu, example.labels, example.spacing_mm, window_hu=self.window_hu),
            )
        return self._sides[case_id]


def shorten(text: str) -> str:
    """The text, cut behind a word near 1,200 characters and marked with an ellipsis where it is longer."""
    if len(text) <= MAX_TEXT_CHARACTERS:
        return text
    return text[:MAX_TEXT_CHARACTERS].rsplit(" ", 1)[0] + " …"
