"""Binary masks, one file for each anatomical structure, put together to one region mask."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, UInt8, UInt16
from scipy import ndimage

from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.volumes.faults import fault
from vlm3d_ct.volumes.nifti import read_mask
from vlm3d_ct.volumes.volume import RegionMask, Volume

SUFFIX = ".nii.gz"
_WORD = re.compile(r"[^\W_]+")
_Name = tuple[str, ...]


def read_structures(paths: Sequence[Path], like: Volume | None, lookup: Mapping[str, int]) -> RegionMask:
    """Read the files whose names the table knows and label their voxels with the table's regions.

    Names match whatever their case, the order of their words, and what is between these. Where structures overlap the
    smaller one has the voxel, because a part lies within its whole (an atrium in the heart, the aorta in a
    mediastinum); of two equally large ones that whose name comes first. Files are read one after the other.

    Args:
        paths: NIfTI files named by their structure: ``lung upper lobe left.nii.gz``, ``Lung_Upper_Lobe_Left.nii.gz``.
        like: the volume that they belong to; shape, spacing and position must be equal.
        lookup: region id, 1..255, of each structure by name.

    Raises:
        DataError: no name is known, or with every problem of the files that are: those of `read_mask`, and voxels that
            are neither {0, 1} nor {0, 255}.
    """
    regions = {_name(structure): region for structure, region in lookup.items()}
    names = {path: _name(path.name.removesuffix(SUFFIX)) for path in paths}
    known = sorted((path for path in paths if names[path] in regions), key=lambda path: (names[path], path.name))
    if not known:
        shown = ", ".join(sorted(path.name for path in paths)) or "none"
        message = "No file is named like a structure of the region table."
        remedy = "Name each file after its structure, for example heart.nii.gz or lung_upper_lobe_left.nii.gz."
        raise fault("mask-structures", _folder(paths), "file names", shown, message, remedy)
    problems: list[Problem] = []
    owner: UInt16[np.ndarray, "z y x"] | None = None  # its voxels hold the number of a file in `known`, from 1 on
    sizes = np.full(len(known) + 1, np.inf)
    for number, path in enumerate(known, start=1):
        try:
            structure = _read_structure(path, like)
        except DataError as error:
            problems += error.problems
            continue
        if owner is None:
            owner = np.zeros(structure.shape, dtype=np.uint16)
        elif owner.shape != structure.shape:
            value = f"{structure.shape} for {owner.shape}"
            message, remedy = "The structures of one volume must have one grid.", "Make the masks again."
            problems += fault("mask-shape", path, "dim", value, message, remedy).problems
            continue
        sizes[number] = _claim(owner, structure, number, sizes)
    if problems or owner is None:
        raise DataError(problems)
    labels = _labels(owner, np.array([0, *(regions[names[path]] for path in known)], dtype=np.uint8))
    unknown = sorted(path.name.removesuffix(SUFFIX) for path in paths if names[path] not in regions)
    return RegionMask(labels=labels, source=_folder(paths), unknown=tuple(unknown))


def _name(text: str) -> _Name:
    return tuple(sorted(_WORD.findall(text.casefold())))


def _folder(paths: Sequence[Path]) -> Path:
    return paths[0].parent if paths else Path()


def _read_structure(path: Path, like: Volume | None) -> Bool[np.ndarray, "z y x"]:
    labels = read_mask(path, like=like, max_label=255).labels
    inside = labels > 0
    greatest = int(labels.max())
    if greatest not in (0, 1, 255) or np.count_nonzero(labels == greatest) < np.count_nonzero(inside):
        values = np.flatnonzero(np.bincount(labels.ravel()))
        message = "A structure's mask holds 0 and one of 1 and 255."
        remedy = "Write one binary mask for each structure; a mask of many ids is one file for the whole volume."
        raise fault("mask-binary", path, "voxels", ", ".join(map(str, values)), message, remedy)
    return inside


def _claim(
    owner: UInt16[np.ndarray, "z y x"],
    structure: Bool[np.ndarray, "z y x"],
    number: int,
    sizes: Float64[np.ndarray, " n"],
) -> float:
    """Give the structure the voxels that nothing smaller has; returns its size in voxels."""
    (box,) = ndimage.find_objects(structure.view(np.uint8)) or (None,)
    if box is None:
        return 0.0
    within = structure[box]
    size = float(np.count_nonzero(within))
    owners = owner[box][within]
    owners[sizes[owners] > size] = number
    owner[box][within] = owners
    return size


def _labels(owner: UInt16[np.ndarray, "z y x"], regions: UInt8[np.ndarray, " n"]) -> UInt8[np.ndarray, "z y x"]:
    labels = np.empty(owner.shape, dtype=np.uint8)
    for plane, owners in zip(labels, owner, strict=True):
        np.take(regions, owners, out=plane)
    return labels
