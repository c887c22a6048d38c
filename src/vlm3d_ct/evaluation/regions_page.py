"""The report of an evaluation of regions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from vlm3d_ct.evaluation.charts import interval_bars, matrix_picture
from vlm3d_ct.evaluation.heatmap_scores import MEASURES, HeatMapSummary
from vlm3d_ct.evaluation.localise import ShownPhrase
from vlm3d_ct.evaluation.region_examples import ShownRegion
from vlm3d_ct.evaluation.regions import MASK_RULES, Aligned, RegionEvaluation
from vlm3d_ct.evaluation.regions_gallery import phrase_galleries, region_galleries
from vlm3d_ct.evaluation.results import CASES_FILE, format_interval, format_number, format_share
from vlm3d_ct.pages.page import Block, Facts, Page, Picture, Prose, Section, Table

WITHIN_NOTE = (
    "Within a case a region of the scan is compared with the sentences about all regions of its own report. An encoder "
    "that only knows which organ is which can be right everywhere, so a high share shows no knowledge of findings."
)
ACROSS_NOTE = (
    "Across cases a region of the scan is compared with what the reports of all cases say of the same region; equal "
    "sentences are right. Preference is the mean share of the wrong sentences that are less similar than the right "
    "ones: 50 % is chance. Ties count against the model."
)
HEAT_NOTE = (
    "The cosine of each patch's projected local features with the phrase, interpolated to the voxels of the lesion "
    "mask, over the voxels of the body. Pointing: the hottest voxel lies in the lesion. Dice at the fixed threshold: "
    "the map is stretched to 0..1 over the body and cut at 0.5, which was set before any label was seen. Dice at the "
    "best threshold is chosen on each lesion itself: an upper bound that no user reaches. AUROC: a voxel of the "
    "lesion is hotter than another voxel of the body; below 0.5 the map is cold where the lesion is. The map of named "
    "regions marks where the regions are that the phrase names, and nothing of lesions: what a map must beat to show "
    "more than anatomy. Chance is a random point of the body, and the whole body marked."
)
MEASURE_NAMES = {
    "pointing": "pointing",
    "dice_fixed": "Dice, fixed threshold",
    "dice_best": "Dice, best threshold",
    "auroc": "AUROC of voxels",
}


def regions_page(
    evaluation: RegionEvaluation,
    *,
    regions: tuple[Sequence[ShownRegion], Sequence[ShownRegion]],
    phrases: tuple[Sequence[ShownPhrase], Sequence[ShownPhrase]],
    window_hu: tuple[float, float],
) -> Page:
    """The page.

    Args:
        evaluation: what was measured.
        regions: hits and misses to be shown.
        phrases: those with the best and those with the worst maps, to be shown.
        window_hu: (centre, width) of the pictures.
    """
    left_out = " ".join(f"Left out: {count} ({reason})." for reason, count in evaluation.left_out.items())
    lead = (
        f"Checkpoint {evaluation.provenance.get('checkpoint', 'unknown')} on {evaluation.name}: "
        f"{len(evaluation.case_ids)} cases. {left_out}"
    )
    rules = tuple((name, rule) for name, rule in MASK_RULES.items() if name in evaluation.alignment)
    pool = ("pool", f"{evaluation.name}, {len(evaluation.case_ids)} cases (listed in {CASES_FILE})")
    counts = tuple(("left out", f"{count}: {reason}") for reason, count in evaluation.left_out.items())
    return Page(
        title="Regions and their sentences",
        lead=lead.strip(),
        sections=(
            Section(title="Alignment", blocks=(_alignment_table(evaluation), *_notes())),
            Section(title="Use of the masks", blocks=(Facts(rows=rules),)),
            Section(title="By region", blocks=_by_region(evaluation)),
            Section(title="Which region is taken for which", blocks=_confusion(evaluation)),
            Section(title="Single regions", blocks=region_galleries(*regions, window_hu)),
            Section(title="Heat maps of phrases", blocks=_heat_maps(evaluation)),
            Section(title="Single phrases", blocks=phrase_galleries(*phrases, window_hu)),
            Section(title="Provenance", blocks=(Facts(rows=(*evaluation.provenance.items(), pool, *counts)),)),
        ),
    )


def _notes() -> tuple[Block, ...]:
    return tuple(
        Prose(text=text, soft=True)
        for text in (WITHIN_NOTE, ACROSS_NOTE, "In parentheses 95 % intervals over patients.")
    )


def _alignment_table(evaluation: RegionEvaluation) -> Table:
    rows: list[tuple[str, ...]] = []
    for masks, found in evaluation.alignment.items():
        rows.append(
            (f"masks {masks}", *_cells(found.within), *_cells(found.across), _share(found.across, "preference"))
        )
    header = ("", "within a case", "chance", "across cases", "chance", "preference")
    return Table(header=header, rows=tuple(rows))


def _cells(aligned: Aligned) -> tuple[str, str]:
    return _share(aligned, "accuracy"), format_share(aligned.chance)


def _share(aligned: Aligned, name: str) -> str:
    return format_interval(getattr(aligned, name), share=True)


def _by_region(evaluation: RegionEvaluation) -> tuple[Block, ...]:
    """A table of all uses of the masks, and intervals of the first."""
    first = next(iter(evaluation.alignment))
    found = evaluation.alignment[first]
    names = [name for name in evaluation.region_names if found.within_by_region[name].num_regions]
    header = (
        "region",
        "mentions",
        *(f"{scope},\n{masks}" for scope in ("within", "across") for masks in evaluation.alignment),
    )
    rows = []
    for name in names:
        cells = [
            format_share(by_region[name].accuracy.estimate)
            for scope in ("within_by_region", "across_by_region")
            for by_region in (getattr(alignment, scope) for alignment in evaluation.alignment.values())
        ]
        rows.append((name, str(found.within_by_region[name].num_regions), *cells))
    blocks: list[Block] = [Table(header=header, rows=tuple(rows))]
    for scope, by_region in (("within a case", found.within_by_region), ("across cases", found.across_by_region)):
        chart = interval_bars(
            {name: by_region[name].accuracy for name in names},
            label=f"share of regions that find their own sentences first, {scope}",
            chance={name: by_region[name].chance for name in names},
        )
        caption = f"{scope.capitalize()}, masks {first}. Grey marks: chance. Lines: 95 % intervals over patients."
        blocks.append(Picture(data_uri=chart, alt=f"alignment by region {scope}", caption=caption))
    return tuple(blocks)


def _confusion(evaluation: RegionEvaluation) -> tuple[Block, ...]:
    blocks = []
    for masks, found in evaluation.alignment.items():
        some = np.isfinite(found.taken_for).all(axis=1)
        if not some.any():
            continue
        names = [name for name, is_there in zip(evaluation.region_names, some, strict=True) if is_there]
        shares = found.taken_for[some][:, some]
        chart = matrix_picture(
            shares, names, names, row_label="region of the scan", column_label="its nearest sentences speak of"
        )
        caption = f"Masks {masks}: per cent of each row, within cases."
        blocks.append(Picture(data_uri=chart, alt=f"confusion of regions, masks {masks}", caption=caption))
    return tuple(blocks)


def _heat_maps(evaluation: RegionEvaluation) -> tuple[Block, ...]:
    if not evaluation.heat_maps:
        return (
            Prose(text="No lesion of these cases is known: there is no truth.json beside them, and no lesion mask."),
        )
    rows: list[tuple[str, ...]] = []
    for masks, found in evaluation.heat_maps.items():
        rows.append((f"heat map, masks {masks}", *(format_interval(found.heat[name]) for name in MEASURES)))
    first, summary = next(iter(evaluation.heat_maps.items()))
    rows.append(("map of named regions", *(format_interval(summary.region[name]) for name in MEASURES)))
    rows.append(("chance", *(format_number(summary.chance[name]) for name in MEASURES)))
    by_finding = evaluation.heat_maps_by_finding[first]
    chart = interval_bars(
        {finding: found.heat["auroc"] for finding, found in by_finding.items()},
        label="AUROC of voxels",
        chance={finding: found.region["auroc"].estimate for finding, found in by_finding.items()},
    )
    return (
        Prose(text=f"{summary.num_phrases} phrases of {summary.num_patients} patients. {_verdict(summary)}"),
        Table(
            header=("", *(MEASURE_NAMES[name] for name in MEASURES)),
            rows=tuple(rows),
            muted=frozenset((len(rows) - 2, len(rows) - 1)),
        ),
        Prose(text=HEAT_NOTE, soft=True),
        _finding_table(by_finding, first),
        Picture(
            data_uri=chart,
            alt="AUROC of heat maps by finding",
            caption=f"Heat maps with masks {first}. Grey marks: the map of the regions that the phrase names.",
        ),
    )


def _verdict(summary: HeatMapSummary) -> str:
    """What the AUROC says, in a sentence."""
    found, gain = summary.heat["auroc"], summary.gain
    if math.isnan(found.low):
        return ""
    if found.high < 0.5:
        verdict = "The maps are worse than chance: lesions lie where the maps are cold."
    elif found.low <= 0.5:
        verdict = "The maps are not told from chance."
    elif gain.low <= 0:
        verdict = "The maps are better than chance, but not better than the map of the named regions."
    else:
        verdict = "The maps are better than chance and than the map of the named regions."
    return verdict


def _finding_table(by_finding: Mapping[str, HeatMapSummary], masks: str) -> Table:
    rows = tuple(
        (
            finding,
            str(found.num_phrases),
            *(format_interval(found.heat[name]) for name in MEASURES),
            format_number(found.region["auroc"].estimate),
            format_number(found.chance["pointing"]),
        )
        for finding, found in by_finding.items()
    )
    short = (f"masks {masks}", "phrases", "pointing", "Dice,\nfixed", "Dice,\nbest", "AUROC")
    header = (*short, "AUROC,\nregions", "pointing,\nchance")
    return Table(header=header, rows=rows)
