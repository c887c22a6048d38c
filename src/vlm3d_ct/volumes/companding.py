"""Hounsfield units in 8 bits: fine steps where tissue differs by little, coarse ones in bone and metal."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int16, UInt8

from vlm3d_ct.volumes.volume import MAX_HU, MIN_HU

STEPS_HU: tuple[tuple[int, int, int], ...] = ((-1024, -200, 8), (-200, 200, 4), (200, 1000, 24), (1000, 3071, 116))
"""(from, to, step): lung and air, soft tissue and blood, contrast medium and spongy bone, compact bone and metal."""


def _levels() -> Int16[np.ndarray, "256"]:
    parts = [np.arange(low, high, step) for low, high, step in STEPS_HU]
    return np.concatenate([*parts, [MAX_HU]]).astype(np.int16)


LEVELS_HU = _levels()
"""The Hounsfield units that can be stored, rising."""
_CODES = np.searchsorted((LEVELS_HU[:-1].astype(np.int32) + LEVELS_HU[1:]) / 2, np.arange(MIN_HU, MAX_HU + 1)).astype(
    np.uint8
)


def to_codes(voxels_hu: Int16[np.ndarray, "z y x"]) -> UInt8[np.ndarray, "z y x"]:
    """The code of the nearest level; HU must lie within -1024..3071."""
    codes = np.empty(voxels_hu.shape, np.uint8)
    for plane, result in zip(voxels_hu, codes, strict=True):  # one at a time: NumPy makes 8-byte indices
        np.take(_CODES, plane.astype(np.int32) - MIN_HU, out=result)
    return codes


def to_hu(codes: UInt8[np.ndarray, "z y x"]) -> Int16[np.ndarray, "z y x"]:
    """The Hounsfield units that the codes stand for."""
    hu = np.empty(codes.shape, np.int16)
    for plane, result in zip(codes, hu, strict=True):
        np.take(LEVELS_HU, plane, out=result)
    return hu


def describe_error() -> str:
    """The greatest error of each range, computed from the levels, for people."""
    exact = np.arange(MIN_HU, MAX_HU + 1)
    error = np.abs(LEVELS_HU[_CODES].astype(np.int32) - exact)
    ranges = ((low, high, int(error[(exact >= low) & (exact <= high)].max())) for low, high, _ in STEPS_HU)
    return ", ".join(f"{worst} HU in {low}..{high}" for low, high, worst in ranges)
