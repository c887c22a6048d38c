"""``vlm3d-ct evaluate retrieval``, also reached as ``evaluation/retrieval.py``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vlm3d_ct.cli.arguments import Commands, add_command
from vlm3d_ct.cli.evaluate.shared import add_shared_flags, prepare
from vlm3d_ct.data.cache import Cache
from vlm3d_ct.data.case import Case
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.evaluation import Example, choose_examples, evaluate_retrieval, format_table
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
    logs = [_metrics_log(stage) for stage in parsed.stage]
    prepared = prepare(parsed)
    if not is_main_rank():
        return 0
    result = evaluate_retrieval(
        prepared.embeddings,
        pool_name=prepared.name,
        output_dir=Path(parsed.output_dir),
        examples=_examples(choose_examples(prepared.embeddings), prepared.cases, prepared.cache),
        metrics_logs=logs,
        left_out=prepared.left_out,
        region_names=load_region_table().names,
        window_hu=prepared.encoder.config.windows_hu[0],
    )
    say(format_table(result))
    say(f"report: {Path(parsed.output_dir) / 'report.html'}")
    return 0


def _examples(case_ids: Sequence[str], cases: Sequence[Case], cache: Cache) -> list[Example]:
    by_id = {case.case_id: case for case in cases}
    examples = []
    for case_id in case_ids:
        prepared = cache.read(case_id, "volume")
        examples.append(
            Example(
                case_id=case_id,
                voxels_hu=prepared.voxels_hu,
                labels=prepared.labels,
                spacing_mm=prepared.spacing_mm,
                text=by_id[case_id].reports[0].answer,
            )
        )
    return examples


def _metrics_log(stage: str) -> tuple[str, Path]:
    name, separator, folder = stage.partition("=")
    path = Path(folder) / "metrics.jsonl"
    if not separator or not path.is_file():
        raise ConfigError(f"--stage {stage}: give NAME=DIR, with {path.name} in DIR, the output folder of a training.")
    return name, path
