"""The evaluation of regions: alignment of regions with their sentences, and heat maps, for every use of the masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from vlm3d_ct.embeddings import EmbeddingSet
from vlm3d_ct.evaluation.heatmap_scores import MEASURES, HeatMapSummary, PhraseScores
from vlm3d_ct.evaluation.intervals import ratio_intervals
from vlm3d_ct.evaluation.metrics.alignment import Outcomes, across_cases, confusion, within_cases
from vlm3d_ct.evaluation.metrics.bootstrap import Interval
from vlm3d_ct.evaluation.results import (
    CASES_FILE,
    format_interval,
    format_share,
    write_cases,
    write_csv,
    write_results,
)
from vlm3d_ct.inference import MaskUse

MASKS: Mapping[str, MaskUse] = {"true": "given", "predicted": "predicted", "none": "none"}
"""Uses of the masks by the names of the command line."""
MASK_RULES = {
    "true": "the region mask of the case guides the encoder",
    "predicted": "the mask is withheld; the encoder guides itself by the occupancy that it predicts",
    "none": "guidance is switched off: every patch counts as background, so the region tokens see the patches in the "
    "first three blocks only, all of them alike, and after that the other tokens. The encoder was never trained so. "
    "What it still aligns rests on knowing which region token is which",
}
ALIGNMENT_FILE, CASES_TABLE, PHRASES_FILE = "alignment.csv", "region_cases.csv", "phrases.csv"


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """How often regions find their own sentences.

    Attributes:
        accuracy: share (0..1) of the counted regions whose own sentences came first, with its interval over patients.
        chance: the accuracy of a random order.
        preference: mean share of the wrong sentences that were less similar than the right ones; 0.5 by chance.
        num_cases: cases with a counted region.
        num_regions: counted regions of all cases.
    """

    accuracy: Interval
    chance: float
    preference: Interval
    num_cases: int
    num_regions: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Alignment:
    """Alignment under one use of the masks; ``*_by_region`` in the order of the region table.

    Attributes:
        within: regions against the sentences of their own case (`alignment.within_cases`).
        across: regions against the sentences of the same region in all cases (`alignment.across_cases`).
        taken_for: row: a region of a scan; column: the region of the same case whose sentences it found first.
        inside: what became of every region of every case within its case; ``outside`` across cases.
    """

    within: Aligned
    within_by_region: dict[str, Aligned]
    across: Aligned
    across_by_region: dict[str, Aligned]
    taken_for: Float64[np.ndarray, "r r"]
    inside: Outcomes
    outside: Outcomes


@dataclass(frozen=True, kw_only=True, eq=False)
class RegionEvaluation:
    """Everything that an evaluation of regions found.

    Attributes:
        name: of the data folder.
        case_ids: the cases; the same under every use of the masks. ``patient_ids`` their patients.
        region_names: name of region id i + 1 at index i.
        alignment: by use of the masks (`MASKS`).
        phrases: scores of every phrase with a known lesion, by use of the masks; empty where no lesion is known.
        heat_maps: their means, by use of the masks.
        heat_maps_by_finding: likewise, by finding.
        left_out: cases and phrases outside, by reason.
        provenance: what made the numbers.
    """

    name: str
    case_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    region_names: tuple[str, ...]
    alignment: Mapping[str, Alignment]
    phrases: Mapping[str, Sequence[PhraseScores]]
    heat_maps: Mapping[str, HeatMapSummary]
    heat_maps_by_finding: Mapping[str, Mapping[str, HeatMapSummary]]
    left_out: Mapping[str, int]
    provenance: Mapping[str, str]


def measure_alignment(
    embeddings: EmbeddingSet, region_names: Sequence[str], *, num_samples: int, seed: int
) -> Alignment:
    """The alignment of a pool, with patient-level intervals (none for ``num_samples`` 0)."""
    arrays = (embeddings.region_volume, embeddings.region_text, embeddings.region_mentions, embeddings.region_groups)
    inside, outside = within_cases(*arrays), across_cases(*arrays)
    sampling = (embeddings.patient_ids, num_samples, seed)
    within, within_by_region = _aligned(inside, region_names, *sampling)
    across, across_by_region = _aligned(outside, region_names, *sampling)
    return Alignment(
        within=within,
        within_by_region=within_by_region,
        across=across,
        across_by_region=across_by_region,
        taken_for=confusion(inside),
        inside=inside,
        outside=outside,
    )


def _aligned(
    outcomes: Outcomes, names: Sequence[str], patient_ids: Sequence[str], num_samples: int, seed: int
) -> tuple[Aligned, dict[str, Aligned]]:
    """Over all regions, and of each."""
    counted = outcomes.counted.astype(np.float64)
    correct, preferred = counted * outcomes.correct, counted * outcomes.preference
    sums = {"accuracy": (correct.sum(1), counted.sum(1)), "preference": (preferred.sum(1), counted.sum(1))}
    for i in range(len(names)):
        sums[f"accuracy {i}"] = (correct[:, i], counted[:, i])
        sums[f"preference {i}"] = (preferred[:, i], counted[:, i])
    found = ratio_intervals(sums, patient_ids, num_samples=num_samples, seed=seed)

    def entry(ending: str, chosen: slice) -> Aligned:
        share = outcomes.counted[:, chosen]
        return Aligned(
            accuracy=found[f"accuracy{ending}"],
            chance=float(outcomes.chance[:, chosen][share].mean()) if share.any() else float("nan"),
            preference=found[f"preference{ending}"],
            num_cases=int(np.count_nonzero(share.any(axis=1))),
            num_regions=int(np.count_nonzero(share)),
        )

    return entry("", slice(None)), {name: entry(f" {i}", slice(i, i + 1)) for i, name in enumerate(names)}


def write_regions(evaluation: RegionEvaluation, output_dir: Path) -> None:
    """Write ``pool_cases.txt``, tables by region, case and (where lesions are known) phrase; ``results.json`` last."""
    write_cases(output_dir, evaluation.case_ids)
    header = ("masks", "scope", "region", "accuracy", "low", "high", "chance", "preference", "regions")
    write_csv(output_dir / ALIGNMENT_FILE, header, _alignment_rows(evaluation))
    judged = ("masks", "case_id", "patient_id", "region", "within_correct", "across_correct", "across_preference")
    write_csv(output_dir / CASES_TABLE, judged, _case_rows(evaluation))
    if evaluation.phrases:
        names = [f"{kind}_{measure}" for kind in ("heat", "region", "chance") for measure in MEASURES]
        columns = ("masks", "case_id", "patient_id", "finding", "lesion_share", "contrast", *names, "phrase")
        write_csv(output_dir / PHRASES_FILE, columns, _phrase_rows(evaluation))
    alignment = {
        masks: {
            "within": found.within,
            "within_by_region": found.within_by_region,
            "across": found.across,
            "across_by_region": found.across_by_region,
            "taken_for": found.taken_for.tolist(),
        }
        for masks, found in evaluation.alignment.items()
    }
    write_results(
        output_dir,
        "regions",
        {
            "pool": {"name": evaluation.name, "size": len(evaluation.case_ids), "cases_file": CASES_FILE},
            "masks": {masks: MASK_RULES[masks] for masks in evaluation.alignment},
            "alignment": alignment,
            "heat_maps": {
                masks: {"all": found, "by_finding": evaluation.heat_maps_by_finding[masks]}
                for masks, found in evaluation.heat_maps.items()
            },
            "left_out": evaluation.left_out,
            "provenance": evaluation.provenance,
        },
    )


def _alignment_rows(evaluation: RegionEvaluation) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for masks, found in evaluation.alignment.items():
        for scope, total, regions in (
            ("within", found.within, found.within_by_region),
            ("across", found.across, found.across_by_region),
        ):
            for name, entry in {"all": total, **regions}.items():
                ends = (entry.accuracy.estimate, entry.accuracy.low, entry.accuracy.high)
                rows.append((masks, scope, name, *ends, entry.chance, entry.preference.estimate, entry.num_regions))
    return rows


def _case_rows(evaluation: RegionEvaluation) -> list[tuple[object, ...]]:
    """Every counted region of every case; a cell is empty where that comparison was not counted."""
    rows: list[tuple[object, ...]] = []
    for masks, found in evaluation.alignment.items():
        inside, outside = found.inside, found.outside
        for case, region in np.argwhere(inside.counted | outside.counted).tolist():
            within = int(inside.correct[case, region]) if inside.counted[case, region] else ""
            across: tuple[object, object] = ("", "")
            if outside.counted[case, region]:
                across = (int(outside.correct[case, region]), float(outside.preference[case, region]))
            about = (masks, evaluation.case_ids[case], evaluation.patient_ids[case], evaluation.region_names[region])
            rows.append((*about, within, *across))
    return rows


def _phrase_rows(evaluation: RegionEvaluation) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for masks, phrases in evaluation.phrases.items():
        for score in phrases:
            scores = [getattr(kind, m) for kind in (score.heat, score.region, score.chance) for m in MEASURES]
            phrase = score.phrase
            about = (masks, phrase.case_id, phrase.patient_id, phrase.finding, score.lesion_share, score.contrast)
            rows.append((*about, *scores, phrase.text))
    return rows


def format_regions(evaluation: RegionEvaluation) -> str:
    """Alignment and heat maps, a line for each use of the masks, for a terminal."""
    lines = []
    for masks, found in evaluation.alignment.items():
        for scope, entry in (("within a case", found.within), ("across cases", found.across)):
            lines.append(
                f"masks {masks:10}{scope:14}{format_interval(entry.accuracy, share=True):24} "
                f"chance {format_share(entry.chance):8} {entry.num_regions} regions of {entry.num_cases} cases"
            )
    for masks, summary in evaluation.heat_maps.items():
        scores = ", ".join(f"{name} {format_interval(summary.heat[name])}" for name in ("pointing", "auroc"))
        lines.append(f"masks {masks:10}heat maps of {summary.num_phrases} phrases: {scores}")
    if evaluation.heat_maps:
        summary = next(iter(evaluation.heat_maps.values()))
        region = ", ".join(f"{name} {format_interval(summary.region[name])}" for name in ("pointing", "auroc"))
        lines.append(
            f"map of the named regions: {region}; chance: pointing {summary.chance['pointing']:.3f}, auroc 0.500"
        )
    lines.append(f"{len(evaluation.case_ids)} cases")
    return "\n".join(lines)
