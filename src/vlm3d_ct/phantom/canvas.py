"""What the phantom is painted on: intensities, region ids, lesion ids, and the depths that findings are placed by."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from vlm3d_ct.phantom.grid import Box, Field, Grid, Number, Triple, capsule_depth, ellipsoid_depth

COARSE_EDGE_MM = 2.5
"""On grids with larger voxels fine structures are drawn enlarged and in stronger contrast: partial volume would hide
them."""


Index = tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]
"""Indices (z, y, x) of some voxels."""


@dataclass(frozen=True)
class Points:
    """Some voxels of a canvas: their indices, and where they are in mm."""

    index: Index
    z: Float32[np.ndarray, " n"]
    y: Float32[np.ndarray, " n"]
    x: Float32[np.ndarray, " n"]


class Canvas:
    """Intensities and region ids of a scan while it is painted.

    Attributes:
        grid: where the voxels are.
        hu: intensities without noise.
        labels: region ids 0..20 of the healthy anatomy.
        lesions: 1 + index of the finding that covers at least half of a voxel (the last one painted), 0 elsewhere.
        lesion: what is written there by what is being painted; 0 while the healthy anatomy is.
        lobes: 1..5 in the territory of a lung lobe up to the chest wall, 0 elsewhere; what
            pushes the lung aside takes its place.
        cavity_depth: mm inside the thoracic wall.
        mediastinum_depth: mm inside the mediastinum; its negative is the distance from it.
    """

    def __init__(self, grid: Grid):
        self.grid = grid
        self.hu: Float32[np.ndarray, "z y x"] = np.full(grid.shape, -1000, dtype=np.float32)
        self.labels: UInt8[np.ndarray, "z y x"] = np.zeros(grid.shape, dtype=np.uint8)
        self.lesions: UInt8[np.ndarray, "z y x"] = np.zeros(grid.shape, dtype=np.uint8)
        self.lesion = 0
        self.lobes: UInt8[np.ndarray, "z y x"] = np.zeros(grid.shape, dtype=np.uint8)
        self.cavity_depth: Float32[np.ndarray, "z y x"] = np.zeros(grid.shape, dtype=np.float32)
        self.mediastinum_depth: Float32[np.ndarray, "z y x"] = np.zeros(grid.shape, dtype=np.float32)

    @property
    def coarse(self) -> bool:
        """Whether the voxels are so large that fine structures are drawn enlarged."""
        return self.grid.edge_mm > COARSE_EDGE_MM

    def visible(self, half_mm: Triple, share: Number = 1.0) -> Triple:
        """Half sizes of a body as it is drawn: on a coarse grid large enough to be seen, else at least a voxel."""
        if self.coarse:
            return self.grid.at_least_visible(half_mm, share)
        (z, y, x), (sz, sy, sx) = half_mm, self.grid.spacing_mm
        return max(z, 0.5 * sz), max(y, 0.5 * sy), max(x, 0.5 * sx)

    def whole(self) -> Box:
        """The box of all voxels."""
        z, y, x = self.grid.shape
        return slice(0, z), slice(0, y), slice(0, x)

    def paint(
        self,
        box: Box,
        depth_mm: Field,
        hu: Number | Field,
        *,
        label: int | None = None,
        where: Bool[np.ndarray, "..."] | None = None,
        strength: Number = 1.0,
    ) -> None:
        """Mix ``hu`` in where the depth is positive, with a soft edge of one voxel, and set the region id there.

        Args:
            box: the voxels that the depth is for.
            depth_mm: depth inside the body.
            hu: its intensity.
            label: region id of the body, None to leave the ids alone (findings).
            where: voxels outside this mask stay as they are.
            strength: share of the body's intensity at full depth.
        """
        cover = depth_mm * np.float32(1 / self.grid.edge_mm)
        cover += np.float32(0.5)
        np.clip(cover, 0, 1, out=cover)
        if where is not None:
            cover = cover * where
        if strength != 1.0:
            cover *= np.float32(strength)
        view = self.hu[box]
        change = (hu if isinstance(hu, np.ndarray) else np.float32(hu)) - view
        change *= cover
        view += change
        if self.lesion:
            np.copyto(self.lesions[box], np.uint8(self.lesion), where=cover >= 0.5)
        if label is not None:
            inside = depth_mm > 0 if where is None else (depth_mm > 0) & where
            np.copyto(self.labels[box], np.uint8(label), where=inside)

    def points(self, box: Box, where: Bool[np.ndarray, "z y x"]) -> Points:
        """The voxels of a box where the mask is true; what is drawn in a small part of a box is faster on these."""
        iz, iy, ix = np.nonzero(where)
        iz, iy, ix = (i + part.start for i, part in zip((iz, iy, ix), box, strict=True))
        grid = self.grid
        return Points((iz, iy, ix), grid.z[iz, 0, 0], grid.y[0, iy, 0], grid.x[0, 0, ix])

    def mix(
        self,
        index: Index,
        cover: Float32[np.ndarray, " n"],
        hu: Number | Float32[np.ndarray, " n"],
        *,
        marked: bool = True,
    ) -> None:
        """Mix ``hu`` in at single voxels by the share that it covers of them; the region ids stay as they are.

        The voxels become part of the lesion that is being painted unless they are not to be ``marked``.
        """
        old = self.hu[index]
        self.hu[index] = old + cover * (hu - old)
        if self.lesion and marked:
            chosen = cover >= 0.5
            iz, iy, ix = index
            self.lesions[iz[chosen], iy[chosen], ix[chosen]] = self.lesion

    def in_lobes(self, box: Box, lobes: Collection[int]) -> Bool[np.ndarray, "z y x"]:
        """Where the territory of these lobes is."""
        lookup = np.zeros(256, dtype=bool)
        lookup[list(lobes)] = True
        chosen: Bool[np.ndarray, "z y x"] = lookup[self.lobes[box]]
        return chosen

    def is_in(self, box: Box, labels: Collection[int]) -> Bool[np.ndarray, "z y x"]:
        """Where the healthy anatomy has one of these region ids."""
        lookup = np.zeros(256, dtype=bool)
        lookup[list(labels)] = True
        chosen: Bool[np.ndarray, "z y x"] = lookup[self.labels[box]]
        return chosen

    def ellipsoid(
        self,
        centre_mm: Triple,
        half_mm: Triple,
        hu: Number,
        *,
        label: int | None = None,
        within: Collection[int] | None = None,
        axes: Float64[np.ndarray, "3 3"] | None = None,
    ) -> None:
        """Paint an ellipsoid, restricted to the region ids ``within``."""
        margin = self.grid.edge_mm
        reach = half_mm if axes is None else (max(half_mm),) * 3
        box = self.grid.box_around(centre_mm, (reach[0] + margin, reach[1] + margin, reach[2] + margin))
        part = self.grid.crop(box)
        if 0 in part.shape:
            return
        where = None if within is None else self.is_in(box, within)
        self.paint(box, ellipsoid_depth(part, centre_mm, half_mm, axes), hu, label=label, where=where)

    def rod(
        self,
        points_mm: list[Triple],
        radius_mm: Number,
        hu: Number,
        *,
        label: int | None = None,
        within: Collection[int] | None = None,
    ) -> None:
        """Paint a round rod along a polyline, restricted to the region ids ``within``.

        A rod thinner than a voxel is painted as faintly as the share of a voxel's face that it covers.
        """
        edge = self.grid.edge_mm
        reach, strength = radius_mm + edge, min(1.0, math.pi * (radius_mm / edge) ** 2)
        for start, end in pairwise(points_mm):
            low = (min(start[0], end[0]) - reach, min(start[1], end[1]) - reach, min(start[2], end[2]) - reach)
            high = (max(start[0], end[0]) + reach, max(start[1], end[1]) + reach, max(start[2], end[2]) + reach)
            box = self.grid.box(low, high)
            part = self.grid.crop(box)
            if 0 in part.shape:
                continue
            where = None if within is None else self.is_in(box, within)
            depth = capsule_depth(part, start, end, radius_mm)
            self.paint(box, depth, hu, label=label, where=where, strength=strength)
