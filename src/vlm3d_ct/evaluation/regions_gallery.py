"""Galleries of an evaluation of regions: single regions with their sentences, single phrases with their heat maps."""

from __future__ import annotations

from collections.abc import Sequence

from vlm3d_ct.evaluation.localise import ShownPhrase
from vlm3d_ct.evaluation.region_examples import ShownRegion
from vlm3d_ct.evaluation.results import format_number
from vlm3d_ct.pages.page import Block, Card, Gallery, Picture, Prose
from vlm3d_ct.pages.pictures import heat_picture, thumbnail
from vlm3d_ct.volumes.preprocess import Prepared


def region_galleries(
    hits: Sequence[ShownRegion], misses: Sequence[ShownRegion], window_hu: tuple[float, float]
) -> tuple[Block, ...]:
    """Hits and misses within cases, with the sections that hold most of the region."""
    galleries = []
    for title, regions, wrong in (("Surest hits", hits, False), ("Gravest misses", misses, True)):
        cards = tuple(_region_card(region, window_hu, wrong=wrong) for region in regions)
        if cards:
            galleries.append(Gallery(title=title, cards=cards))
    if not galleries:
        return ()
    text = "Within cases, by the margin between the cosine with the own sentences and the nearest other ones."
    if any(region.labels is not None for region in (*hits, *misses)):
        text += " The outline is the region by the given mask."
    return (Prose(text=text + _window([r.prepared for r in (*hits, *misses)], window_hu), soft=True), *galleries)


def phrase_galleries(
    best: Sequence[ShownPhrase], worst: Sequence[ShownPhrase], window_hu: tuple[float, float]
) -> tuple[Block, ...]:
    """The best and the worst maps, over the sections that hold most of the lesion."""
    galleries = []
    for title, phrases, wrong in (("Highest AUROC", best, False), ("Lowest AUROC", worst, True)):
        cards = tuple(_phrase_card(phrase, window_hu, wrong=wrong) for phrase in phrases)
        if cards:
            galleries.append(Gallery(title=title, cards=cards))
    if not galleries:
        return ()
    text = "The outline is the lesion; on the right the heat map, from clear (least) to yellow (most within the body)."
    return (Prose(text=text + _window([p.prepared for p in (*best, *worst)], window_hu), soft=True), *galleries)


def _window(shown: Sequence[Prepared], window_hu: tuple[float, float]) -> str:
    """A sentence on the window of volumes; slices are grey values already."""
    if not any(prepared.kind == "volume" for prepared in shown):
        return ""
    return f" Window {window_hu[0]:g} / {window_hu[1]:g} HU (centre / width)."


def _region_card(shown: ShownRegion, window_hu: tuple[float, float], *, wrong: bool) -> Card:
    prepared = shown.prepared
    picture = thumbnail(prepared.voxels_hu, shown.labels, prepared.spacing_mm, window_hu=window_hu, outlined=True)
    verb = "preferred by mistake" if wrong else "next"
    return Card(
        title=shown.case_id,
        facts=(shown.name, f"margin {shown.match.margin:.3f}", f"{verb}: {shown.rival_name}"),
        pictures=(Picture(data_uri=picture, alt=f"{shown.name} of {shown.case_id}", caption=shown.name),),
        texts=(
            ("Its sentences", shown.sentences),
            (f"{'Preferred' if wrong else 'Next'}: {shown.rival_name}", shown.rival_sentences),
        ),
        wrong=wrong,
    )


def _phrase_card(phrase: ShownPhrase, window_hu: tuple[float, float], *, wrong: bool) -> Card:
    scores = phrase.scores
    picture = heat_picture(
        phrase.prepared.voxels_hu, phrase.heat, phrase.lesion, phrase.prepared.spacing_mm, window_hu=window_hu
    )
    facts = (
        scores.phrase.finding,
        f"AUROC {format_number(scores.heat.auroc)} (named regions {format_number(scores.region.auroc)})",
        f"pointing: {'hit' if scores.heat.pointing == 1 else 'miss'}",
        f"Dice at best {format_number(scores.heat.dice_best)}",
    )
    return Card(
        title=scores.phrase.case_id,
        facts=facts,
        pictures=(
            Picture(data_uri=picture, alt=f"heat map of {scores.phrase.case_id}", caption="Lesion and heat map"),
        ),
        texts=(("Phrase", scores.phrase.text),),
        wrong=wrong,
    )
