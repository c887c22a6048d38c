"""What every kind of evaluation does first: flags, the cases, their embeddings (made once), where they come from."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from vlm3d_ct.cli.arguments import existing_directory
from vlm3d_ct.data.cache import Cache
from vlm3d_ct.data.case import Case, Kind
from vlm3d_ct.data.cohort import LONGEST_PREPARATION, hash_patient
from vlm3d_ct.data.ctrate import NO_TEXT
from vlm3d_ct.data.dataset import CaseDataset
from vlm3d_ct.data.labels import LabelTable, find_labels, read_labels
from vlm3d_ct.data.layout import CaseIndex, read_cases
from vlm3d_ct.data.prepare import prepare_cases
from vlm3d_ct.distributed import from_main_rank, gather_objects, process_group, rank, world_size
from vlm3d_ct.embeddings import EmbeddingSet, EmbeddingStore
from vlm3d_ct.errors import ConfigError, DataError, Problem
from vlm3d_ct.evaluation.examples import Example
from vlm3d_ct.evaluation.provenance import describe_run
from vlm3d_ct.evaluation.results import refuse_other_kind
from vlm3d_ct.inference import Encoder, MaskUse, embed_once, load_encoder
from vlm3d_ct.log import say, warn
from vlm3d_ct.text.findings import ABNORMALITIES
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.volumes.preprocess import Preprocess

EMBEDDINGS_FILE = "embeddings.npz"
NO_CHEST = "shows no chest, by the lists of the data set"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The cases of a folder that the encoder has not seen, embedded.

    Attributes:
        name: of the folder, for titles.
        directory: the folder.
        encoder: of the checkpoint.
        cases: index i belongs to index i of the embeddings; a case without a text has no reports.
        embeddings: of all cases (`EmbeddingSet.has_text` says which have a text), with the first of the mask uses.
        by_masks: the embeddings of the same cases with every mask use that was asked for.
        cache: the prepared voxels of the cases.
        left_out: how many cases are not among them, by reason.
        provenance: what made the numbers; `with_settings` adds an evaluation's own choices.
        fit: the cases that something is fitted on (thresholds, a probe), where a second folder was asked for.
    """

    name: str
    directory: Path
    encoder: Encoder
    cases: tuple[Case, ...]
    embeddings: EmbeddingSet
    by_masks: Mapping[MaskUse, EmbeddingSet]
    cache: Cache
    left_out: dict[str, int]
    provenance: dict[str, str]
    fit: Prepared | None = field(default=None, repr=False)

    def with_settings(self, **settings: object) -> dict[str, str]:
        """The provenance with the choices of an evaluation."""
        return self.provenance | {name: str(value) for name, value in settings.items()}


