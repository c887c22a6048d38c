"""The report of a retrieval evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vlm3d_ct.evaluation.charts import health_picture, rank_histogram, training_curves
from vlm3d_ct.evaluation.examples import MATCHES_PER_LIST, Example
from vlm3d_ct.evaluation.matches import Match, best_and_worst
from vlm3d_ct.evaluation.metrics_log import MetricsLog
from vlm3d_ct.evaluation.pool import POOL_RULES, RIGHT_RULES
from vlm3d_ct.evaluation.results import CASES_FILE, format_interval, format_number, format_share
from vlm3d_ct.evaluation.retrieval import DIRECTIONS, Direction
from vlm3d_ct.evaluation.retrieval_files import RetrievalEvaluation
from vlm3d_ct.pages.page import Block, Card, Facts, Gallery, Page, Picture, Prose, Section, Table
from vlm3d_ct.pages.pictures import sections_picture, thumbnail

NUM_SECTION_PICTURES = 3
MAX_TEXT_CHARACTERS = 1200
TITLES: Mapping[Direction, str] = {"image_to_text": "volume → report", "text_to_image": "report → volume"}
NOTE = (
    "R@K is the share of queries whose right item is among the first K; ties count against the model. Chance is the "
    "expectation for a random order of this pool. Labels only is one who knows the labels of every scan and report, "
    "and nothing else. In brackets 95 % intervals: patients drawn with replacement, the pool stays. Figures of pools "
    "of different sizes do not compare, and none says whether a report is clinically right for a scan."
)


def retrieval_page(
    evaluation: RetrievalEvaluation,
    *,
    examples: Sequence[Example],
    logs: Sequence[MetricsLog],
    window_hu: tuple[float, float],
    region_names: Sequence[str],
) -> Page:
    """The page.

    Args:
        evaluation: what was measured.
        examples: the cases to show; all pictures and texts come from them.
        logs: the stages of training, in order.
        window_hu: (centre, width) of the pictures.
        region_names: name of region id i + 1 at index i.

    Raises:
        ValueError: an example is not in the pool.
    """
    if strangers := {example.case_id for example in examples} - set(evaluation.pool.case_ids):
        raise ValueError(f"examples that are not in the pool: {sorted(strangers)}")
    left_out = " ".join(f"Left out: {count} ({reason})." for reason, count in evaluation.left_out.items())
    lead = (
        f"Checkpoint {evaluation.provenance.get('checkpoint', 'unknown')} on pool {evaluation.pool_name}: "
        f"{len(evaluation.pool)} cases ({POOL_RULES[evaluation.pool.name]}). Right is "
        f"{RIGHT_RULES[evaluation.pool.right]}{describe_shared_texts(evaluation)}. {left_out}"
    )
    cards = _Cards(evaluation, examples, window_hu)
    return Page(
        title="Retrieval between CT volumes and reports",
        lead=lead.strip(),
        sections=(
            Section(title="Results", blocks=_results(evaluation)),
            Section(title="As CT-CLIP measures", blocks=_ct_clip(evaluation)),
            Section(title="Embedding health", blocks=_health(evaluation)),
            Section(title="Training", blocks=_training(logs)),
            Section(title="Volumes and regions", blocks=_volumes(examples, window_hu, region_names)),
            *(
                Section(title=f"Single cases: {TITLES[direction]}", blocks=cards.galleries(direction))
                for direction in DIRECTIONS
            ),
            Section(title="Provenance", blocks=(Facts(rows=_facts(evaluation)),)),
        ),
    )


def _results(evaluation: RetrievalEvaluation) -> tuple[Block, ...]:
    result = evaluation.result
    shares = [f"R@{k}" for k in result.recall_at]
    baselines = {"chance": result.chance, "labels only": result.label_only or {}}
    rows = []
    for name in (*shares, "MRR", "median_rank", "mean_rank"):
        digits = 1 if name.endswith("_rank") else 3
        found = (
            format_interval(evaluation.scores[direction][name], share=name in shares, digits=digits)
            for direction in DIRECTIONS
        )
        known = (format_share(recalls[name]) if name in recalls else "-" for recalls in baselines.values())
        rows.append((name.replace("_", " "), *found, *known))
    blocks: list[Block] = [
        Table(header=("", *(TITLES[direction] for direction in DIRECTIONS), *baselines), rows=tuple(rows)),
        Prose(text=NOTE, soft=True),
    ]
    if evaluation.labels_note:
        blocks.append(Prose(text=f"No label-only baseline: {evaluation.labels_note}", soft=True))
    if not np.isnan(result.regions.accuracy):
        blocks.append(
            Prose(
                text=f"Region-text alignment {format_share(result.regions.accuracy)} (chance "
                f"{format_share(result.regions.chance)}): share of {result.regions.num_regions} mentioned regions in "
                f"{result.regions.num_cases} cases whose own sentences are nearer than those of the other regions."
            )
        )
    picture = rank_histogram(
        result.ranks.volume_to_text, result.ranks.text_to_volume, one_right_item=result.one_right_item
    )
    blocks.append(
        Picture(
            data_uri=picture, alt="histogram of ranks", caption="Ranks of all cases, in bins that widen with the rank."
        )
    )
    return tuple(blocks)


def _ct_clip(evaluation: RetrievalEvaluation) -> tuple[Block, ...]:
    """Tables of both measures, compatible and corrected."""
    blocks: list[Block] = []
    for measure, variants in evaluation.ct_clip.items():
        names = list(dict.fromkeys(name for scores in variants.values() for name in scores))
        rows = tuple(
            (variant, *(format_number(scores[name]) if name in scores else "-" for name in names))
            for variant, scores in variants.items()
        )
        blocks.append(Table(header=(measure.replace("_", " "), *names), rows=rows))
    if evaluation.labels_note:
        blocks.append(Prose(text=f"No volume-to-volume score: {evaluation.labels_note}", soft=True))
    blocks.append(
        Prose(
            text="Compatible: as the published code computes it, for comparison with published figures. Corrected: "
            "what it is meant to be.",
            soft=True,
        )
    )
    return tuple(blocks)


def _health(evaluation: RetrievalEvaluation) -> tuple[Block, ...]:
    rows = tuple((name.replace("_", " "), format_number(value)) for name, value in evaluation.health.items())
    picture = health_picture(evaluation.embeddings.volume, evaluation.embeddings.text)
    return (
        Table(header=("measure", "value"), rows=rows),
        Picture(data_uri=picture, alt="spectra and similarities of the embeddings"),
    )


def _training(logs: Sequence[MetricsLog]) -> tuple[Block, ...]:
    blocks = []
    for log in logs:
        lost = f" Unreadable lines of the log, left out: {log.num_unreadable}." if log.num_unreadable else ""
        alt = f"loss, learning rate and validation recall of {log.name}"
        blocks.append(Picture(data_uri=training_curves(log), alt=alt, caption=f"{log.name}.{lost}"))
    return tuple(blocks)


def _volumes(
    examples: Sequence[Example], window_hu: tuple[float, float], region_names: Sequence[str]
) -> tuple[Block, ...]:
    """Sections of the first examples, those with regions before those without."""
    order = sorted(examples, key=lambda example: example.labels is None or not example.labels.any())
    blocks: list[Block] = []
    for example in order[:NUM_SECTION_PICTURES]:
        uri = sections_picture(
            example.voxels_hu,
            example.labels,
            example.spacing_mm,
            window_hu=window_hu,
            region_names=("lesion",) if example.voxels_hu.dtype == np.uint8 else region_names,
        )
        blocks.append(Picture(data_uri=uri, alt=f"sections of {example.case_id}", caption=example.case_id))
    if blocks:
        text = (
            f"Window {window_hu[0]:g} / {window_hu[1]:g} HU (centre / width). The patient's right is on the left of "
            "axial and coronal sections; sagittal sections look with the front to the left."
        )
        blocks.insert(0, Prose(text=text, soft=True))
    return tuple(blocks)


class _Cards:
    """Cards of single cases; each case's picture is drawn once."""

    def __init__(
        self, evaluation: RetrievalEvaluation, examples: Sequence[Example], window_hu: tuple[float, float]
    ) -> None:
        self.evaluation, self.window_hu = evaluation, window_hu
        self.examples = {example.case_id: example for example in examples}
        self.drawn: dict[str, str] = {}

    def galleries(self, direction: Direction) -> tuple[Block, ...]:
        """The best and the worst matches of the pool whose case was loaded."""
        best, worst = best_and_worst(self.evaluation.embeddings, self.evaluation.result, direction, MATCHES_PER_LIST)
        found = []
        for title, matches in (("Best", best), ("Worst", worst)):
            cards = tuple(self._card(direction, match) for match in matches if match.case_id in self.examples)
            if cards:
                found.append(Gallery(title=title, cards=cards))
        return tuple(found)

    def _card(self, direction: Direction, match: Match) -> Card:
        own = self.examples[match.case_id]
        rival = self.examples.get(match.rival_id or "")
        rival_label = "Wrongly preferred" if match.lost else "Next best, another case's"
        facts = [f"rank {match.rank} of {len(self.evaluation.pool)}", f"similarity {match.own_similarity:.3f}"]
        if match.rival_id is not None and match.rival_similarity is not None:
            verb = "preferred by mistake" if match.lost else "next"
            facts.append(f"{verb}: {match.rival_id} {match.rival_similarity:.3f}")
        pictures = [self._picture(own, "Volume" if direction == "image_to_text" else "Its volume")]
        texts = [("Its report" if direction == "image_to_text" else "Report", shorten(own.text))]
        if rival is not None and direction == "image_to_text":
            texts.append((f"{rival_label} report", shorten(rival.text)))
        elif rival is not None:
            pictures.append(self._picture(rival, f"{rival_label} volume"))
        return Card(
            title=match.case_id,
            facts=tuple(facts),
            pictures=tuple(pictures),
            texts=tuple(texts),
            wrong=match.lost,
            texts_first=direction == "text_to_image",
        )

    def _picture(self, example: Example, caption: str) -> Picture:
        if example.case_id not in self.drawn:
            self.drawn[example.case_id] = thumbnail(
                example.voxels_hu, example.labels, example.spacing_mm, window_hu=self.window_hu
            )
        alt = f"axial and coronal section of {example.case_id}"
        return Picture(data_uri=self.drawn[example.case_id], alt=alt, caption=caption)


def _facts(evaluation: RetrievalEvaluation) -> tuple[tuple[str, str], ...]:
    pool = (("pool", f"{evaluation.pool_name}, {len(evaluation.pool)} cases (listed in {CASES_FILE})"),)
    left_out = tuple(("left out", f"{count}: {reason}") for reason, count in evaluation.left_out.items())
    return (*evaluation.provenance.items(), *pool, *left_out)


def describe_shared_texts(evaluation: RetrievalEvaluation) -> str:
    """A clause on the cases whose text is not theirs alone; empty where every text is unique."""
    shared = evaluation.result.num_shared_texts
    return f"; {shared} cases share their text with another" if shared else ""


def shorten(text: str) -> str:
    """The text, cut behind a word near 1,200 characters and marked with an ellipsis where it is longer."""
    if len(text) <= MAX_TEXT_CHARACTERS:
        return text
    return text[:MAX_TEXT_CHARACTERS].rsplit(" ", 1)[0] + " …"
