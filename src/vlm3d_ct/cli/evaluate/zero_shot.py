"""``vlm3d-ct evaluate zero-shot``, also reached as ``evaluation/zero_shot.py``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int8

from vlm3d_ct.cli.arguments import Commands, add_command, existing_directory
from vlm3d_ct.cli.evaluate.shared import (
    Prepared,
    add_interval_flags,
    add_label_flags,
    add_shared_flags,
    load_examples,
    load_labels,
    prepare,
)
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.labels import LabelTable, read_mapping
from vlm3d_ct.embeddings import EmbeddingSet
from vlm3d_ct.errors import ConfigError, DataError, Problem
from vlm3d_ct.evaluation.pool import POOL_RULES, POOLS, choose_pool
from vlm3d_ct.evaluation.prompt_scores import (
    AGAINST,
    Against,
    PromptScores,
    ask,
    identity,
)
from vlm3d_ct.evaluation.prompts import PromptTable, prompts_for, read_prompts, shipped_mapping, shipped_prompts
from vlm3d_ct.evaluation.results import REPORT_FILE, write_text
from vlm3d_ct.evaluation.tuned import TunedThresholds, load_thresholds, tune
from vlm3d_ct.evaluation.zero_shot_files import evaluate_zero_shot, format_table, write_zero_shot
from vlm3d_ct.evaluation.zero_shot_page import choose_examples, zero_shot_page
from vlm3d_ct.inference import Encoder
from vlm3d_ct.log import is_main_rank, say

LABEL_SETS = {
    "ct_rate": "the 18 abnormalities of CT-RATE",
    "rad_chestct": "the 16 classes that Rad-ChestCT shares with them, through the shipped mapping file",
    "omniabnorm": "the categories that the records of slices name",
}


def add_kind(kinds: Commands[argparse.ArgumentParser]) -> None:
    """Register the kind."""
    parser = add_command(
        kinds,
        "zero-shot",
        "Name abnormalities by prompts, without training on labels; patients of the training are left out.",
        "vlm3d-ct evaluate zero-shot --checkpoint exp_log/finetune/checkpoint_best.pth \\\n"
        "      --data_dir data/test --validation_dir data/valid --output_dir exp_log/zero_shot",
    )
    add_shared_flags(parser)
    words = "; ".join(f"{name}: {meaning}" for name, meaning in LABEL_SETS.items())
    parser.add_argument("--label_set", choices=tuple(LABEL_SETS), default="ct_rate", help=words)
    add_label_flags(parser, "the truth")
    parser.add_argument(
        "--mapping", metavar="FILE", help="CSV with the columns class, column: which columns of the labels make a class"
    )
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="CSV with the columns class, wording, positive, negative, one row a wording; the first of a class is its "
        "main one (default: the shipped table of the label set)",
    )
    parser.add_argument(
        "--against",
        choices=AGAINST,
        default="volume",
        help="what prompts are held against: the whole volume, or the regions that they speak of, the best of which "
        "counts (ranks cases; not a calibrated probability); the latter for models that were trained with "
        "objective.sentence_region_weight",
    )
    tuning = parser.add_mutually_exclusive_group()
    tuning.add_argument(
        "--validation_dir",
        metavar="DIR",
        help="tune thresholds on this folder, which shares no patient with --data_dir",
    )
    tuning.add_argument("--thresholds", metavar="FILE", help="thresholds.json of an earlier run with --validation_dir")
    parser.add_argument("--threshold_rule", choices=("youden", "corner"), default="youden", help="how they are tuned")
    rules = "; ".join(f"{name}: {rule}" for name, rule in POOL_RULES.items())
    parser.add_argument("--pool", choices=POOLS, default="all", help=f"{rules} (a text is not needed here)")
    add_interval_flags(parser)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Run ``evaluate zero-shot``."""
    slices = parsed.label_set == "omniabnorm"
    if slices and (parsed.labels or parsed.mapping):
        raise ConfigError("--label_set omniabnorm: the labels are in the records; leave out --labels and --mapping.")
    if slices and parsed.against == "regions":
        raise ConfigError(
            "--against regions: cannot be combined with --label_set omniabnorm, whose slices show few of the regions; "
            "leave it out."
        )
    validation = existing_directory("--validation_dir", parsed.validation_dir) if parsed.validation_dir else None
    thresholds = load_thresholds(Path(parsed.thresholds)) if parsed.thresholds else None
    prompts = _named_prompts(parsed)
    table = None if slices else _label_table(parsed, prompts, None)
    fit_table = None if slices or validation is None else _label_table(parsed, prompts, validation)
    prepared = prepare(parsed, kind="slice" if slices else "volume", chest_only=False, fit_dir=validation)
    if not is_main_rank():
        return 0
    if prompts is None:
        prompts = prompts_for(_categories(prepared.cases), "templates")
    prompts = _with_columns(prompts, table)
    tuned = _tune(parsed, prepared, prompts, fit_table) if prepared.fit is not None else thresholds
    labels, kept, left_out = _labelled_pool(parsed, prepared, prompts, table)
    chosen = prepared.embeddings.select(kept)
    if thresholds is not None:
        weights = prepared.provenance["checkpoint_weights_sha256"]
        thresholds.check(weights, identity(prompts, parsed.against), chosen.patient_ids, parsed.thresholds)
    choices = {"label_set": parsed.label_set, "pool": parsed.pool, "against": parsed.against}
    choices |= {"logit_scale": prepared.encoder.logit_scale}
    evaluation = evaluate_zero_shot(
        _score(chosen, prompts, prepared.encoder, parsed.against),
        labels,
        chosen.case_ids,
        chosen.patient_ids,
        pool_name=f"{prepared.name}, {parsed.pool}",
        label_set=parsed.label_set,
        exclusive=slices,
        tuned=tuned,
        left_out=left_out,
        provenance=prepared.with_settings(**choices, num_bootstraps=parsed.num_bootstraps, seed=parsed.seed),
        num_bootstraps=parsed.num_bootstraps,
        seed=parsed.seed,
    )
    output_dir = Path(parsed.output_dir)
    wanted = [case_id for pairs in choose_examples(evaluation).values() for case_id, _ in pairs]
    page = zero_shot_page(evaluation, load_examples(wanted, prepared), prepared.encoder.config.model.windows_hu[0])
    write_text(output_dir / REPORT_FILE, page.render())
    write_zero_shot(evaluation, output_dir)
    say(format_table(evaluation))
    say(f"report: {output_dir / REPORT_FILE}")
    return 0


