"""What every kind of evaluation does first: flags, the cases, their embeddings (made once), where they come from."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from vlm3d_ct.cli.arguments import existing_directory
from vlm3d_ct.data.cache import Cache
from vlm3d_ct.data.case import Case, Kind
from vlm3d_ct.data.cohort import hash_patient
from vlm3d_ct.data.dataset import CaseDataset
from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.data.prepare import prepare_cases
from vlm3d_ct.distributed import gather_objects, process_group, rank, world_size
from vlm3d_ct.embeddings import EmbeddingSet
from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.inference import Encoder, embed_cases, load_encoder
from vlm3d_ct.log import say, warn
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.volumes.preprocess import Preprocess

LONGEST_PREPARATION = timedelta(days=7)
"""How long a rank waits for the others to prepare their share."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The cases of a folder that the encoder has not seen, embedded.

    Attributes:
        name: of the folder, for titles.
        directory: the folder.
        encoder: of the checkpoint.
        cases: index i belongs to index i of the embeddings; a case without a text has no reports.
        embeddings: of all cases (`EmbeddingSet.has_text` says which have a text).
        cache: the prepared voxels of the cases.
        left_out: how many cases are not among them, by reason.
        provenance: what made the numbers.
        fit: the cases that something is fitted on (thresholds, a probe), where a second folder was asked for.
    """

    name: str
    directory: Path
    encoder: Encoder
    cases: tuple[Case, ...]
    embeddings: EmbeddingSet
    cache: Cache
    left_out: dict[str, int]
    provenance: dict[str, str]
    fit: Prepared | None = None


def add_shared_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of every evaluation that needs a checkpoint."""
    parser.add_argument("--checkpoint", required=True, metavar="FILE")
    parser.add_argument("--data_dir", required=True, metavar="DIR", help="volumes, masks (optional) and reports")
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="results.json, report.html and more")
    parser.add_argument("--cache_dir", metavar="DIR", help="of prepared cases (default: the one of the training)")
    parser.add_argument(
        "--skip_invalid", action="store_true", help="leave out cases with faults, counted, instead of stopping"
    )


def prepare(
    parsed: argparse.Namespace, *, kind: Kind = "volume", fit_dir: Path | None = None, fit_on_trained: bool = False
) -> Prepared:
    """Find, prepare and embed the cases of ``--data_dir`` (and of ``fit_dir``), the work shared among the ranks.

    Every rank gets the same; what follows is for the main rank alone (`log.is_main_rank`).

    Args:
        parsed: the flags of `add_shared_flags`.
        kind: volumes or slices.
        fit_dir: a second folder, for what is fitted.
        fit_on_trained: whether its cases may be of patients that the encoder was trained on.

    Raises:
        ConfigError: a folder is missing.
        CheckpointError: the checkpoint is damaged or of another preprocessing.
        DataError: the folder has faults, or no case is left.
    """
    directory = existing_directory("--data_dir", parsed.data_dir)
    encoder = load_encoder(parsed.checkpoint)
    with process_group(encoder.device):
        fit = None if fit_dir is None else _prepare_folder(parsed, fit_dir, encoder, kind, None, fit_on_trained)
        return _prepare_folder(parsed, directory, encoder, kind, fit, False)


def _prepare_folder(
    parsed: argparse.Namespace,
    directory: Path,
    encoder: Encoder,
    kind: Kind,
    fit: Prepared | None,
    keep_trained: bool,
) -> Prepared:
    preprocess = Preprocess.from_config(encoder.config.preprocess)
    cache = Cache(Path(parsed.cache_dir or encoder.config.data.cache_dir), preprocess.fingerprint)
    cases, left_out = _find_cases(directory, encoder, cache, kind, keep_trained, skip_invalid=parsed.skip_invalid)
    dataset = CaseDataset(cases, cache, encoder.tokenizer, load_region_table(), None, encoder.config.seed)
    embeddings = embed_cases(encoder.model, encoder.config, dataset, encoder.device, encoder.provenance)
    return Prepared(
        name=directory.resolve().name,
        directory=directory,
        encoder=encoder,
        cases=tuple(cases),
        embeddings=embeddings,
        cache=cache,
        left_out=left_out,
        provenance=dict(encoder.provenance),
        fit=fit,
    )


def _find_cases(
    directory: Path, encoder: Encoder, cache: Cache, kind: Kind, keep_trained: bool, *, skip_invalid: bool
) -> tuple[Sequence[Case], dict[str, int]]:
    """The cases of patients that the encoder has not seen, prepared; and how many were left out, by reason."""
    index = read_cases(directory)
    say(index.description)
    found = [case for case in index.cases if case.kind == kind]
    unseen = [case for case in found if keep_trained or hash_patient(case.patient_id) not in encoder.training_patients]
    preprocess = Preprocess.from_config(encoder.config.preprocess)
    shard = (rank() + 1, world_size())
    summary = prepare_cases(unseen, preprocess, cache, workers=encoder.config.data.num_workers, shard=shard)
    summaries = gather_objects(summary, timeout=LONGEST_PREPARATION)
    problems = [*index.problems, *(problem for each in summaries for problem in each.problems)]
    if problems and not skip_invalid:
        raise DataError(problems)
    for problem in problems:
        warn(f"left out: {problem}")
    unusable = {case.case_id for each in summaries for case in each.unusable}
    usable = [case for case in unseen if case.case_id not in unusable]
    left_out = {
        "patient seen in training": len(found) - len(unseen),
        "faults in the volume or its mask": len(unusable),
        "faults elsewhere in the folder (files and texts, not volumes)": len(index.problems),
    }
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    if not usable:
        raise DataError(
            Problem(
                code="empty-pool",
                file=str(directory),
                field="--data_dir",
                value=f"0 of {len(found)} {kind}s",
                message=f"No {kind} is left to evaluate: {reasons}.",
                remedy=f"Give a folder with {kind}s of patients that were not trained on.",
            )
        )
    say(f"{directory.name}: {len(usable)} {kind}s; left out: {reasons}")
    return usable, {reason: count for reason, count in left_out.items() if count}
