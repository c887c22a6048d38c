"""What a data folder holds, recognised by its content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vlm3d_ct.data.case import Case
from vlm3d_ct.data.cot import is_slice_record
from vlm3d_ct.data.ctrate import Part, read_plan_volumes
from vlm3d_ct.data.ctrate_tree import find_ctrate_tree, read_ctrate_tree
from vlm3d_ct.data.omniabnorm import read_plan_slices
from vlm3d_ct.data.records import read_records
from vlm3d_ct.errors import Problem
from vlm3d_ct.volumes.faults import problem

_REMEDY = "Give a folder in a layout of docs/architecture.md: volumes/ and cot/, images/ and cot/, or a CT-RATE tree."


@dataclass(frozen=True, kw_only=True)
class CaseIndex:
    """The cases of a data folder.

    Attributes:
        cases: those that have an image and a text; their voxels have not been read.
        problems: what is wrong with the folder's files, names and texts.
        description: what was recognised, one line for each part, with counts.
        without_text: volumes of which no text speaks; each is a problem too (`ctrate.NO_TEXT`), because training and
            retrieval cannot use it.
        no_chest: volumes, with or without a text, that the published lists leave out as showing no chest.
    """

    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]
    description: str
    without_text: tuple[Case, ...] = ()
    no_chest: tuple[Case, ...] = ()


def read_cases(directory: Path) -> CaseIndex:
    """Find the cases of a folder in the plan's layout, of a CT-RATE tree, or of a folder that holds such folders.

    Nothing raises: what is wrong is in ``problems``, an empty or missing folder included.
    """
    if not directory.is_dir():
        message = "The data folder does not exist." if not directory.exists() else "This is no folder."
        return CaseIndex(
            cases=(),
            problems=(problem("missing-folder", directory, "folder", "absent", message, _REMEDY),),
            description="",
        )
    parts = _recognise(directory)
    if not parts:
        children = sorted(child for child in directory.iterdir() if child.is_dir() and not child.name.startswith("."))
        parts = [(f"{child.name}: {line}", part) for child in children for line, part in _recognise(child)]
    if not parts:
        names = ", ".join(sorted(child.name for child in directory.iterdir())[:8])
        message = "No volumes and no slices were recognised here." if names else "The folder is empty."
        code = "unrecognised-folder" if names else "empty-folder"
        return CaseIndex(
            cases=(),
            problems=(problem(code, directory, "content", names or "nothing", message, _REMEDY),),
            description="",
        )
    found_cases = [case for _, part in parts for case in (*part.cases, *part.without_text)]
    unique, duplicates = _without_duplicates(found_cases)
    cases = [case for case in unique if case.reports]
    problems = [found for _, part in parts for found in part.problems] + duplicates
    if not cases and not problems:
        message = "The folder holds no case."
        problems.append(problem("empty-folder", directory, "content", "no case", message, _REMEDY))
    description = "\n".join(f"{title}, {part.description}" for title, part in parts)
    return CaseIndex(
        cases=tuple(cases),
        problems=tuple(problems),
        description=description,
        without_text=tuple(case for case in unique if not case.reports),
        no_chest=tuple(case for _, part in parts for case in part.no_chest),
    )


def _recognise(directory: Path) -> list[tuple[str, Part]]:
    """The parts that lie directly in this folder, with their titles."""
    tree = find_ctrate_tree(directory)
    if tree is not None:
        return [("CT-RATE", read_ctrate_tree(tree))]
    readers: dict[str, Callable[..., Part]] = {"volumes": read_plan_volumes, "images": read_plan_slices}
    present = {name for name in readers if (directory / name).is_dir()}
    if not present and not (directory / "cot").is_dir():
        return []
    folder = directory / "cot"
    found = folder.rglob("*") if folder.is_dir() else directory.iterdir()
    records, problems = read_records(sorted(p for p in found if p.suffix in (".json", ".jsonl") and p.is_file()))
    parts = []
    for title, name, of_slices in (("CT volumes", "volumes", False), ("CT slices", "images", True)):
        own = [record for record in records if is_slice_record(record) == of_slices]
        if name in present or own:
            parts.append((title, readers[name](directory, own)))
    if problems:
        parts.append(("texts", Part(cases=(), problems=tuple(problems), description=f"{len(problems)} unreadable")))
    return parts


def _without_duplicates(cases: list[Case]) -> tuple[list[Case], list[Problem]]:
    """Cases whose id is unique within its kind; a later one with a known id becomes a problem."""
    known: dict[tuple[str, str], Case] = {}
    problems = []
    for case in cases:
        first = known.setdefault((case.kind, case.case_id.casefold()), case)
        if first is not case:
            message = f"Another case has the same id: {first.image_paths[0]}."
            found = problem("duplicate", case.image_paths[0], "case id", case.case_id, message, "Keep one of them.")
            problems.append(found)
    return list(known.values()), problems
