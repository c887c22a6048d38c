"""Small NIfTI files, right and wrong ones, written with nibabel or byte by byte."""

from __future__ import annotations

import gzip
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np

from vlm3d_ct.seeding import random_stream

SHAPE = (5, 6, 7)
SPACING_MM = (2.5, 0.8, 0.7)
ORIGIN_MM = (-300.0, -120.0, -90.0)
ORIENTATIONS = [(axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)]
"""(canonical axis that each stored axis runs along, whether it runs backwards), counted in x, y, z."""


def hu(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Random HU in canonical (z, y, x)."""
    return random_stream(seed, "hu").integers(-1000, 1500, shape, dtype=np.int16)


def lps_affine() -> np.ndarray:
    """Index (x, y, z) -> millimetres in LPS."""
    affine = np.diag([*SPACING_MM[::-1], 1.0])
    affine[:3, 3] = ORIGIN_MM[::-1]
    return affine


def write_oriented(path: Path, array: np.ndarray, axes: tuple[int, ...], flips: tuple[bool, ...]) -> None:
    """Store a canonical array along other axes, with the affine that says so."""
    xyz = array.transpose(2, 1, 0)
    stored = xyz.transpose(axes)
    to_canonical = np.zeros((4, 4))
    to_canonical[3, 3] = 1
    for axis, (canonical, flip) in enumerate(zip(axes, flips, strict=True)):
        to_canonical[canonical, axis] = -1 if flip else 1
        to_canonical[canonical, 3] += xyz.shape[canonical] - 1 if flip else 0
        if flip:
            stored = np.flip(stored, axis)
    nib.Nifti1Image(stored, np.diag([-1, -1, 1, 1]) @ lps_affine() @ to_canonical).to_filename(path)


def write_plain(path: Path, array: np.ndarray, **header: object) -> Path:
    """Store a canonical array as LPS; ``header`` sets raw header fields, right or wrong."""
    path.write_bytes(gzip.compress(plain_bytes(array, **header), mtime=0))
    return path


def plain_bytes(array: np.ndarray, **header: object) -> bytes:
    """The uncompressed file of a canonical array; ``header`` sets raw header fields, right or wrong."""
    image = nib.Nifti1Image(array.T, np.diag([-1, -1, 1, 1]) @ lps_affine(), dtype=array.dtype)
    content = bytearray(image.to_bytes())
    block = nib.Nifti1Header(bytes(content[:348]), check=False)
    block["vox_offset"] = 352
    for name, value in header.items():
        block[name] = value
    content[:348] = block.binaryblock
    return bytes(content)