def _named_prompts(parsed: argparse.Namespace) -> PromptTable | None:
    """The user's prompts or the shipped ones; None for slices, whose categories are known later."""
    if parsed.prompts:
        return read_prompts(Path(parsed.prompts))
    return None if parsed.label_set == "omniabnorm" else shipped_prompts(parsed.label_set)


def _label_table(parsed: argparse.Namespace, prompts: PromptTable | None, directory: Path | None) -> LabelTable:
    """The labels of a folder for the classes of the prompts.

    Raises:
        DataError: there are none, or they cannot be used.
    """
    assert prompts is not None
    mapping: Mapping[str, Sequence[str]] | None = shipped_mapping(parsed.label_set)
    if parsed.mapping:
        mapping = read_mapping(Path(parsed.mapping))
    table, _ = load_labels(parsed, prompts.classes, mapping, directory)
    if table is None and directory is not None and parsed.labels:
        table, _ = load_labels(parsed, prompts.classes, mapping)
    if table is None:
        where = directory or Path(parsed.data_dir)
        message, remedy = "The folder has no label table.", "Add labels.csv to it, or give --labels FILE."
        raise DataError(_problem("no-labels", str(where), "labels", "none", message, remedy))
    return table


def _with_columns(prompts: PromptTable, table: LabelTable | None) -> PromptTable:
    """The prompts of the classes that have labels."""
    return prompts if table is None else prompts.restrict(table.names)


