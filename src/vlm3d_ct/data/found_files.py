"""The files of a data folder: scans, texts and tables; links do not lead out of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from vlm3d_ct.data.names import NIFTI_SUFFIX, stays_inside, volume_stem
from vlm3d_ct.errors import Problem
from vlm3d_ct.volumes.faults import problem

JSON_SUFFIXES = (".json", ".jsonl")
_OTHER_FORMATS = (".nii", ".mha", ".mhd", ".nrrd", ".npz", ".dcm", ".img", ".hdr")


def find_nifti(folder: Path) -> tuple[dict[str, Path], list[Problem]]:
    """All ``.nii.gz`` files under a folder, by casefolded name without the ending."""
    found: dict[str, Path] = {}
    problems = []
    for item in walk_nifti(folder):
        if isinstance(item, Problem):
            problems.append(item)
            continue
        key = volume_stem(item.name).casefold()
        if key in found:
            message = f"Another file has the same name: {found[key]}."
            problems.append(problem("duplicate", item, "name", item.name, message, "Keep one of them."))
        else:
            found[key] = item
    return found, problems


def walk_nifti(folder: Path) -> Iterator[Path | Problem]:
    """The ``.nii.gz`` files under a folder and what else is wrong there, scans in other formats included."""
    for item in walk(folder):
        if isinstance(item, Problem) or item.name.lower().endswith(NIFTI_SUFFIX):
            yield item
        elif item.name.lower().endswith(_OTHER_FORMATS):
            yield problem("format", item, "name", item.name, "Only .nii.gz files are read.", "Convert it to .nii.gz.")


def find_json(*folders: Path) -> tuple[list[Path], list[Problem]]:
    """The JSON files anywhere under the folders, in order; a folder need not be there."""
    return _parted(
        item
        for folder in folders
        for item in walk(folder)
        if isinstance(item, Problem) or item.suffix.lower() in JSON_SUFFIXES
    )


def find_tables(roots: Iterable[Path], *patterns: str) -> tuple[list[Path], list[Problem]]:
    """The files of the roots whose path matches a pattern, in order."""
    return _parted(
        _refused_link(path) if path.is_symlink() and not stays_inside(root, path) else path
        for root in roots
        for pattern in patterns
        for path in sorted(root.glob(pattern))
    )


def walk(folder: Path) -> Iterator[Path | Problem]:
    """The files under a folder, sorted within each folder, and what cannot be followed; hidden ones are left out.

    ``folder`` itself may be a link (volumes on another disk). A file deeper down may be a link within ``folder`` or
    within the folder that holds it, no further; folders that are links are not followed.
    """
    waiting = [folder] if folder.is_dir() else []
    while waiting:
        parent = waiting.pop()
        try:
            with os.scandir(parent) as scan:
                entries = sorted((entry for entry in scan if not entry.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            message, remedy = "The folder cannot be read.", "Check its permissions."
            yield problem("unreadable-folder", parent, "folder", reason, message, remedy)
            continue
        inner = []
        for entry in entries:
            path = parent / entry.name
            if entry.is_dir(follow_symlinks=False):
                inner.append(path)
            elif entry.is_symlink() and (path.is_dir() or not stays_inside(folder.parent, path)):
                yield _refused_link(path)
            else:
                yield path
        waiting += reversed(inner)


def _parted(items: Iterable[Path | Problem]) -> tuple[list[Path], list[Problem]]:
    paths: list[Path] = []
    problems: list[Problem] = []
    for item in items:
        if isinstance(item, Problem):
            problems.append(item)
        else:
            paths.append(item)
    return paths, problems


def _refused_link(path: Path) -> Problem:
    message = "A link to a folder, or out of the data folder, is not followed."
    remedy = (
        "Put the files themselves there, or make the data folder's own folder (volumes, train_fixed, ...) the link."
    )
    try:
        target = str(path.readlink())
    except OSError:
        target = "?"
    return problem("path-escapes", path, "link", target, message, remedy)
