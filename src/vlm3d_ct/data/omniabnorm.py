"""2D cases in the plan's layout: DIR/images, DIR/masks, and batches of reasoning records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from vlm3d_ct.data.cache import SAFE_NAME
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.cot import slice_report
from vlm3d_ct.data.ctrate import Part
from vlm3d_ct.data.names import confined, slice_patient
from vlm3d_ct.data.records import TextRecord
from vlm3d_ct.errors import DataError, Problem

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
NEIGHBOUR_OFFSETS = (-1, 0, 1, 2)
"""The slices of a pseudo-3D volume, counted from the key slice towards the head."""


def read_plan_slices(directory: Path, records: Iterable[TextRecord]) -> Part:
    """The 2D cases of a folder in the plan's layout; ``records`` are those of its text files that speak of slices."""
    cases: dict[str, Case] = {}
    problems: list[Problem] = []
    for record in records:
        try:
            case = _read_case(directory, record)
            known = cases.get(case.case_id)
            if known is None:
                cases[case.case_id] = case
            elif known.image_paths == case.image_paths:
                cases[case.case_id] = replace(known, reports=known.reports + case.reports)
            else:
                message = "Another record has this case id and another image."
                raise DataError(record.problem("duplicate", "case_id", case.case_id, message, "Keep one of them."))
        except DataError as error:
            problems.extend(error.problems)
    images = directory / "images"
    num_images = sum(1 for entry in images.iterdir() if not entry.name.startswith(".")) if images.is_dir() else 0
    with_mask = sum(bool(case.mask_paths) for case in cases.values())
    return Part(
        cases=tuple(cases[case_id] for case_id in sorted(cases)),
        problems=tuple(problems),
        description=f"plan's layout: {num_images} slices, {len(cases)} with text, {with_mask} with a mask",
    )


def _read_case(directory: Path, record: TextRecord) -> Case:
    case_id = record.fields.get("case_id", record.key)
    if not isinstance(case_id, str) or not SAFE_NAME.fullmatch(case_id):
        message = "A record needs a case id of letters, digits and . _ + - only."
        raise DataError(record.problem("case-id", "case_id", case_id, message, "Correct the record."))
    report = slice_report(record)
    category = record.fields.get("category")
    return Case(
        case_id=case_id,
        patient_id=slice_patient(case_id),
        kind="slice",
        image_paths=_image_paths(directory, record, case_id),
        mask_paths=_mask_paths(directory, record, case_id),
        mask_labels="lesion",
        reports=(report,),
        category=category.strip() or None if isinstance(category, str) else None,
    )


def _named_path(directory: Path, record: TextRecord, field: str) -> Path | None:
    """The path that a field names, inside the data folder; None where the record has no such field."""
    name = record.fields.get(field)
    if name is None:
        return None
    path = confined(directory, name) if isinstance(name, str) else None
    if path is None:
        message, remedy = "This is no path inside the data folder.", f"Give it relative to {directory}."
        raise DataError(record.problem("path-escapes", field, name, message, remedy))
    return path


def _first_file(stem: Path) -> Path | None:
    """``stem`` with the first image ending that exists."""
    return next((path for suffix in IMAGE_SUFFIXES if (path := stem.with_name(stem.name + suffix)).is_file()), None)


def _image_paths(directory: Path, record: TextRecord, case_id: str) -> tuple[Path, ...]:
    """The key slice among its neighbours, feet to head; where a neighbour is missing, the nearest one there is."""
    stated = _named_path(directory, record, "image_path") or directory / "images" / case_id
    key = _first_file(stated / "0") if stated.is_dir() else stated if stated.is_file() else _first_file(stated)
    if key is None:
        message, remedy = "The slice is not there.", "Add the image or remove the record."
        raise DataError(record.problem("missing-slice", "image_path", str(stated), message, remedy))
    position = _position(key)
    if position is None:
        return (key,) * len(NEIGHBOUR_OFFSETS)
    siblings = sorted(path for path in key.parent.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    offsets = {number - position: path for path in siblings if (number := _position(path)) is not None}
    offsets[0] = key
    # of two that are equally near, the one nearer to the key slice
    return tuple(
        offsets[min(offsets, key=lambda offset: (abs(offset - wanted), abs(offset)))] for wanted in NEIGHBOUR_OFFSETS
    )


def _position(path: Path) -> int | None:
    """The number that a slice's file is named by (0 the key slice, 1 the next one towards the head), if it is one."""
    sign, digits = path.stem[:1] == "-", path.stem.lstrip("-")
    return (-int(digits) if sign else int(digits)) if digits.isdecimal() and len(digits) < 6 else None


def _mask_paths(directory: Path, record: TextRecord, case_id: str) -> tuple[Path, ...]:
    stated = _named_path(directory, record, "mask_path")
    if stated is None:
        own = _first_file(directory / "masks" / case_id)
        return () if own is None else (own,)
    if not stated.is_file():
        message, remedy = "The mask is not there.", "Add the mask or remove the field."
        raise DataError(record.problem("missing-mask", "mask_path", str(stated), message, remedy))
    return (stated,)
