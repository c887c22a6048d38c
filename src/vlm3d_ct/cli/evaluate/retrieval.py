"""``vlm3d-ct evaluate retrieval``, also reached as ``evaluation/retrieval.py``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from vlm3d_ct.cli.arguments import Commands, add_command
from vlm3d_ct.cli.evaluate.shared import (
    add_interval_flags,
    add_label_flags,
    add_shared_flags,
    load_examples,
    load_labels,
    prepare,
)
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.evaluation.examples import choose_examples
from vlm3d_ct.evaluation.metrics_log import read_metrics
from vlm3d_ct.evaluation.pool import POOL_RULES, POOLS, RIGHT, RIGHT_RULES, PoolName, RightItem, choose_pool
from vlm3d_ct.evaluation.regions import MASK_RULES, MASKS
from vlm3d_ct.evaluation.results import REPORT_FILE, write_text
from vlm3d_ct.evaluation.retrieval_files import evaluate_retrieval, format_table, write_retrieval
from vlm3d_ct.evaluation.retrieval_page import retrieval_page
from vlm3d_ct.log import is_main_rank, say
from vlm3d_ct.text.regions import load_region_table


def add_kind(kinds: Commands[argparse.ArgumentParser]) -> None:
    """Register the kind."""
    parser = add_command(
        kinds,
        "retrieval",
        "Find the report of a volume and the volume of a report; patients of the training are left out.",
        "vlm3d-ct evaluate retrieval --checkpoint exp_log/finetune/checkpoint_best.pth \\\n"
        "      --data_dir data/test --output_dir exp_log/eval_results",
    )
    add_shared_flags(parser)
    parser.add_argument("--pool", choices=POOLS, default="all", help=_rules(POOL_RULES))
    parser.add_argument("--right", choices=RIGHT, default="own", help=_rules(RIGHT_RULES))
    parser.add_argument(
        "--masks",
        choices=tuple(MASKS),
        default="true",
        help="; ".join(f"{name}: {rule}" for name, rule in MASK_RULES.items()) + " (default: true)",
    )
    add_label_flags(parser, "for the label-only baseline and the volume-to-volume score")
    add_interval_flags(parser)
    parser.add_argument(
        "--stage",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="show the loss curves of a training stage, read from its output folder; may be repeated",
    )
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Run ``evaluate retrieval``."""
    logs = [read_metrics(*_metrics_log(stage)) for stage in parsed.stage]
    labels, _ = load_labels(parsed)
    prepared = prepare(parsed, masks=(MASKS[parsed.masks],), chest_only=False)
    if not is_main_rank():
        return 0
    no_chest = {case.case_id for case in prepared.cases if not case.shows_chest}
    pool = choose_pool(prepared.embeddings, parsed.pool, parsed.right, no_chest=no_chest)
    choices = {"pool": pool.name, "right": pool.right, "masks": MASK_RULES[parsed.masks]}
    choices |= {"num_bootstraps": parsed.num_bootstraps, "seed": parsed.seed}
    evaluation = evaluate_retrieval(
        prepared.embeddings,
        pool,
        data_name=prepared.name,
        labels=labels,
        left_out=prepared.left_out,
        provenance=prepared.with_settings(**choices),
        num_bootstraps=parsed.num_bootstraps,
        seed=parsed.seed,
    )
    output_dir = Path(parsed.output_dir)
    page = retrieval_page(
        evaluation,
        examples=load_examples(choose_examples(evaluation.embeddings, evaluation.result), prepared),
        logs=logs,
        window_hu=prepared.encoder.config.model.windows_hu[0],
        region_names=load_region_table().names,
    )
    write_text(output_dir / REPORT_FILE, page.render())
    write_retrieval(evaluation, output_dir)
    say(format_table(evaluation))
    say(f"report: {output_dir / REPORT_FILE}")
    return 0


def _metrics_log(stage: str) -> tuple[str, Path]:
    name, separator, folder = stage.partition("=")
    path = Path(folder) / "metrics.jsonl"
    if not separator or not path.is_file():
        raise ConfigError(f"--stage {stage}: give NAME=DIR, with {path.name} in DIR, the output folder of a training.")
    return name, path


def _rules(rules: Mapping[PoolName, str] | Mapping[RightItem, str]) -> str:
    return "; ".join(f"{name}: {rule}" for name, rule in rules.items())
