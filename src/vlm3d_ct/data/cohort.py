"""The cases of a run: found, split by patient, prepared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from vlm3d_ct.config import Config
from vlm3d_ct.data.begun import BegunCases
from vlm3d_ct.data.cache import Cache
from vlm3d_ct.data.case import Case, Kind
from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.data.prepare import PrepareSummary, prepare_cases
from vlm3d_ct.data.records import UNFINISHED
from vlm3d_ct.data.split import split_patients
from vlm3d_ct.distributed import gather_objects, rank, world_size
from vlm3d_ct.errors import ConfigError, DataError, Problem, Stopped
from vlm3d_ct.log import say, warn
from vlm3d_ct.volumes.preprocess import Preprocess

LONGEST_PREPARATION = timedelta(days=7)
"""How long a rank waits for the others to find the cases, or to prepare their share."""


@dataclass(frozen=True)
class Cohort:
    """The cases of a run, no patient on both sides."""

    training: tuple[Case, ...]
    validation: tuple[Case, ...]

    @property
    def identity(self) -> str:
        """Hash of which cases are on which side; a run is continued on the same cohort only."""
        lines = [f"{side} {c.kind} {c.case_id}" for side in ("training", "validation") for c in getattr(self, side)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def restricted_to(self, begun: BegunCases) -> Cohort:
        """The cases that a run began with, on their sides and in their order; new ones are left for the next run.

        Raises:
            DataError: cases of the run are not there any more; each is named.
        """
        found = {(case.kind, case.case_id): case for case in (*self.training, *self.validation)}
        absent = [each for each in (*begun.training, *begun.validation) if each.key not in found]
        if absent:
            raise DataError([each.absent(begun.file) for each in absent])
        num_new = len(found) - len(begun.training) - len(begun.validation)
        if num_new:
            say(f"{num_new} cases are new since this run began; they are left for the next run")
        changed = [each.case_id for each in (*begun.training, *begun.validation) if each.differs(found[each.key])]
        if changed:
            warn(
                f"the texts of {len(changed)} cases are not those that this run began with ({', '.join(changed[:5])}"
                f"{', ...' * (len(changed) > 5)}); it goes on with the new ones"
            )
        return Cohort(
            tuple(found[each.key] for each in begun.training), tuple(found[each.key] for each in begun.validation)
        )

    @property
    def training_patients(self) -> list[str]:
        """Hashed patient ids of the training side: a checkpoint carries them, so that evaluation can leave them out."""
        return sorted({hash_patient(case.patient_id) for case in self.training})

    @property
    def validation_patients(self) -> list[str]:
        """Hashed patient ids of the other side, which choose the best checkpoint: evaluation says how many it meets."""
        return sorted({hash_patient(case.patient_id) for case in self.validation})


def hash_patient(patient_id: str) -> str:
    """A patient id as it may leave the hospital: 16 hexadecimal digits of its BLAKE2."""
    return hashlib.blake2b(patient_id.encode(), digest_size=8).hexdigest()


def find_cohort(config: Config) -> Cohort:
    """Find and split the cases of a configuration; nothing is prepared yet.

    Raises:
        ConfigError: no data folder is configured.
        DataError: a folder has faults and `data.on_invalid` is ``error``, or holds nothing of the wanted kind.
    """
    folders: list[tuple[str, str | None, Kind]] = [
        ("data.ctrate_dir", config.data.ctrate_dir, "volume"),
        ("data.omniabnorm_dir", config.data.omniabnorm_dir, "slice"),
    ]
    if all(folder is None for _, folder, _ in folders):
        raise ConfigError("data.ctrate_dir is not set: give the folder with the volumes, --set data.ctrate_dir=FOLDER.")
    cases: list[Case] = []
    problems: list[Problem] = []
    for setting, folder, kind in folders:
        if folder is None:
            continue
        index = read_cases(Path(folder), mask_labels=config.data.mask_labels)
        if index.description:
            say(index.description)
        found = [case for case in index.cases if case.kind == kind]
        problems += index.problems
        if not found and not index.problems:
            problems.append(
                Problem(
                    code="no-cases",
                    file=folder,
                    field=setting,
                    value=f"0 of kind {kind}",
                    message=f"The folder holds no {kind}s.",
                    remedy=f"Set {setting} to a folder that does, or to null.",
                )
            )
        cases += found
    refuse_or_skip(problems, config)
    training, validation = split_patients(cases, config.data.validation_fraction)
    return Cohort(tuple(training), tuple(validation))


def check_sides(cohort: Cohort, config: Config) -> None:
    """Whether there is something to train on, and volumes to validate with.

    Raises:
        ConfigError: there is not.
    """
    counts = {
        "training case": (len(cohort.training), "lower"),
        "volume for validation": (sum(case.kind == "volume" for case in cohort.validation), "raise"),
    }
    for what, (count, how) in counts.items():
        if not count:
            total = len(cohort.training) + len(cohort.validation)
            patients = len({case.patient_id for side in (cohort.training, cohort.validation) for case in side})
            raise ConfigError(
                f"data.validation_fraction = {config.data.validation_fraction}: leaves no {what} among {total} cases "
                f"of {patients} patients; {how} it or add patients. Names tell patients apart, or patients.csv does: "
                "docs/architecture.md, data folders."
            )


def prepare_cohort(
    cohort: Cohort, config: Config, *, workers: int, stopping: Callable[[], bool] = lambda: False
) -> Cohort:
    """Bring the cache up to date, the work shared among the ranks; returns the cohort without its unusable cases.

    Returns when every rank is done: none starts before the data is ready, all keep the same cases.

    Raises:
        Stopped: ``stopping``, asked between cases, said yes on some rank; all ranks raise it.
        DataError: a case cannot be used and `data.on_invalid` is ``error``.
    """
    preprocess = Preprocess.from_config(config.preprocess)
    cache = Cache(Path(config.data.cache_dir), preprocess.fingerprint)
    cases = (*cohort.training, *cohort.validation)
    summary: PrepareSummary | Stopped
    try:  # a full disk ends this rank at once, and its launcher the others: together they would end hours later
        shard = (rank() + 1, world_size())
        summary = prepare_cases(cases, preprocess, cache, workers=workers, shard=shard, stopping=stopping)
    except Stopped as stopped:
        summary = stopped  # the other ranks must hear of it
    gathered = gather_objects(summary, timeout=LONGEST_PREPARATION)
    summaries = [each for each in gathered if isinstance(each, PrepareSummary)]
    if len(summaries) < len(gathered):
        raise next(each for each in gathered if isinstance(each, Stopped))
    refuse_or_skip([problem for each in summaries for problem in each.problems], config)
    unusable = {(case.kind, case.case_id) for each in summaries for case in each.unusable}
    training, validation = (
        tuple(case for case in side if (case.kind, case.case_id) not in unusable)
        for side in (cohort.training, cohort.validation)
    )
    return Cohort(training, validation)


def refuse_or_skip(problems: Sequence[Problem], config: Config) -> None:
    """Stop at faults, or list and count them, as `data.on_invalid` says.

    A file that is being written (`UNFINISHED`) stops nothing: what it will hold is for the next run.

    Raises:
        DataError: there are faults and they are not to be skipped.
    """
    for problem in problems:
        if problem.code == UNFINISHED:
            warn(f"left for the next run: {problem}")
    faults = [problem for problem in problems if problem.code != UNFINISHED]
    if not faults:
        return
    if config.data.on_invalid == "error":
        raise DataError(faults)
    for problem in faults:
        warn(f"left out: {problem}")
    warn(f"{len(faults)} faults were left out (data.on_invalid = skip)")
