"""Resizing a volume, one axis after the other.

Intensities are averaged where an axis shrinks, so that no slice is skipped: a voxel of the result is the mean over the
extent that it covers, as a thicker slice of the scanner would be. Where an axis grows they are interpolated linearly.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Integer, UInt8

Size = tuple[int, int, int]


def resize_average(
    volume: Integer[np.ndarray, "z y x"], size: Size, *, bounds: tuple[int, int] | None = None
) -> Integer[np.ndarray, "z2 y2 x2"]:
    """The volume at another size, in the same type, rounded to whole numbers.

    Constant volumes stay exactly constant, and shrinking keeps the mean. ``bounds`` limit the values beforehand.
    """
    along_z, along_y, along_x = (resize_weights(old, new) for old, new in zip(volume.shape, size, strict=True))
    _, height, width = volume.shape
    result = np.empty(size, dtype=volume.dtype)
    for i, weights in enumerate(along_z):
        used = np.flatnonzero(weights)
        first, end = used[0], used[-1] + 1
        plane = _weighted_sum(volume[first:end], weights[first:end], bounds)
        if size[1] != height:
            plane = along_y @ plane
        if size[2] != width:
            plane = plane @ along_x.T
        np.rint(plane, out=plane)
        result[i] = plane
    return result


def resize_nearest(labels: UInt8[np.ndarray, "z y x"], size: Size) -> UInt8[np.ndarray, "z2 y2 x2"]:
    """The labels at another size: every voxel takes the label found at its centre."""
    for axis, (old, new) in enumerate(zip(labels.shape, size, strict=True)):
        if old != new:
            centres = (2 * np.arange(new) + 1) * old // (2 * new)
            labels = np.take(labels, centres, axis=axis)
    return labels


def resize_weights(old: int, new: int) -> Float32[np.ndarray, "new old"]:
    """The matrix that resizes one axis from ``old`` to ``new`` voxels; each row sums to 1.

    Shrinking: the share of each old voxel in the new one. Growing: linear between the two nearest centres, held
    constant beyond the outermost ones.
    """
    if new <= old:
        edges = np.arange(new + 1) * (old / new)
        starts = np.maximum(edges[:-1, None], np.arange(old)[None])
        ends = np.minimum(edges[1:, None], np.arange(1, old + 1)[None])
        weights = np.clip(ends - starts, 0, None)
        weights[weights < 1e-6] = 0  # rounding of the edges
    else:
        centres = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
        weights = np.clip(1 - np.abs(centres[:, None] - np.arange(old)[None]), 0, None)
    normalised: Float32[np.ndarray, "new old"] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return normalised


def _weighted_sum(
    planes: Integer[np.ndarray, "k y x"], weights: Float32[np.ndarray, " k"], bounds: tuple[int, int] | None
) -> Float32[np.ndarray, "y x"]:
    """The planes' sum with these weights, without a float copy of all of them."""
    total = np.zeros(planes.shape[1:], dtype=np.float32)
    term = np.empty_like(total)
    for plane, weight in zip(planes, weights, strict=True):
        limited = plane if bounds is None else np.clip(plane, *bounds)
        np.multiply(limited, weight, out=term, dtype=np.float32)
        total += term
    return total
