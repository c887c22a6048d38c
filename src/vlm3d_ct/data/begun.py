"""The cases that a run began with, in its output folder: a folder that grows does not change a run that was begun."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, get_args

from vlm3d_ct.data.case import Case, Kind
from vlm3d_ct.data.foreign_text import read_text
from vlm3d_ct.errors import ConfigError, Problem
from vlm3d_ct.text.report import Report
from vlm3d_ct.volumes.atomic import write_atomically
from vlm3d_ct.volumes.faults import fault, problem

CASES_FILE = "cases.json"
FORMAT = 1
_MAX_BYTES = 256 << 20
_AGAIN = "Start anew in another --output_dir, or put the file of this run back."


@dataclass(frozen=True)
class BegunCase:
    """A case by its name.

    Attributes:
        kind, case_id: of the case.
        texts: hash of its texts; what they say does not leave the data folder.
    """

    kind: Kind
    case_id: str
    texts: str

    @property
    def key(self) -> tuple[Kind, str]:
        """What names the case in a cohort."""
        return self.kind, self.case_id

    def differs(self, case: Case) -> bool:
        """Whether the case's texts are others than when the run began."""
        return _digest(case.reports) != self.texts

    def absent(self, file: Path) -> Problem:
        """The problem of its not being there any more."""
        message = "The run began with this case; it is not in the data folders any more, or cannot be used."
        remedy = "Put its files and texts back, or start anew in another --output_dir."
        return problem("case-vanished", file, self.kind, self.case_id, message, remedy)


@dataclass(frozen=True, kw_only=True)
class BegunCases:
    """The two sides of the split, in their order, and the file that says so."""

    training: tuple[BegunCase, ...]
    validation: tuple[BegunCase, ...]
    file: Path


def write_begun(output_dir: Path, training: Iterable[Case], validation: Iterable[Case]) -> None:
    """Write the cases of a run into ``cases.json`` of its output folder.

    Raises:
        ConfigError: the disk is full or refuses.
    """
    sides = {"training": training, "validation": validation}
    listed = {side: [astuple(_begun(case)) for case in cases] for side, cases in sides.items()}
    text = json.dumps({"format": FORMAT, "columns": ["kind", "case_id", "hash of texts"], **listed}, indent=0)
    path, encoded = output_dir / CASES_FILE, text.encode()
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(path, [encoded])
    except OSError as error:
        raise ConfigError(
            f"{path}: the {len(encoded)} bytes that list the run's cases cannot be written: {error.strerror}. "
            "Free space or choose another --output_dir."
        ) from None


def read_begun(folder: Path) -> BegunCases | None:
    """The cases that the run in this output folder began with; None where no such file is there.

    Raises:
        DataError: the file is damaged, or of another version.
    """
    path = folder / CASES_FILE
    if not path.exists():
        return None
    try:
        content = json.loads(read_text(path, _MAX_BYTES))
        if content["format"] != FORMAT:
            message = f"This version reads format {FORMAT}."
            raise fault("cases-file", path, "format", content["format"], message, _AGAIN)
        return BegunCases(training=_side(content["training"]), validation=_side(content["validation"]), file=path)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        value = f"{type(error).__name__}: {error}"
        raise fault("cases-file", path, "content", value, "The list of the run's cases is damaged.", _AGAIN) from None


def _side(rows: Sequence[Any]) -> tuple[BegunCase, ...]:
    for row in rows:
        if len(row) != 3 or row[0] not in get_args(Kind) or not all(isinstance(cell, str) for cell in row):
            raise ValueError(f"not a case: {row!r:.80}")
    return tuple(BegunCase(*row) for row in rows)


def _begun(case: Case) -> BegunCase:
    return BegunCase(case.kind, case.case_id, _digest(case.reports))


def _digest(reports: Sequence[Report]) -> str:
    said = json.dumps([(r.question, r.answer, [(s.text, s.entities) for s in r.steps]) for r in reports])
    return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()
