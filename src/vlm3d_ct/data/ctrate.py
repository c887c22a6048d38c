"""3D cases in the plan's layout: DIR/volumes, DIR/masks, DIR/cot, and tables beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from vlm3d_ct.data.cache import SAFE_NAME
from vlm3d_ct.data.case import Case, MaskLabels
from vlm3d_ct.data.found_files import find_nifti, find_tables
from vlm3d_ct.data.masks import MaskFiles, find_masks
from vlm3d_ct.data.metadata import read_metadata, read_no_chest
from vlm3d_ct.data.names import volume_stem
from vlm3d_ct.data.part import Part, describe, describe_masks
from vlm3d_ct.data.patients import find_patients
from vlm3d_ct.data.records import TextRecord
from vlm3d_ct.data.texts import VolumeTexts, collect_texts
from vlm3d_ct.errors import Problem
from vlm3d_ct.volumes.faults import problem
from vlm3d_ct.volumes.stored import StoredScan

NO_TEXT = "volume-without-text"
"""Code of the problem of a volume of which no text speaks."""


def read_plan_volumes(directory: Path, records: Iterable[TextRecord], mask_labels: MaskLabels | None = None) -> Part:
    """The 3D cases of a folder in the plan's layout.

    Args:
        directory: the folder.
        records: those of its text files that speak of volumes.
        mask_labels: what ids in masks mean; None for those of the region table.
    """
    volumes, problems = find_nifti(directory / "volumes")
    masks, mask_problems = find_masks(directory / "masks", volumes, mask_labels or "regions")
    texts = collect_texts(records, (directory,), volumes)
    tables, refused = find_tables([directory], "metadata.csv")
    stored, table_problems = read_metadata(tables)
    lists, unlisted = find_tables([directory], "no_chest_*.txt", "metadata/no_chest_*.txt")
    excluded, list_problems = read_no_chest(lists)
    problems += mask_problems + texts.problems + table_problems + list_problems + _orphans(volumes, masks, texts)
    patients, unclear = find_patients([directory], [volume_stem(path.name) for path in volumes.values()])
    problems += refused + unlisted + unclear
    found = match_cases(volumes, masks, texts, stored, excluded, patients)
    cases, without_text, no_chest, case_problems = found
    num_patients = len({case.patient_id for each in found[:3] for case in each})
    notes = [f"{len(volumes)} volumes of {num_patients} patients"]
    notes += describe_cases(cases, without_text, no_chest, texts)
    if tables:
        notes.append(f"{sum(case.stored is not None for case in cases)} with a row in metadata.csv")
    return Part(
        cases=tuple(cases),
        problems=tuple(problems + case_problems),
        description="plan's layout: " + "; ".join(notes),
        without_text=tuple(without_text),
        no_chest=tuple(no_chest),
    )


def match_cases(
    volumes: Mapping[str, Path],
    masks: Mapping[str, MaskFiles],
    texts: VolumeTexts,
    stored: Mapping[str, StoredScan],
    excluded: set[str],
    patients: Mapping[str, str],
    split: Literal["train", "validation"] | None = None,
) -> tuple[list[Case], list[Case], list[Case], list[Problem]]:
    """Cases with a text, without one, and excluded as no chest; and a problem for each without a text."""
    cases: list[Case] = []
    without_text: list[Case] = []
    no_chest: list[Case] = []
    problems = []
    for key, path in sorted(volumes.items()):
        case_id = volume_stem(path.name)
        if not SAFE_NAME.fullmatch(case_id):
            message = "A case id may hold letters, digits and . _ + - only."
            problems.append(problem("case-id", path, "name", case_id, message, "Rename the file."))
            continue
        if case_id not in patients:  # a problem already
            continue
        mask = masks.get(key, MaskFiles((), "regions"))
        case = Case(
            case_id=case_id,
            patient_id=patients[case_id],
            kind="volume",
            image_paths=(path,),
            mask_paths=mask.paths,
            mask_labels=mask.labels,
            reports=texts.reports.get(key, ()),
            split=split,
            stored=stored.get(key),
        )
        if key in excluded:
            no_chest.append(replace(case, shows_chest=False))
        elif case.reports:
            cases.append(case)
        else:
            without_text.append(case)
            message = "No text speaks of this volume."
            remedy = "Add a record for it under cot/, or move the volume away."
            problems.append(problem(NO_TEXT, path, "text", "none", message, remedy))
    return cases, without_text, no_chest, problems


def describe_cases(
    cases: list[Case], without_text: list[Case], no_chest: list[Case], texts: VolumeTexts
) -> Iterable[str]:
    """Counts of texts by source, of masks by kind, and of what is left out, for people."""
    sources = Counter(texts.sources[case.case_id.casefold()] for case in cases)
    yield describe("texts", {**sources, "none": len(without_text)})
    yield describe_masks(cases)
    if no_chest:
        yield f"{len(no_chest)} left out as they show no chest"
    if texts.absent:
        yield f"{len(texts.absent)} volumes of the report tables are not there"


def _orphans(volumes: Mapping[str, Path], masks: Mapping[str, MaskFiles], texts: VolumeTexts) -> list[Problem]:
    """Texts and masks that belong to no volume."""
    problems = []
    for key, text in texts.reasoning.items():
        if key not in volumes:
            message, remedy = "The text speaks of a volume that is not there.", "Add the volume or remove the record."
            problems.append(text.record.problem("text-without-volume", "volumename", text.name, message, remedy))
    for key, mask in masks.items():
        if key not in volumes:
            path = mask.paths[0].parent if mask.labels == "structures" else mask.paths[0]
            message, remedy = "The mask belongs to no volume.", "Name it like its volume, or move it away."
            problems.append(problem("mask-without-volume", path, "name", path.name, message, remedy))
    return problems
