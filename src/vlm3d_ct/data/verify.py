"""The audit of a data folder: every file is read as training would read it, and everything wrong is listed at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from vlm3d_ct.data.case import Case
from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.data.load import load_case
from vlm3d_ct.data.workers import map_cases
from vlm3d_ct.errors import Problem
from vlm3d_ct.log import progress

SHOWN_PER_CODE = 20


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What an audit found.

    Attributes:
        directory: the audited folder.
        description: what was recognised.
        num_cases: cases with an image and a text.
        num_usable: those of them that were read without a problem.
        problems: sorted by code and file.
    """

    directory: Path
    description: str
    num_cases: int
    num_usable: int
    problems: tuple[Problem, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of problems by code, the most frequent first."""
        groups = {code: len(list(group)) for code, group in groupby(self.problems, key=lambda problem: problem.code)}
        return dict(sorted(groups.items(), key=lambda item: (-item[1], item[0])))

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "directory": str(self.directory),
            "description": self.description.splitlines(),
            "num_cases": self.num_cases,
            "num_usable": self.num_usable,
            "counts": self.counts,
            "problems": [problem.as_dict() for problem in self.problems],
        }

    def render(self) -> Iterator[str]:
        """Lines for people; of each kind of problem the first 20."""
        yield from self.description.splitlines()
        yield f"{self.num_cases} cases, {self.num_usable} usable, {len(self.problems)} problems"
        for code, count in self.counts.items():
            same = [problem for problem in self.problems if problem.code == code]
            yield ""
            yield f"{code}: {count}. {same[0].message} {same[0].remedy}"
            for problem in same[:SHOWN_PER_CODE]:
                yield f"  {problem.file}: {problem.field} = {problem.value}"
            if count > SHOWN_PER_CODE:
                yield f"  ... and {count - SHOWN_PER_CODE} more; --json lists all of them"


def verify_directory(directory: Path, *, workers: int) -> VerifyReport:
    """Read every file of a data folder and report every problem; nothing is written, nothing raises for bad data."""
    index = read_cases(directory)
    problems = list(index.problems)
    num_usable = 0
    with progress("Verifying", total=len(index.cases)) as ticker:
        for _, error in map_cases(_check, index.cases, workers):
            if error is None:
                num_usable += 1
            else:
                problems.extend(error.problems)
            ticker.advance()
    return VerifyReport(
        directory=directory,
        description=index.description,
        num_cases=len(index.cases),
        num_usable=num_usable,
        problems=tuple(sorted(problems, key=lambda problem: (problem.code, problem.file, problem.field))),
    )


def _check(case: Case) -> None:
    load_case(case)