def _categories(cases: Sequence[Case]) -> tuple[str, ...]:
    """The categories of slices, sorted; spelling that differs in case only is one."""
    found: dict[str, str] = {}
    for case in cases:
        if case.category is not None:
            found.setdefault(case.category.casefold(), case.category)
    if not found:
        message, remedy = "No record names a category.", "Add the field `category` to the records."
        raise DataError(_problem("no-labels", "the records of the slices", "category", "none", message, remedy))
    return tuple(found[key] for key in sorted(found))


def _labels_of(prepared: Prepared, prompts: PromptTable, table: LabelTable | None) -> Int8[np.ndarray, "n c"]:
    """The labels of all prepared cases, -1 where unknown."""
    if table is not None:
        return table.for_cases(prepared.embeddings.case_ids)
    plain = [name.casefold() for name in prompts.classes]
    labels = np.full((len(prepared.cases), len(plain)), -1, dtype=np.int8)
    for row, case in enumerate(prepared.cases):
        if case.category is not None and case.category.casefold() in plain:
            labels[row] = 0
            labels[row, plain.index(case.category.casefold())] = 1
    return labels


def _labelled_pool(
    parsed: argparse.Namespace, prepared: Prepared, prompts: PromptTable, table: LabelTable | None
) -> tuple[Int8[np.ndarray, "n c"], np.ndarray, dict[str, int]]:
    """Labels and places of the pool's cases that have a label, and what was left out."""
    no_chest = {case.case_id for case in prepared.cases if not case.shows_chest}
    pool = choose_pool(prepared.embeddings, parsed.pool, no_chest=no_chest, need_text=False)
    labels = _labels_of(prepared, prompts, table)
    known = (labels[pool.indices] >= 0).any(axis=1)
    left_out = {**prepared.left_out, **pool.left_out}
    if not known.all():
        left_out["without a label"] = int(np.count_nonzero(~known))
        say(f"{left_out['without a label']} cases have no label and are left out")
    if table is not None and table.missing:
        left_out[f"classes without a label column: {', '.join(table.missing)}"] = len(table.missing)
    if not known.any():
        where = "the category of the records" if table is None else "the label table"
        message = f"No label of a case of {prepared.directory} is known from {where}."
        remedy = (
            "Give labels of these cases; names match whatever their case, folder and ending. Scans without labels are "
            "for `vlm3d-ct predict`."
        )
        raise DataError(_problem("empty-pool", str(prepared.directory), "labels", "0 cases", message, remedy))
    kept = pool.indices[known]
    return labels[kept], kept, left_out


def _tune(
    parsed: argparse.Namespace, prepared: Prepared, prompts: PromptTable, table: LabelTable | None
) -> TunedThresholds:
    fit = prepared.fit
    assert fit is not None
    if table is not None and table.names != prompts.classes:
        message = "The labels of the validation folder lack classes that the test has."
        remedy = "Give labels of the same classes in both folders."
        raise DataError(
            _problem("missing-label-columns", str(fit.directory), "columns", str(table.missing), message, remedy)
        )
    return tune(
        _score(fit.embeddings, prompts, prepared.encoder, parsed.against),
        _labels_of(fit, prompts, table),
        fit.embeddings.patient_ids,
        rule=parsed.threshold_rule,
        source=f"{fit.name}, {len(fit.cases)} cases, data list {fit.provenance['data_list_sha256']}",
        weights=prepared.provenance["checkpoint_weights_sha256"],
    )


def _score(embeddings: EmbeddingSet, prompts: PromptTable, encoder: Encoder, against: Against) -> PromptScores:
    return ask(encoder, prompts, against, embeddings.volume, embeddings.region_volume)


def _problem(code: str, file: str, field: str, value: str, message: str, remedy: str) -> Problem:
    return Problem(code=code, file=file, field=field, value=value, message=message, remedy=remedy)
