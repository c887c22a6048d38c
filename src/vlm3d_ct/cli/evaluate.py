"""``vlm3d-ct evaluate``, also reached as ``evaluation/retrieval.py``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vlm3d_ct.cli.arguments import Commands, add_command, existing_directory
from vlm3d_ct.data.cache import Cache
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.cohort import hash_patient
from vlm3d_ct.data.dataset import CaseDataset
from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.data.prepare import prepare_cases
from vlm3d_ct.distributed import process_group
from vlm3d_ct.errors import ConfigError, DataError, Problem
from vlm3d_ct.evaluation import Example, choose_examples, evaluate_retrieval, format_table
from vlm3d_ct.inference import Encoder, embed_cases, load_encoder
from vlm3d_ct.log import say, warn
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.volumes.preprocess import Preprocess


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Register the command and its kinds."""
    parser = add_command(
        commands,
        "evaluate",
        "Measure a trained encoder on cases that it has not seen.",
        "vlm3d-ct evaluate retrieval --help",
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    retrieval = add_command(
        kinds,
        "retrieval",
        "Find the report of a volume and the volume of a report; patients of the training are left out.",
        "vlm3d-ct evaluate retrieval --checkpoint exp_log/finetune/checkpoint_best.pth \\\n"
        "      --data_dir data/test --output_dir exp_log/eval_results",
    )
    retrieval.add_argument("--checkpoint", required=True, metavar="FILE")
    retrieval.add_argument("--data_dir", required=True, metavar="DIR", help="volumes, masks (optional) and reports")
    retrieval.add_argument("--output_dir", required=True, metavar="DIR", help="results.json, report.html and more")
    retrieval.add_argument("--cache_dir", metavar="DIR", help="of prepared cases (default: the one of the training)")
    retrieval.add_argument(
        "--skip_invalid", action="store_true", help="leave out cases with faults, counted, instead of stopping"
    )
    retrieval.add_argument(
        "--stage",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="show the loss curves of a training stage, read from its output folder; may be repeated",
    )
    retrieval.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Run ``evaluate retrieval``."""
    directory = existing_directory("--data_dir", parsed.data_dir)
    logs = [_metrics_log(stage) for stage in parsed.stage]
    encoder = load_encoder(parsed.checkpoint)
    preprocess = Preprocess.from_config(encoder.config.preprocess)
    cache = Cache(Path(parsed.cache_dir or encoder.config.data.cache_dir), preprocess.fingerprint)
    cases, left_out = _pool(directory, encoder, preprocess, cache, skip_invalid=parsed.skip_invalid)
    dataset = CaseDataset(cases, cache, encoder.tokenizer, load_region_table(), None, encoder.config.seed)
    with process_group(encoder.device):
        embeddings = embed_cases(encoder.model, encoder.config, dataset, encoder.device, encoder.provenance)
    result = evaluate_retrieval(
        embeddings,
        pool_name=directory.name,
        output_dir=Path(parsed.output_dir),
        examples=_examples(choose_examples(embeddings), cases, cache),
        metrics_logs=logs,
        left_out=left_out,
        region_names=load_region_table().names,
        window_hu=encoder.config.windows_hu[0],
    )
    say(format_table(result))
    say(f"report: {Path(parsed.output_dir) / 'report.html'}")
    return 0


def _pool(
    directory: Path, encoder: Encoder, preprocess: Preprocess, cache: Cache, *, skip_invalid: bool
) -> tuple[list[Case], dict[str, int]]:
    """The volumes of patients that the encoder has not seen, prepared; and how many were left out, by reason."""
    index = read_cases(directory)
    say(index.description)
    volumes = [case for case in index.cases if case.kind == "volume"]
    unseen = [case for case in volumes if hash_patient(case.patient_id) not in encoder.training_patients]
    summary = prepare_cases(unseen, preprocess, cache, workers=encoder.config.data.num_workers)
    problems = [*index.problems, *summary.problems]
    if problems and not skip_invalid:
        raise DataError(problems)
    for problem in problems:
        warn(f"left out: {problem}")
    unusable = {case.case_id for case in summary.unusable}
    usable = [case for case in unseen if case.case_id not in unusable]
    left_out = {
        "patient seen in training": len(volumes) - len(unseen),
        "faults in the volume or its mask": len(summary.unusable),
        "faults elsewhere in the folder (files and texts, not volumes)": len(index.problems),
    }
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    if not usable:
        raise DataError(
            Problem(
                code="empty-pool",
                file=str(directory),
                field="--data_dir",
                value=f"0 of {len(volumes)} volumes",
                message=f"No volume is left to evaluate: {reasons}.",
                remedy="Give a folder with volumes of patients that were not trained on.",
            )
        )
    say(f"pool {directory.name}: {len(usable)} volumes; left out: {reasons}")
    return usable, {reason: count for reason, count in left_out.items() if count}


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
