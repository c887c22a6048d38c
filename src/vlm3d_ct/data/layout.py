"""What a data folder holds, recognised by its content."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from vlm3d_ct.data.case import Case, MaskLabels, Plane
from vlm3d_ct.data.cot import is_published_slice, is_slice_record
from vlm3d_ct.data.ctrate import read_plan_volumes
from vlm3d_ct.data.ctrate_tree import find_ctrate_tree, read_ctrate_tree
from vlm3d_ct.data.found_files import find_json, find_tables
from vlm3d_ct.data.omniabnorm import read_slices_part
from vlm3d_ct.data.part import Part
from vlm3d_ct.data.records import TextRecord, read_records
from vlm3d_ct.errors import Problem
from vlm3d_ct.volumes.faults import problem

_REMEDY = (
    "Give a folder in a layout of docs/architecture.md: volumes/ and cot/, images/ and cot/, a CT-RATE tree, or "
    "OmniAbnorm-CT-14K as published."
)


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


def read_cases(directory: Path, *, mask_labels: MaskLabels | Literal["auto"] = "auto") -> CaseIndex:
    """Find the cases of a folder in the plan's layout, of a published one, or of a folder that holds such folders.

    Args:
        directory: the folder.
        mask_labels: what the ids in volumes' masks mean; ``auto`` for what the layout means. Folders with one file for
            each structure, and lesion masks, are told apart whatever it is.

    Nothing raises: what is wrong is in ``problems``, an empty or missing folder included.
    """
    if not directory.is_dir():
        message = "The data folder does not exist." if not directory.exists() else "This is no folder."
        return CaseIndex(
            cases=(),
            problems=(problem("missing-folder", directory, "folder", "absent", message, _REMEDY),),
            description="",
        )
    labels = None if mask_labels == "auto" else mask_labels
    parts = _recognise(directory, labels)
    if not parts:
        children = sorted(child for child in directory.iterdir() if child.is_dir() and not child.name.startswith("."))
        parts = [(f"{child.name}: {line}", part) for child in children for line, part in _recognise(child, labels)]
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


def _recognise(directory: Path, mask_labels: MaskLabels | None) -> list[tuple[str, Part]]:
    """The parts that lie directly in this folder, with their titles."""
    roots = find_ctrate_tree(directory)
    if roots:
        return [("CT-RATE", read_ctrate_tree(roots, mask_labels))]
    volumes, images, cot = ((directory / name).is_dir() for name in ("volumes", "images", "cot"))
    paths, problems = find_json(directory / "cot")
    records, unreadable = read_records(paths)
    if not volumes:
        beside, faulty = _records_beside(directory)
        if not images or cot:  # without folders that say so, only what can be nothing else
            beside = [record for record in beside if is_published_slice(record)]
            faulty = [each for each in faulty if beside and not cot]
        records += beside
        unreadable += faulty
    if not (volumes or images or cot or records):
        return []
    problems += unreadable
    of_slices = [record for record in records if is_slice_record(record)]
    of_volumes = [record for record in records if not is_slice_record(record)]
    parts = []
    if volumes or of_volumes:
        parts.append(("CT volumes", read_plan_volumes(directory, of_volumes, mask_labels)))
    if images or of_slices:
        parts.append(("CT slices", read_slices_part(directory, of_slices)))
    if problems:
        parts.append(("texts", Part(cases=(), problems=tuple(problems), description=f"{len(problems)} unreadable")))
    return parts


def _records_beside(directory: Path) -> tuple[list[TextRecord], list[Problem]]:
    """The records of text files directly in the folder and in its folders named by a plane."""
    folders = [directory, *(directory / plane for plane in get_args(Plane))]
    paths, refused = find_tables(folders, "*.json", "*.jsonl")
    records, problems = read_records(paths)
    return records, refused + problems


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
