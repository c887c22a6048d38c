"""``vlm3d-ct evaluate regions``, also reached as ``evaluation/regions.py``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from vlm3d_ct.cli.arguments import Commands, add_command, existing_directory
from vlm3d_ct.cli.evaluate.shared import Prepared, add_interval_flags, add_shared_flags, prepare
from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.errors import ConfigError, DataError, Problem
from vlm3d_ct.evaluation.heatmap_scores import FIXED_THRESHOLD, PhraseScores, summarise_phrases
from vlm3d_ct.evaluation.lesions import find_lesion_phrases
from vlm3d_ct.evaluation.localise import ShownPhrase, hits_and_misses, score_phrases, show_phrase
from vlm3d_ct.evaluation.region_examples import ShownRegion, choose_regions, show_regions
from vlm3d_ct.evaluation.regions import (
    MASK_RULES,
    MASKS,
    RegionEvaluation,
    format_regions,
    measure_alignment,
    write_regions,
)
from vlm3d_ct.evaluation.regions_page import regions_page
from vlm3d_ct.evaluation.results import REPORT_FILE, write_text
from vlm3d_ct.log import is_main_rank, say
from vlm3d_ct.text.regions import load_region_table

NO_TEXT, NO_REGION_MASK = "without a text", "without a region mask"


def add_kind(kinds: Commands[argparse.ArgumentParser]) -> None:
    """Register the kind."""
    parser = add_command(
        kinds,
        "regions",
        "Do regions find the sentences that speak of them, and phrases the lesions that they state?",
        "vlm3d-ct evaluate regions --checkpoint exp_log/finetune/checkpoint_best.pth \\\n"
        "      --data_dir data/test --output_dir exp_log/eval_regions --masks true predicted none",
    )
    add_shared_flags(parser)
    parser.add_argument("--slices", action="store_true", help="evaluate the 2D slices of the folder instead of volumes")
    parser.add_argument(
        "--masks",
        nargs="+",
        choices=tuple(MASKS),
        help="; ".join(f"{name}: {rule}" for name, rule in MASK_RULES.items())
        + " (default: all three; without true where no volume has a mask; predicted alone for slices)",
    )
    add_interval_flags(parser)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Run ``evaluate regions``."""
    masks = _choose_masks(parsed)
    prepared = prepare(parsed, kind="slice" if parsed.slices else "volume", masks=[MASKS[name] for name in masks])
    if not is_main_rank():
        return 0
    kept, left_out = _choose_cases(prepared, need_mask="true" in masks)
    sampling = {"num_samples": parsed.num_bootstraps, "seed": parsed.seed}
    names = load_region_table().names
    cases = [prepared.cases[i] for i in kept]
    alignment = {
        name: measure_alignment(prepared.by_masks[MASKS[name]].select(kept), names, **sampling) for name in masks
    }
    phrases, without_lesion = find_lesion_phrases(prepared.directory, cases)
    scores, num_empty = score_phrases(
        prepared.encoder, cases, prepared.cache, phrases, {name: MASKS[name] for name in masks}
    )
    if num_empty:
        without_lesion["phrases whose lesion has no voxel in its mask"] = num_empty
    summaries = {name: summarise_phrases(found, **sampling) for name, found in scores.items() if found}
    evaluation = RegionEvaluation(
        name=prepared.name,
        case_ids=tuple(case.case_id for case in cases),
        patient_ids=tuple(case.patient_id for case in cases),
        region_names=tuple(names),
        alignment=alignment,
        phrases=scores if summaries else {},
        heat_maps={name: overall for name, (overall, _) in summaries.items()},
        heat_maps_by_finding={name: by_finding for name, (_, by_finding) in summaries.items()},
        left_out={**prepared.left_out, **left_out, **without_lesion},
        provenance=prepared.with_settings(
            masks=" ".join(masks),
            heat_map_threshold=FIXED_THRESHOLD,
            num_bootstraps=parsed.num_bootstraps,
            seed=parsed.seed,
        ),
    )
    output_dir = Path(parsed.output_dir)
    page = regions_page(
        evaluation,
        regions=_shown_regions(prepared, kept, masks[0]),
        phrases=_shown_phrases(prepared, scores[masks[0]], masks[0]),
        window_hu=prepared.encoder.config.model.windows_hu[0],
    )
    write_text(output_dir / REPORT_FILE, page.render())
    write_regions(evaluation, output_dir)
    say(format_regions(evaluation))
    say(f"report: {output_dir / REPORT_FILE}")
    return 0


def _choose_masks(parsed: argparse.Namespace) -> tuple[str, ...]:
    """The uses of the masks that were asked for, or those that the folder allows."""
    if parsed.slices:
        if parsed.masks not in (None, ["predicted"]):
            raise ConfigError("--slices: slices have no region masks; only --masks predicted is possible.")
        return ("predicted",)
    if parsed.masks is not None:
        return tuple(dict.fromkeys(parsed.masks))
    index = read_cases(existing_directory("--data_dir", parsed.data_dir))
    any_mask = any(case.mask_paths for case in index.cases if case.kind == "volume")
    return tuple(MASKS) if any_mask else tuple(name for name in MASKS if name != "true")


def _choose_cases(prepared: Prepared, *, need_mask: bool) -> tuple[Int64[np.ndarray, " n"], dict[str, int]]:
    """The cases that are compared, the same under every use of the masks, and how many are not."""
    has_text = prepared.embeddings.has_text
    has_mask = np.array([bool(case.mask_paths) for case in prepared.cases])
    chosen = has_text & has_mask if need_mask else has_text
    left_out = {
        NO_TEXT: int(np.count_nonzero(~has_text)),
        NO_REGION_MASK: int(np.count_nonzero(has_text & ~chosen)),
    }
    left_out = {reason: count for reason, count in left_out.items() if count}
    if not chosen.any():
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise DataError(
            Problem(
                code="empty-pool",
                file=str(prepared.directory),
                field="--masks",
                value=f"0 of {len(prepared.cases)} cases",
                message=f"No case is left to evaluate: {reasons}.",
                remedy="Leave out `true` where there are no region masks; add texts where there are none.",
            )
        )
    return np.flatnonzero(chosen).astype(np.int64), left_out


def _shown_regions(
    prepared: Prepared, kept: Int64[np.ndarray, " n"], masks: str
) -> tuple[list[ShownRegion], list[ShownRegion]]:
    """The regions of the report's gallery: hits and misses."""
    cases = [prepared.cases[i] for i in kept]
    hits, misses = choose_regions(prepared.by_masks[MASKS[masks]].select(kept))
    table = load_region_table()
    return show_regions(hits, cases, prepared.cache, table), show_regions(misses, cases, prepared.cache, table)


def _shown_phrases(
    prepared: Prepared, scores: Sequence[PhraseScores], masks: str
) -> tuple[list[ShownPhrase], list[ShownPhrase]]:
    """The phrases of the report's gallery: the best maps and the worst."""
    best, worst = (
        [show_phrase(prepared.encoder, prepared.cases, prepared.cache, score, MASKS[masks]) for score in phrases]
        for phrases in hits_and_misses(scores)
    )
    return best, worst
