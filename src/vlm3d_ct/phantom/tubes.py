"""Many round tubes painted at once: vessels, airways, ribs and other bodies that follow a line.

A tube is a straight piece with round ends whose radius may change along it. All tubes of a call are measured in one
pass over the voxels near them, which on a coarse grid is some fifty times faster than one tube after the other.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Grid, Number, Triple

VOXELS_AT_ONCE = 2_000_000
"""Bounds the memory of a pass to about 200 MB."""
FAINTEST = 0.02
"""Tubes that would change a voxel by less than this share of their contrast are left out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tubes:
    """Straight round pieces.

    Attributes:
        start_mm, end_mm: (z, y, x) of both ends.
        start_radius_mm, end_radius_mm: radius at both ends.
    """

    start_mm: Float32[np.ndarray, "n 3"]
    end_mm: Float32[np.ndarray, "n 3"]
    start_radius_mm: Float32[np.ndarray, " n"]
    end_radius_mm: Float32[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.start_mm)

    def __getitem__(self, chosen: np.ndarray | slice) -> Tubes:
        """The chosen tubes."""
        return Tubes(
            start_mm=self.start_mm[chosen],
            end_mm=self.end_mm[chosen],
            start_radius_mm=self.start_radius_mm[chosen],
            end_radius_mm=self.end_radius_mm[chosen],
        )

    def widened(self, by_mm: Number | Float32[np.ndarray, " n"]) -> Tubes:
        """The same tubes with a larger radius, or a smaller one where ``by_mm`` is negative."""
        grow = np.float32(1) * by_mm
        return Tubes(
            start_mm=self.start_mm,
            end_mm=self.end_mm,
            start_radius_mm=(self.start_radius_mm + grow).astype(np.float32),
            end_radius_mm=(self.end_radius_mm + grow).astype(np.float32),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Near:
    """The voxels within half a soft edge of some tubes, each with the tube that it lies deepest in.

    Attributes:
        voxel: flat index into the grid.
        depth_mm: depth in that tube.
        tube: number of that tube.
    """

    voxel: Int64[np.ndarray, " n"]
    depth_mm: Float32[np.ndarray, " n"]
    tube: Int64[np.ndarray, " n"]

    def where(self, chosen: Bool[np.ndarray, " n"]) -> Near:
        """The chosen voxels."""
        return Near(voxel=self.voxel[chosen], depth_mm=self.depth_mm[chosen], tube=self.tube[chosen])

    def inset(self, by_mm: Number) -> Near:
        """The same voxels in a body whose surface lies this much deeper."""
        return Near(voxel=self.voxel, depth_mm=self.depth_mm - np.float32(by_mm), tube=self.tube)

    def limited(self, depth_mm: Float32[np.ndarray, " n"]) -> Near:
        """The same voxels in what these bodies and another one share, in which the voxels have these depths."""
        return Near(voxel=self.voxel, depth_mm=np.minimum(self.depth_mm, depth_mm), tube=self.tube)


def polyline(points_mm: Sequence[Triple] | np.ndarray, radius_mm: Number | Sequence[Number]) -> Tubes:
    """The tubes along a polyline; ``radius_mm`` is one number, or one for each point."""
    points = np.asarray(points_mm, dtype=np.float32)
    radii = np.broadcast_to(np.asarray(radius_mm, dtype=np.float32), len(points))
    return Tubes(
        start_mm=points[:-1], end_mm=points[1:], start_radius_mm=radii[:-1].copy(), end_radius_mm=radii[1:].copy()
    )


def polylines(points_mm: Float32[np.ndarray, "lines points 3"], radius_mm: Number) -> Tubes:
    """The tubes along polylines with the same number of points and the same radius."""
    start = points_mm[:, :-1].reshape(-1, 3)
    radius = np.full(len(start), radius_mm, dtype=np.float32)
    return Tubes(start_mm=start, end_mm=points_mm[:, 1:].reshape(-1, 3), start_radius_mm=radius, end_radius_mm=radius)


def joined(parts: Sequence[Tubes]) -> Tubes:
    """All tubes of several sets, in order."""
    return Tubes(
        start_mm=np.concatenate([part.start_mm for part in parts]),
        end_mm=np.concatenate([part.end_mm for part in parts]),
        start_radius_mm=np.concatenate([part.start_radius_mm for part in parts]),
        end_radius_mm=np.concatenate([part.end_radius_mm for part in parts]),
    )


def near_tubes(
    grid: Grid, tubes: Tubes, edge_mm: Number | None = None, strength: Float32[np.ndarray, " n"] | None = None
) -> Near:
    """The voxels in and around tubes, out to half of the soft edge (one voxel if None).

    Where tubes overlap the deeper one counts; with a ``strength`` for each tube the one that covers more of the voxel.
    """
    edge = grid.edge_mm if edge_mm is None else edge_mm
    pieces, source = _short_pieces(tubes, edge)
    first, size = _boxes(grid, pieces, edge)
    count = size.prod(1)
    order = np.flatnonzero(count)
    if not len(order):
        nothing = np.zeros(0, dtype=np.int64)
        return Near(voxel=nothing, depth_mm=nothing.astype(np.float32), tube=nothing)
    corner = first[order].min(0)
    shape = (first[order] + size[order]).max(0) - corner
    highest = np.full(shape.prod(), -np.inf, dtype=np.float32)
    planes, rows, columns = (slice(int(low), int(low + length)) for low, length in zip(corner, shape, strict=True))
    part = grid.crop((planes, rows, columns))
    parts = []
    ends = np.cumsum(count[order])
    for start in range(0, int(ends[-1]), VOXELS_AT_ONCE):
        chosen = order[(ends > start) & (ends <= start + VOXELS_AT_ONCE)]
        if len(chosen):
            voxel, depth, piece = _measure(part, pieces[chosen], first[chosen] - corner, size[chosen], edge)
            tube = source[chosen][piece]
            rank = depth if strength is None else _rank(depth, strength[tube], edge)
            np.maximum.at(highest, voxel, rank)
            parts.append((voxel, depth, tube, rank))
    voxel, depth, tube, rank = (np.concatenate(column) for column in zip(*parts, strict=True))
    winner = np.flatnonzero(rank == highest[voxel])
    z, y, x = np.unravel_index(voxel[winner], part.shape)
    flat = ((z + corner[0]) * grid.shape[1] + y + corner[1]) * grid.shape[2] + x + corner[2]
    return Near(voxel=flat, depth_mm=depth[winner], tube=tube[winner])


def _rank(
    depth_mm: Float32[np.ndarray, " n"], strength: Float32[np.ndarray, " n"], edge_mm: Number
) -> Float32[np.ndarray, " n"]:
    """The cover, and among equals the depth: so two tubes of the same rank leave nearly the same intensity."""
    cover = np.clip(depth_mm * np.float32(1 / edge_mm) + np.float32(0.5), 0, 1)
    return np.asarray(cover * strength + np.float32(1e-4) * depth_mm)


def paint_tubes(
    canvas: Canvas,
    tubes: Tubes,
    hu: Number | Float32[np.ndarray, " n"],
    *,
    label: int | None = None,
    within: Collection[int] | None = None,
    blur_mm: Number = 0.0,
) -> None:
    """Paint tubes, restricted to the region ids ``within``; ``hu`` is common or one for each tube.

    A tube thinner than its soft edge is painted as faintly as the share of the edge's square that it covers. The edge
    is as wide as a voxel, or as ``blur_mm``, a scanner's resolution, where that is wider.
    """
    edge = max(canvas.grid.edge_mm, blur_mm)
    mean_radius = (tubes.start_radius_mm + tubes.end_radius_mm) / 2
    share = np.minimum(1, math.pi * (mean_radius / np.float32(edge)) ** 2).astype(np.float32)
    visible = np.flatnonzero(share > FAINTEST)
    near = near_tubes(canvas.grid, tubes[visible], edge, share[visible])
    if within is not None:
        near = near.where(member(within)[canvas.labels.reshape(-1)[near.voxel]])
    tube = visible[near.tube]
    paint_near(canvas, near, hu[tube] if isinstance(hu, np.ndarray) else hu, strength=share[tube], edge_mm=edge)
    if label is not None:
        deep = near.depth_mm > 0
        canvas.labels.reshape(-1)[near.voxel[deep]] = label


def paint_near(
    canvas: Canvas,
    near: Near,
    hu: Number | Float32[np.ndarray, " n"],
    *,
    strength: Number | Float32[np.ndarray, " n"] = 1.0,
    edge_mm: Number | None = None,
) -> None:
    """Mix ``hu`` into voxels by their depth, with a soft edge (one voxel if None)."""
    edge = canvas.grid.edge_mm if edge_mm is None else edge_mm
    cover = np.clip(near.depth_mm * np.float32(1 / edge) + np.float32(0.5), 0, 1)
    cover *= np.float32(1) * strength
    flat = canvas.hu.reshape(-1)
    old = flat[near.voxel]
    flat[near.voxel] = old + cover * (np.float32(1) * hu - old)


def member(labels: Collection[int]) -> Bool[np.ndarray, "256"]:
    """A table that says of each id whether it is one of ``labels``."""
    table = np.zeros(256, dtype=bool)
    table[list(labels)] = True
    return table


def _short_pieces(tubes: Tubes, edge_mm: Number) -> tuple[Tubes, np.ndarray]:
    """Tubes cut so that their boxes hold few voxels that are far from them, and which tube each piece is of."""
    along = tubes.end_mm - tubes.start_mm
    length = np.sqrt((along * along).sum(1))
    wide = np.maximum(tubes.start_radius_mm, tubes.end_radius_mm) + np.float32(edge_mm)
    cuts = np.maximum(1, np.round(length / (2 * wide))).astype(np.int64)
    source = np.repeat(np.arange(len(tubes)), cuts)
    step = np.arange(len(source)) - np.repeat(np.cumsum(cuts) - cuts, cuts)
    low = (step / cuts[source]).astype(np.float32)
    high = ((step + 1) / cuts[source]).astype(np.float32)
    start, radius = tubes.start_mm[source], tubes.start_radius_mm[source]
    growth = tubes.end_radius_mm[source] - radius
    pieces = Tubes(
        start_mm=start + low[:, None] * along[source],
        end_mm=start + high[:, None] * along[source],
        start_radius_mm=radius + low * growth,
        end_radius_mm=radius + high * growth,
    )
    return pieces, source


def _boxes(grid: Grid, tubes: Tubes, edge_mm: Number) -> tuple[np.ndarray, np.ndarray]:
    """First voxel and size of the box of voxels that each tube's soft edge reaches; a size may be zero."""
    reach = np.maximum(tubes.start_radius_mm, tubes.end_radius_mm)[:, None] + np.float32(edge_mm / 2)
    origin, spacing = np.array(grid.origin_mm), np.array(grid.spacing_mm)
    low = np.ceil((np.minimum(tubes.start_mm, tubes.end_mm) - reach - origin) / spacing)
    high = np.floor((np.maximum(tubes.start_mm, tubes.end_mm) + reach - origin) / spacing)
    first = np.maximum(low, 0).astype(np.int64)
    last = np.minimum(high, np.array(grid.shape) - 1).astype(np.int64)
    return first, np.maximum(last - first + 1, 0)


def _measure(
    grid: Grid, tubes: Tubes, first: np.ndarray, size: np.ndarray, edge_mm: Number
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flat index, depth and tube of the voxels in the tubes' boxes that are within half an edge of the tube.

    The boxes are taken row by row along x: what a row has in common is computed once and repeated. With p from the
    tube's start to the voxel and a along the tube, the squared distance is p.p - t (2 p.a - t a.a).
    """
    tube, row = _numbered(size[:, 0] * size[:, 1])
    iz, iy = np.divmod(row, size[tube, 1])
    corner = (np.array(grid.origin_mm) + first * np.array(grid.spacing_mm)).astype(np.float32) - tubes.start_mm
    along = tubes.end_mm - tubes.start_mm
    length2 = np.maximum((along * along).sum(1), np.float32(1e-6))
    sz, sy, sx = (np.float32(step) for step in grid.spacing_mm)
    pz = corner[tube, 0] + sz * iz.astype(np.float32)
    py = corner[tube, 1] + sy * iy.astype(np.float32)
    common = np.stack(
        [
            pz * pz + py * py,
            pz * along[tube, 0] + py * along[tube, 1],
            corner[tube, 2],
            along[tube, 2],
            length2[tube],
            tubes.start_radius_mm[tube],
            (tubes.end_radius_mm - tubes.start_radius_mm)[tube],
        ]
    )
    owner, ix = _numbered(size[tube, 2])
    aside2, dot, px, ax, a2, radius, growth = np.repeat(common, size[tube, 2], axis=1)
    px += sx * ix.astype(np.float32)
    dot += px * ax
    t = np.clip(dot / a2, 0, 1)
    distance2 = aside2 + px * px - t * (2 * dot - t * a2)
    depth = radius + t * growth - np.sqrt(np.maximum(distance2, 0))
    kept = np.flatnonzero(depth > np.float32(-edge_mm / 2))
    owner, ix = owner[kept], ix[kept]
    flat = ((first[tube, 0] + iz) * grid.shape[1] + first[tube, 1] + iy) * grid.shape[2] + first[tube, 2]
    return flat[owner] + ix, depth[kept], tube[owner]


def _numbered(count: Int64[np.ndarray, " n"]) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """For items that come ``count`` times each: which item it is, and which time."""
    item = np.repeat(np.arange(len(count)), count)
    return item, np.arange(len(item)) - (np.cumsum(count) - count)[item]
