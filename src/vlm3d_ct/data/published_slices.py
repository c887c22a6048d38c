"""Cases of OmniAbnorm-CT-14K as published: a folder of slices, one of masks, and described abnormalities."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from vlm3d_ct.data.case import Plane
from vlm3d_ct.data.cot import checked_text
from vlm3d_ct.data.records import TextRecord
from vlm3d_ct.data.slice_files import SliceFiles
from vlm3d_ct.errors import DataError
from vlm3d_ct.text.report import Report
from vlm3d_ct.text.sentences import join_texts

_PLANES: dict[str, Plane] = {name: name for name in get_args(Plane)}
_CORRECT = "Correct the record or remove it."


@dataclass(frozen=True, kw_only=True)
class PublishedSlice:
    """What a published record says of a case.

    Attributes:
        image_paths: the key slice among its neighbours, feet to head.
        mask_paths: one mask for each abnormality.
        plane: how the slice lies in the body.
        category: of the first abnormality that has one.
        report: the descriptions; None where there is none.
    """

    image_paths: tuple[Path, ...]
    mask_paths: tuple[Path, ...]
    plane: Plane
    category: str | None
    report: Report | None


def read_published(files: SliceFiles, record: TextRecord) -> PublishedSlice:
    """Read a published record.

    Raises:
        DataError: a path leaves the folder, a file is missing, or a field is not what it should be.
    """
    folder = files.named(record, "image")
    images = None if folder is None else files.stack(record, folder)
    if images is None:
        message, remedy = "The slice is not there.", "Add the images or remove the record."
        raise DataError(record.problem("missing-slice", "image", str(folder), message, remedy))
    abnormalities = record.fields.get("abnormality") or []
    if not isinstance(abnormalities, list) or not all(isinstance(each, dict) for each in abnormalities):
        message = "Abnormalities must be a list of objects."
        raise DataError(record.problem("record-fields", "abnormality", abnormalities, message, _CORRECT))
    categories = [name for each in abnormalities if (name := _category(record, each)) is not None]
    return PublishedSlice(
        image_paths=images,
        mask_paths=_mask_paths(files, record, abnormalities),
        plane=plane_of(record),
        category=categories[0] if categories else None,
        report=_describe(record, abnormalities),
    )


def plane_of(record: TextRecord) -> Plane:
    """How a slice lies in the body: its field ``plane``, else the one plane that its file or that file's folder names.

    The published files name it (``axial/axial_train.json``); where nothing does, the slice is axial.

    Raises:
        DataError: the field names no plane.
    """
    if "plane" in record.fields:
        stated = record.fields["plane"]
        name = stated.strip().casefold() if isinstance(stated, str) else ""
        if name not in _PLANES:
            message = f"A plane must be one of {', '.join(_PLANES)}."
            raise DataError(record.problem("record-fields", "plane", stated, message, _CORRECT))
        return _PLANES[name]
    for name in (record.file.name, record.file.parent.name):
        found = set(re.findall("|".join(_PLANES), name.casefold()))
        if len(found) == 1:
            return _PLANES[found.pop()]
    return "axial"


def _mask_paths(files: SliceFiles, record: TextRecord, abnormalities: list[dict[str, Any]]) -> tuple[Path, ...]:
    folder = files.named(record, "mask")
    if folder is None:
        return ()
    paths: dict[Path, None] = {}
    for each in abnormalities:
        name = each.get("id")
        if isinstance(name, bool) or not isinstance(name, (int, str)) or not re.fullmatch(r"[\w-]{1,100}", str(name)):
            message = "An abnormality needs an id of letters and digits, which names its mask."
            raise DataError(record.problem("record-fields", "abnormality id", name, message, _CORRECT))
        path = files.image(record, folder / str(name))
        if path is None:
            message, remedy = "The mask is not there.", "Add the mask or remove the abnormality."
            raise DataError(record.problem("missing-mask", "mask", str(folder / str(name)), message, remedy))
        paths[path] = None
    return tuple(paths)


def _describe(record: TextRecord, abnormalities: list[dict[str, Any]]) -> Report | None:
    """The descriptions as one text; one that several abnormalities share is said once."""
    texts: dict[str, None] = {}
    for each in abnormalities:
        if each.get("description") not in (None, ""):
            texts[checked_text(record, "description", each["description"])] = None
    return Report(question="", answer=join_texts([*texts])) if texts else None


def _category(record: TextRecord, abnormality: dict[str, Any]) -> str | None:
    """The first category, or where there is none the label."""
    category = abnormality.get("category")
    names = category if isinstance(category, list) else [category]
    names = [*names, abnormality.get("label")]
    if not all(name is None or isinstance(name, str) for name in names):
        message = "A category must be a text or a list of texts."
        raise DataError(record.problem("record-fields", "category", category, message, _CORRECT))
    return next((name.strip() for name in names if name and name.strip()), None)
