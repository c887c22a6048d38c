"""What one part of a data folder holds, and the line that says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vlm3d_ct.data.case import Case
from vlm3d_ct.errors import Problem


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one part of a data folder holds; see `CaseIndex`."""

    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]
    description: str
    without_text: tuple[Case, ...] = ()
    no_chest: tuple[Case, ...] = ()


def describe_masks(cases: Iterable[Case]) -> str:
    """How many cases have which kind of mask: ``masks: 3 regions, 1 structures, 2 none``."""
    return describe("masks", Counter(case.mask_labels if case.mask_paths else "none" for case in cases))


def describe(title: str, counts: Mapping[str, int]) -> str:
    """Counts as people read them, ``none`` last: ``texts: 3 reports, 1 none``."""
    ordered = sorted(counts.items(), key=lambda item: (item[0] == "none", item[0]))
    return f"{title}: " + (", ".join(f"{count} {name}" for name, count in ordered if count) or "none")
