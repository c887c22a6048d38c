"""Resizing a volume, one axis after the other.

Intensities are averaged where an axis shrinks, so that no slice is skipped: a voxel of the result is the mean over the
extent that it covers, as a thicker slice of the scanner would be. Where an axis grows they are interpolated linearly.
A new axis covers the old one exactly (`resize_average`), or is laid about its centre with voxels of a given length
(`resample_average`), which crops it or leaves voxels outside.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, Int, Integer, UInt8
from scipy import sparse

Size = tuple[int, int, int]


def resize_average(
    volume: Integer[np.ndarray, "z y x"], size: Size, *, bounds: tuple[int, int] | None = None
) -> Integer[np.ndarray, "z2 y2 x2"]:
    """The volume at another size, in the same type, rounded to whole numbers.

    Constant volumes stay exactly constant, and shrinking keeps the mean. ``bounds`` limit the values beforehand.
    """
    weights = [resize_weights(old, new) for old, new in zip(volume.shape, size, strict=True)]
    result = np.empty(size, dtype=volume.dtype)
    _fill(result, volume, weights, bounds)
    return result


def resample_average(
    volume: Integer[np.ndarray, "z y x"],
    size: Size,
    steps: tuple[float, float, float],
    *,
    outside: int,
    bounds: tuple[int, int] | None = None,
) -> Integer[np.ndarray, "z2 y2 x2"]:
    """The volume on a grid about its own centre, in the same type, rounded to whole numbers.

    Args:
        volume: what to resample.
        size: voxels of the new grid.
        steps: length of a new voxel in old ones, along each axis.
        outside: value of the voxels whose centre lies outside the volume.
        bounds: limit the values beforehand.
    """
    weights = [
        grid_weights(old, new, step, centred_start(old, new, step))
        for old, new, step in zip(volume.shape, size, steps, strict=True)
    ]
    inside = [np.flatnonzero(axis.any(axis=1)) for axis in weights]
    box = tuple(slice(int(rows[0]), int(rows[-1]) + 1) for rows in inside)
    result = np.full(size, outside, dtype=volume.dtype)
    _fill(result[box], volume, [axis[rows] for axis, rows in zip(weights, box, strict=True)], bounds)
    return result


def resize_nearest(labels: UInt8[np.ndarray, "z y x"], size: Size) -> UInt8[np.ndarray, "z2 y2 x2"]:
    """The labels at another size: every voxel takes the label found at its centre."""
    for axis, (old, new) in enumerate(zip(labels.shape, size, strict=True)):
        if old != new:
            centres = (2 * np.arange(new) + 1) * old // (2 * new)
            labels = np.take(labels, centres, axis=axis)
    return labels


def resample_nearest(
    labels: UInt8[np.ndarray, "z y x"], size: Size, steps: tuple[float, float, float]
) -> UInt8[np.ndarray, "z2 y2 x2"]:
    """The labels on the grid of `resample_average`: found at each voxel's centre, 0 outside."""
    result = np.zeros(size, dtype=labels.dtype)
    box, found = [], labels
    for axis, (old, new, step) in enumerate(zip(labels.shape, size, steps, strict=True)):
        centres = _old_index(new, step, centred_start(old, new, step))
        rows = np.flatnonzero((centres >= 0) & (centres < old))
        box.append(slice(int(rows[0]), int(rows[-1]) + 1))
        found = np.take(found, centres[rows], axis=axis)
    result[tuple(box)] = found
    return result


def centred_start(old: int, new: int, step: float) -> float:
    """Where a grid of ``new`` voxels about the centre of an axis begins, in old voxels from its edge."""
    return (old - new * step) / 2


def resize_weights(old: int, new: int) -> Float32[np.ndarray, "new old"]:
    """The matrix that resizes one axis from ``old`` to ``new`` voxels; each row sums to 1.

    Shrinking: the share of each old voxel in the new one. Growing: linear between the two nearest centres, held
    constant beyond the outermost ones.
    """
    return grid_weights(old, new, old / new, 0.0)


def grid_weights(old: int, new: int, step: float, start: float) -> Float32[np.ndarray, "new old"]:
    """The same for new voxels of ``step`` old ones that begin at ``start``, in old voxels from the axis's edge.

    A row sums to 1 where the new voxel's centre lies inside the axis, and is 0 elsewhere. A voxel across the edge is
    made of the part inside.
    """
    if step >= 1:
        edges = start + np.arange(new + 1) * step
        starts = np.maximum(edges[:-1, None], np.arange(old)[None])
        ends = np.minimum(edges[1:, None], np.arange(1, old + 1)[None])
        weights = np.clip(ends - starts, 0, None)
        weights[weights < 1e-6] = 0  # rounding of the edges
    else:
        centres = np.clip(start + (np.arange(new) + 0.5) * step - 0.5, 0, old - 1)
        weights = np.clip(1 - np.abs(centres[:, None] - np.arange(old)[None]), 0, None)
    index = _old_index(new, step, start)
    weights[(index < 0) | (index >= old)] = 0
    sums: Float64[np.ndarray, "new 1"] = weights.sum(axis=1, keepdims=True)
    normalised: Float32[np.ndarray, "new old"] = (weights / np.where(sums == 0, 1, sums)).astype(np.float32)
    return normalised


def _old_index(new: int, step: float, start: float) -> Int[np.ndarray, " new"]:
    """The old voxel in which each new one's centre lies; outside the axis below 0 or beyond the last."""
    return np.floor(start + (np.arange(new) + 0.5) * step + 1e-9).astype(np.int64)


def _fill(
    result: Integer[np.ndarray, "z2 y2 x2"],
    volume: Integer[np.ndarray, "z y x"],
    weights: list[Float32[np.ndarray, "_ _"]],
    bounds: tuple[int, int] | None,
) -> None:
    """Weighted sums along z, then y, then x, plane by plane: most entries of the matrices are 0."""
    along_y, along_x = (_sparse(axis) for axis in weights[1:])
    for i, row in enumerate(weights[0]):
        used = np.flatnonzero(row)
        first, end = used[0], used[-1] + 1
        plane = _weighted_sum(volume[first:end], row[first:end], bounds)
        if along_y is not None:
            plane = along_y @ plane
        if along_x is not None:
            plane = (along_x @ plane.T).T
        np.rint(plane, out=plane)
        result[i] = plane


def _sparse(weights: Float32[np.ndarray, "new old"]) -> sparse.csr_array | None:
    """None where the matrix changes nothing."""
    if weights.shape[0] == weights.shape[1] and np.array_equal(weights, np.eye(len(weights))):
        return None
    return sparse.csr_array(weights)


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
