"""The audit of a data folder: every file is read as training would read it, and everything wrong is listed at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from vlm3d_ct.audit.cohort_checks import check_copies, check_splits
from vlm3d_ct.audit.examine import examine
from vlm3d_ct.audit.facts import CaseFacts
from vlm3d_ct.audit.label_checks import LabelFindings, check_labels
from vlm3d_ct.audit.oddness import Odd, oddest
from vlm3d_ct.data.case import Case, MaskLabels
from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.data.workers import map_cases
from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.log import progress

SHOWN_PER_CODE = 20
NUM_ODD = 12


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What an audit found.

    Attributes:
        directory: the audited folder.
        description: what was recognised.
        num_cases: cases with an image and a text.
        num_usable: those of them that were read and judged without a problem.
        problems: sorted by code and file.
        facts: of every case whose files can be read, those without a text and those that show no chest included.
        labels: what the label tables came to.
        odd: the cases that are most unlike the others, each with its files.
    """

    directory: Path
    description: str
    num_cases: int
    num_usable: int
    problems: tuple[Problem, ...]
    facts: tuple[CaseFacts, ...]
    labels: LabelFindings
    odd: tuple[tuple[Case, Odd], ...]

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
            "odd_cases": [
                {"case_id": odd.facts.case_id, "kind": odd.facts.kind, "reasons": list(odd.reasons)}
                for _, odd in self.odd
            ],
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


def verify_directory(
    directory: Path, *, workers: int, mask_labels: MaskLabels | Literal["auto"] = "auto"
) -> VerifyReport:
    """Read every file of a data folder once and report every problem; nothing is written, nothing raises for bad data.

    Volumes without a text and those that the published lists leave out are read, too: the evaluation uses them.

    Args:
        directory: the folder.
        workers: processes.
        mask_labels: see `read_cases`.
    """
    index = read_cases(directory, mask_labels=mask_labels)
    cases = (*index.cases, *index.without_text, *index.no_chest)
    usable = {(case.kind, case.case_id) for case in index.cases}
    problems = [*index.problems, *check_splits(cases)]
    read: list[tuple[Case, CaseFacts]] = []
    num_usable = 0
    with progress("Verifying", total=len(cases)) as ticker:
        for case, examined in map_cases(examine, cases, workers):
            ticker.advance()
            if isinstance(examined, DataError):
                problems += examined.problems
                continue
            problems += examined.problems
            num_usable += not examined.problems and (case.kind, case.case_id) in usable
            if examined.facts is not None:
                read.append((case, examined.facts))
    read.sort(key=lambda pair: (pair[0].kind, pair[0].case_id))
    problems += check_copies([(case.image_paths[0], facts) for case, facts in read])
    labels = check_labels(directory, [case.case_id for case in cases if case.kind == "volume"])
    problems += labels.problems
    return VerifyReport(
        directory=directory,
        description=index.description,
        num_cases=len(index.cases),
        num_usable=num_usable,
        problems=tuple(sorted(problems, key=lambda problem: (problem.code, problem.file, problem.field))),
        facts=tuple(facts for _, facts in read),
        labels=labels,
        odd=_find_odd(read),
    )


def _find_odd(read: Sequence[tuple[Case, CaseFacts]]) -> tuple[tuple[Case, Odd], ...]:
    cases = {(case.kind, case.case_id): case for case, _ in read}
    odd = oddest([facts for _, facts in read], NUM_ODD)
    return tuple((cases[each.facts.kind, each.facts.case_id], each) for each in odd)
