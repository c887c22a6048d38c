"""Resizing a volume, one axis after the other: to a number of voxels, or to a spacing.

Intensities are averaged where an axis shrinks, so that no slice is skipped: a voxel of the result is the mean over the
extent that it covers, as a thicker slice of the scanner would be. Where an axis grows they are interpolated linearly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64, Integer, UInt8

Size = tuple[int, int, int]


def resize_average(
    volume: Integer[np.ndarray, "z y x"], size: Size, *, bounds: tuple[int, int] | None = None
) -> Integer[np.ndarray, "z2 y2 x2"]:
    """The volume at another size, in the same type, rounded to whole numbers.

    Constant volumes stay exactly constant, and shrinking keeps the mean. ``bounds`` limit the values beforehand.
    """
    weights = [resize_weights(old, new) for old, new in zip(volume.shape, size, strict=True)]
    return _apply(volume, weights, bounds, outside=0)


def resample_average(
    volume: Integer[np.ndarray, "z y x"],
    size: Size,
    relative_spacing: tuple[float, float, float],
    *,
    outside: int,
    bounds: tuple[int, int] | None = None,
) -> Integer[np.ndarray, "z2 y2 x2"]:
    """The volume on a grid of another spacing about the same centre: what does not fit is cut off.

    Args:
        volume: of any size.
        size: voxels of the result.
        relative_spacing: a new voxel in old ones, along (z, y, x).
        outside: the value beyond the volume; a new voxel that lies partly beyond is the mean of both.
        bounds: limit the values beforehand.
    """
    weights = [
        resample_weights(old, new, ratio) for old, new, ratio in zip(volume.shape, size, relative_spacing, strict=True)
    ]
    return _apply(volume, weights, bounds, outside)


def resample_nearest(
    labels: UInt8[np.ndarray, "z y x"], size: Size, relative_spacing: tuple[float, float, float]
) -> UInt8[np.ndarray, "z2 y2 x2"]:
    """The labels on the grid of `resample_average`: every voxel takes the label found at its centre, 0 beyond."""
    for axis, (old, new, ratio) in enumerate(zip(labels.shape, size, relative_spacing, strict=True)):
        found = np.floor(_centres(old, new, ratio)).astype(np.intp)
        within = (found >= 0) & (found < old)
        labels = np.take(labels, np.clip(found, 0, old - 1), axis=axis)
        labels *= within.astype(np.uint8).reshape([-1 if i == axis else 1 for i in range(3)])
    return labels


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


def resample_weights(old: int, new: int, ratio: float) -> Float32[np.ndarray, "new old"]:
    """The matrix that brings one axis of ``old`` voxels to ``new`` ones of ``ratio`` old voxels each, centre on centre.

    Shrinking (``ratio`` >= 1): the share of the new voxel that each old one fills. Growing: linear between the two
    nearest centres, held constant in the outer half of the outermost voxels. A row sums to the share of the new voxel
    that lies within the volume (growing: 1 if its centre does).
    """
    centres, index = _centres(old, new, ratio)[:, None], np.arange(old)[None]
    if ratio >= 1:
        overlap = np.minimum(centres + ratio / 2, index + 1) - np.maximum(centres - ratio / 2, index)
        weights = np.clip(overlap, 0, None) / ratio
        weights[weights < 1e-6] = 0  # rounding of the edges
    else:
        weights = np.clip(1 - np.abs(np.clip(centres - 0.5, 0, old - 1) - index), 0, None)
        weights *= (centres >= 0) & (centres <= old)
    rounded: Float32[np.ndarray, "new old"] = weights.astype(np.float32)
    return rounded


def _centres(old: int, new: int, ratio: float) -> Float64[np.ndarray, " new"]:
    """The centres of the new voxels, in old voxels from the first one's edge."""
    centres: Float64[np.ndarray, " new"] = old / 2 + (np.arange(new) - (new - 1) / 2) * ratio
    return centres


def _apply(
    volume: Integer[np.ndarray, "z y x"],
    weights: Sequence[Float32[np.ndarray, "_ _"]],
    bounds: tuple[int, int] | None,
    outside: int,
) -> Integer[np.ndarray, "z2 y2 x2"]:
    """Each axis multiplied by its matrix; what a row lacks to 1 is ``outside``."""
    along_z, along_y, along_x = weights
    result = np.empty([len(axis) for axis in weights], dtype=volume.dtype)
    unchanged = [axis.shape[0] == axis.shape[1] and np.array_equal(axis, np.eye(len(axis))) for axis in weights]
    for i, row in enumerate(along_z):
        used = np.flatnonzero(row)
        if len(used) == 0:
            result[i] = outside
            continue
        first, end = used[0], used[-1] + 1
        plane = _weighted_sum(volume[first:end], row[first:end], bounds)
        if outside:
            plane -= outside * row.sum()
        if not unchanged[1]:
            plane = along_y @ plane
        if not unchanged[2]:
            plane = plane @ along_x.T
        if outside:
            plane += outside
        np.rint(plane, out=plane)
        result[i] = plane
    return result


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
