"""Names: from file names to case and patient ids, and from names inside JSON to paths that stay inside the folder."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path, PurePosixPath

NIFTI_SUFFIX = ".nii.gz"
_CTRATE = re.compile(r"((?:train|valid|val|test)_[0-9]+)_([a-z]+)_([0-9]+)", re.IGNORECASE)
"""Split and patient, scan, reconstruction; ``train`` and ``valid`` in CT-RATE itself, others beside it."""


def volume_stem(name: str) -> str:
    """The last part of a name or path, without ``.nii.gz`` or ``.nii``: ``a/train_1_a_1.nii.gz`` -> ``train_1_a_1``."""
    last = name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].strip()
    return re.sub(r"\.nii(\.gz)?$", "", last, flags=re.IGNORECASE)


def volume_patient(stem: str) -> str:
    """The patient of a volume: ``train_12_a_1`` -> ``train_12``; of other names the part before the first ``_``, ``-``.

    Nothing tells ``case_1`` and ``case_2``, two patients, from ``anna_1`` and ``anna_2``, two scans of one: `patients`
    has a table for it.
    """
    match = _CTRATE.fullmatch(stem)
    return match[1].lower() if match else re.split("[_-]", stem, maxsplit=1)[0]


def follows_pattern(stem: str) -> bool:
    """Whether a volume is named as CT-RATE's are, so that its name does say whose it is."""
    return _CTRATE.fullmatch(stem) is not None


def scan_of(stem: str) -> str:
    """The scan that a volume is a reconstruction of: ``train_12_a_1`` -> ``train_12_a``; other names are their own."""
    match = _CTRATE.fullmatch(stem)
    return f"{match[1]}_{match[2]}".lower() if match else stem


def reconstruction_of(stem: str) -> tuple[str, int, str, str, int]:
    """What orders volumes: split, patient number, scan, reconstruction number; other names by themselves, last."""
    match = _CTRATE.fullmatch(stem)
    if not match:
        return "\x7f", 0, "", stem, 0
    split, number = match[1].lower().split("_")
    scan = match[2].lower()
    return split, int(number), f"{len(scan):04d}{scan}", "", int(match[3])


def slice_patient(case_id: str) -> str:
    """The patient of a slice: ``973_1_0_177`` -> ``omni_973``."""
    return f"omni_{case_id.split('_', 1)[0]}"


def climbs(name: str) -> bool:
    """Whether a name written in a file tries to leave the folder it is relative to.

    Characters that some file systems take for dots and slashes (full width, leaders) count as these.
    """
    spellings = (name, unicodedata.normalize("NFKC", name))
    return "\x00" in name or any(".." in PurePosixPath(each.replace("\\", "/")).parts for each in spellings)


def confined(root: Path, name: str) -> Path | None:
    """``root / name`` if that is a relative path which stays inside ``root``, else None.

    Links are followed: a path may leave ``root`` through a linked folder directly in ``root`` (images on another disk),
    not through one deeper down.
    """
    relative = PurePosixPath(name.replace("\\", "/"))
    plain = unicodedata.normalize("NFKC", name).replace("\\", "/")
    if not relative.parts or plain.startswith("/") or climbs(name) or re.match(r"[A-Za-z]:", plain):
        return None
    path = root.joinpath(*relative.parts)
    return path if stays_inside(root, path) else None


def stays_inside(root: Path, path: Path) -> bool:
    """Whether a path below ``root``, all its links followed, ends in ``root`` or in the folder directly in it."""
    try:
        resolved, top = path.resolve(), (root / path.relative_to(root).parts[0]).resolve()
        resolved.exists()  # raises for names that the file system cannot hold
        return resolved.is_relative_to(root.resolve()) or (top.is_dir() and resolved.is_relative_to(top))
    except (OSError, ValueError, RuntimeError):  # RuntimeError: links in a circle
        return False
