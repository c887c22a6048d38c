"""3D cases in the plan's layout: DIR/volumes, DIR/masks, DIR/cot."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlm3d_ct.data.cache import SAFE_NAME
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.cot import VolumeText, collect_volume_texts
from vlm3d_ct.data.names import NIFTI_SUFFIX, volume_patient, volume_stem
from vlm3d_ct.data.records import TextRecord
from vlm3d_ct.errors import Problem
from vlm3d_ct.text.report import Report
from vlm3d_ct.volumes.faults import problem

NO_TEXT = "volume-without-text"
"""Code of the problem of a volume of which no text speaks."""
_OTHER_FORMATS = (".nii", ".mha", ".mhd", ".nrrd", ".npz", ".dcm", ".img", ".hdr")


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one part of a data folder holds; see `CaseIndex`."""

    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]
    description: str
    without_text: tuple[Case, ...] = ()
    no_chest: tuple[Case, ...] = ()


def find_nifti(folder: Path) -> tuple[dict[str, Path], list[Problem]]:
    """All ``.nii.gz`` files under a folder, by casefolded name without the ending."""
    found: dict[str, Path] = {}
    problems = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            key = volume_stem(name).casefold()
            if name.startswith("."):
                continue
            if not name.lower().endswith(NIFTI_SUFFIX):
                if name.lower().endswith(_OTHER_FORMATS):
                    message = "Only .nii.gz files are read."
                    problems.append(problem("format", path, "name", name, message, "Convert it to .nii.gz."))
            elif key in found:
                message = f"Another file has the same name: {found[key]}."
                problems.append(problem("duplicate", path, "name", name, message, "Keep one of them."))
            else:
                found[key] = path
    return found, problems


def read_plan_volumes(directory: Path, records: Iterable[TextRecord]) -> Part:
    """The 3D cases of a folder in the plan's layout; ``records`` are those of its text files."""
    volumes, problems = find_nifti(directory / "volumes")
    masks, mask_problems = find_nifti(directory / "masks")
    texts, text_problems = collect_volume_texts(records)
    problems += mask_problems + text_problems
    reports = {key: text.reports for key, text in texts.items()}
    cases, without_text, case_problems = match_cases(volumes, masks, reports, "regions")
    problems += case_problems + _orphans(volumes, masks, texts)
    with_mask = sum(bool(case.mask_paths) for case in cases)
    num_reports = sum(len(case.reports) for case in cases)
    return Part(
        cases=tuple(cases),
        problems=tuple(problems),
        description=f"plan's layout: {len(volumes)} volumes, {len(cases)} with text ({num_reports} texts), "
        f"{with_mask} with a mask",
        without_text=tuple(without_text),
    )


def match_cases(
    volumes: Mapping[str, Path],
    masks: Mapping[str, Path],
    reports: Mapping[str, list[Report]],
    mask_labels: Literal["regions", "totalsegmentator"],
    split: Literal["train", "validation"] | None = None,
) -> tuple[list[Case], list[Case], list[Problem]]:
    """Cases of the volumes that have a report, those that have none, and a problem for each of the latter."""
    cases: list[Case] = []
    without_text: list[Case] = []
    problems = []
    for key, path in sorted(volumes.items()):
        case_id = volume_stem(path.name)
        if not SAFE_NAME.fullmatch(case_id):
            message = "A case id may hold letters, digits and . _ + - only."
            problems.append(problem("case-id", path, "name", case_id, message, "Rename the file."))
            continue
        case = Case(
            case_id=case_id,
            patient_id=volume_patient(case_id),
            kind="volume",
            image_paths=(path,),
            mask_paths=(masks[key],) if key in masks else (),
            mask_labels=mask_labels,
            reports=tuple(reports.get(key, ())),
            split=split,
        )
        (cases if case.reports else without_text).append(case)
        if not case.reports:
            message = "No text speaks of this volume."
            remedy = "Add a record for it under cot/, or move the volume away."
            problems.append(problem(NO_TEXT, path, "text", "none", message, remedy))
    return cases, without_text, problems


def _orphans(volumes: Mapping[str, Path], masks: Mapping[str, Path], texts: Mapping[str, VolumeText]) -> list[Problem]:
    """Texts and masks that belong to no volume."""
    problems = []
    for key, text in texts.items():
        if key not in volumes:
            message, remedy = "The text speaks of a volume that is not there.", "Add the volume or remove the record."
            problems.append(text.record.problem("text-without-volume", "volumename", text.name, message, remedy))
    for key, path in masks.items():
        if key not in volumes:
            message, remedy = "The mask belongs to no volume.", "Name it like its volume, or move it away."
            problems.append(problem("mask-without-volume", path, "name", path.name, message, remedy))
    return problems