def add_shared_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of every evaluation that needs a checkpoint."""
    parser.add_argument("--checkpoint", required=True, metavar="FILE")
    parser.add_argument("--data_dir", required=True, metavar="DIR", help="volumes, masks (optional) and reports")
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="results.json, report.html and more")
    parser.add_argument("--cache_dir", metavar="DIR", help="of prepared cases (default: the one of the training)")
    parser.add_argument(
        "--embeddings",
        metavar="FILE",
        help=f"reuse these, or make them there (default: OUTPUT_DIR/{EMBEDDINGS_FILE}); stale ones are refused",
    )
    parser.add_argument("--recompute", action="store_true", help="make the embeddings again and overwrite the file")
    parser.add_argument(
        "--skip_invalid", action="store_true", help="leave out cases with faults, counted, instead of stopping"
    )
    # torch.distributed.launch passes it; the environment says the same
    parser.add_argument("--local-rank", "--local_rank", type=int, help=argparse.SUPPRESS)


def add_interval_flags(parser: argparse.ArgumentParser) -> None:
    """``--num_bootstraps`` and ``--seed``, for intervals."""
    parser.add_argument(
        "--num_bootstraps",
        type=int,
        default=1000,
        metavar="N",
        help="samples of patients behind each interval (default: 1000; 0 for none)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of those samples (default: 0)")


def add_label_flags(parser: argparse.ArgumentParser, purpose: str) -> None:
    """``--labels``."""
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help=f"CSV with VolumeName and a column a class, {purpose} (default: the tables of --data_dir)",
    )


def load_labels(
    parsed: argparse.Namespace,
    names: Sequence[str] = ABNORMALITIES,
    mapping: Mapping[str, Sequence[str]] | None = None,
    directory: Path | None = None,
) -> tuple[LabelTable | None, str]:
    """The labels of ``--labels`` or, without it, of the data folder; and where they are from, in words.

    Args:
        parsed: the flags of `add_label_flags` and `add_shared_flags`.
        names: the wanted classes.
        mapping: see `labels.read_labels`.
        directory: another folder than ``--data_dir``; then ``--labels`` is not used.

    Raises:
        ConfigError: the folder is missing.
        DataError: a table cannot be used, see `labels.read_labels`.
    """
    if directory is None and parsed.labels is not None:
        paths: tuple[Path, ...] = (Path(parsed.labels),)
    else:
        paths = find_labels(directory or existing_directory("--data_dir", parsed.data_dir))
    if not paths:
        return None, "no labels"
    table = read_labels(paths, names, mapping, skip_missing=parsed.skip_invalid)
    if table.missing:
        warn(f"left out: {len(table.missing)} classes without a label column: {', '.join(table.missing)}")
    return table, ", ".join(path.name for path in paths)


def load_examples(case_ids: Sequence[str], prepared: Prepared) -> list[Example]:
    """What the pictures of these cases need; each case once."""
    by_id = {case.case_id: case for case in prepared.cases}
    examples = []
    for case_id in dict.fromkeys(case_ids):
        case = by_id[case_id]
        voxels = prepared.cache.read(case)
        examples.append(
            Example(
                case_id=case_id,
                voxels_hu=voxels.voxels_hu,
                labels=voxels.labels,
                spacing_mm=voxels.spacing_mm,
                text=case.reports[0].answer if case.reports else "",
            )
        )
    return examples


def prepare(
    parsed: argparse.Namespace,
    *,
    kind: Kind = "volume",
    masks: Sequence[MaskUse] = ("given",),
    chest_only: bool = True,
    fit_dir: Path | None = None,
    fit_on_trained: bool = False,
) -> Prepared:
    """Find, prepare and embed the cases of ``--data_dir`` (and of ``fit_dir``), the work shared among the ranks.

    Every rank gets the same; what follows is for the main rank alone (`log.is_main_rank`).

    Args:
        parsed: the flags of `add_shared_flags`.
        kind: volumes or slices.
        masks: how the region masks are used; one set of embeddings for each.
        chest_only: leave out the volumes that the data set's own lists name as showing no chest.
        fit_dir: a second folder, for what is fitted.
        fit_on_trained: whether its cases may be of patients that the encoder was trained on; then it may be the folder
            of the test itself, and the patients of the test are left out of it. Where nothing is left of that folder,
            `Prepared.fit` is None.

    Raises:
        ConfigError: a folder is missing, or the one for the results holds those of another kind.
        CheckpointError: the checkpoint is damaged or of another preprocessing.
        DataError: the folder has faults, or no case is left, or both folders share a patient where they must not.
    """
    directory = existing_directory("--data_dir", parsed.data_dir)
    refuse_other_kind(Path(parsed.output_dir), parsed.kind)
    encoder = load_encoder(parsed.checkpoint)
    folder = _Folder(parsed, encoder, kind, tuple(masks), chest_only)
    with process_group(encoder.device):
        fit = None if fit_dir is None else folder.prepare(fit_dir, "_fit", keep_trained=fit_on_trained)
        prepared = folder.prepare(directory, "", fit=fit)
    if fit is None:
        return prepared
    if fit_on_trained:
        return replace(prepared, fit=_without_patients(fit, prepared))
    _refuse_shared_patients(prepared, fit)
    return prepared


@dataclass(frozen=True)
class _Folder:
    """How the cases of a folder become embeddings."""

    parsed: argparse.Namespace
    encoder: Encoder
    kind: Kind
    masks: tuple[MaskUse, ...]
    chest_only: bool

    def prepare(
        self, directory: Path, suffix: str, *, keep_trained: bool = False, fit: Prepared | None = None
    ) -> Prepared:
        encoder, parsed = self.encoder, self.parsed
        preprocess = Preprocess.from_config(encoder.config.preprocess)
        cache = Cache(Path(parsed.cache_dir or encoder.config.data.cache_dir), preprocess.fingerprint)
        cases, left_out = self._find(directory, preprocess, cache, keep_trained=keep_trained)
        dataset = CaseDataset(cases, cache, encoder.tokenizer, load_region_table(), None, encoder.config.seed)
        by_masks = {
            masks: embed_once(encoder, dataset, self._store(suffix, masks), masks=masks, recompute=parsed.recompute)
            for masks in self.masks
        }
        if self.chest_only and not all(case.shows_chest for case in cases):
            chest = np.array([i for i, case in enumerate(cases) if case.shows_chest], dtype=np.int64)
            left_out |= {NO_CHEST: len(cases) - len(chest)}
            cases = [cases[i] for i in chest]
            by_masks = {masks: embeddings.select(chest) for masks, embeddings in by_masks.items()}
        if not cases:
            raise DataError(_empty_pool(directory, self.kind, 0, left_out))
        return Prepared(
            name=directory.resolve().name,
            directory=directory,
            encoder=encoder,
            cases=tuple(cases),
            embeddings=by_masks[self.masks[0]],
            by_masks=by_masks,
            cache=cache,
            left_out=left_out,
            provenance=describe_run(encoder, cases, {"cases_that_chose_the_checkpoint": self._count_validated(cases)}),
            fit=fit,
        )

    def _count_validated(self, cases: Sequence[Case]) -> int:
        """How many cases are of patients that the training was validated on; said, where there are any."""
        count = sum(hash_patient(case.patient_id) in self.encoder.validation_patients for case in cases)
        if count:
            say(f"{count} of them are of patients by whose scores the training chose its best checkpoint")
        return count

    def _store(self, suffix: str, masks: MaskUse) -> EmbeddingStore:
        named = self.parsed.embeddings is not None
        path = Path(self.parsed.embeddings) if named else Path(self.parsed.output_dir) / EMBEDDINGS_FILE
        if named and path.suffix != ".npz":
            raise ConfigError(f"--embeddings {path}: give the name of a .npz file.")
        ending = suffix if masks == "given" else f"{suffix}_{masks}"
        return EmbeddingStore(path.with_name(f"{path.stem}{ending}{path.suffix}"), named=named)

    def _find(
        self, directory: Path, preprocess: Preprocess, cache: Cache, *, keep_trained: bool
    ) -> tuple[list[Case], dict[str, int]]:
        """The cases that can be used, prepared; and how many were left out, by reason."""
        read = partial(read_cases, directory, mask_labels=self.encoder.config.data.mask_labels)
        index = from_main_rank(read, LONGEST_PREPARATION)
        say(index.description)
        found = [case for case in (*index.cases, *index.without_text, *index.no_chest) if case.kind == self.kind]
        trained = self.encoder.training_patients
        unseen = [case for case in found if keep_trained or hash_patient(case.patient_id) not in trained]
        workers = self.encoder.config.data.num_workers
        summary = prepare_cases(unseen, preprocess, cache, workers=workers, shard=(rank() + 1, world_size()))
        summaries = gather_objects(summary, timeout=LONGEST_PREPARATION)
        faults = [problem for each in summaries for problem in each.problems]
        unusable = {case.case_id for each in summaries for case in each.unusable}
        elsewhere = _stop_or_count(index, faults, skip_invalid=self.parsed.skip_invalid)
        usable = [case for case in unseen if case.case_id not in unusable]
        left_out = {
            "patient seen in training": len(found) - len(unseen),
            f"faults in the {self.kind} or its mask": len(unusable),
            f"faults elsewhere in the folder (files and texts, not {self.kind}s)": elsewhere,
        }
        if not usable:
            raise DataError(_empty_pool(directory, self.kind, len(found), left_out))
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        say(f"{directory.name}: {len(usable)} {self.kind}s; left out: {reasons}")
        usable.sort(key=lambda case: case.case_id)
        return usable, {reason: count for reason, count in left_out.items() if count}


def _stop_or_count(index: CaseIndex, faults: Sequence[Problem], *, skip_invalid: bool) -> int:
    """Stop at faults or warn of each; a volume without a text is none. Returns those that cost no volume its place."""
    others = [problem for problem in index.problems if problem.code != NO_TEXT]
    if (others or faults) and not skip_invalid:
        raise DataError([*others, *faults])
    for problem in (*others, *faults):
        warn(f"left out: {problem}")
    if index.without_text:
        say(f"{len(index.without_text)} volumes have no text; they take part where none is needed")
    return len(others)


def _empty_pool(directory: Path, kind: Kind, total: int, left_out: Mapping[str, int]) -> Problem:
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    return Problem(
        code="empty-pool",
        file=str(directory),
        field="--data_dir",
        value=f"0 of {total} {kind}s",
        message=f"No {kind} is left to evaluate: {reasons}.",
        remedy=f"Give a folder with {kind}s of patients that were not trained on.",
    )


def _without_patients(fit: Prepared, test: Prepared) -> Prepared | None:
    """The cases to fit on without the patients of the test; None where these are all of the folder's patients."""
    patients = set(test.embeddings.patient_ids)
    kept = np.array([i for i, name in enumerate(fit.embeddings.patient_ids) if name not in patients], dtype=np.int64)
    left_out = {**fit.left_out}
    if len(kept) < len(fit.cases):
        left_out["patient of the test"] = len(fit.cases) - len(kept)
    if not len(kept) and fit.directory == test.directory:
        return None
    if not len(kept):
        raise DataError(_empty_pool(fit.directory, "volume", len(fit.cases), left_out))
    return replace(
        fit,
        cases=tuple(fit.cases[i] for i in kept),
        embeddings=fit.embeddings.select(kept),
        by_masks={masks: embeddings.select(kept) for masks, embeddings in fit.by_masks.items()},
        left_out=left_out,
    )


def _refuse_shared_patients(prepared: Prepared, fit: Prepared) -> None:
    shared = sorted(set(prepared.embeddings.patient_ids) & set(fit.embeddings.patient_ids))
    if shared:
        raise DataError(
            Problem(
                code="shared-patients",
                file=str(fit.directory),
                field="patients",
                value=", ".join(shared[:8]),
                message=f"{len(shared)} patients are in {prepared.directory} too: nothing may be fitted on the test.",
                remedy="Give folders that share no patient.",
            )
        )
