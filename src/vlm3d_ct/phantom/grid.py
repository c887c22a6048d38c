"""Voxel grids in millimetres and the signed depth of simple bodies on them.

The patient's frame: origin on the midline at mid chest, z towards the head, y towards the back, x towards the
patient's left. A *depth* is a distance in mm to a body's surface: positive inside, negative outside, and exact enough
within a voxel of the surface to give it a soft edge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from vlm3d_ct.phantom.rounded import angle, cosine, product, sine

Field = Float32[np.ndarray, "..."]
"""One value per voxel of a grid, or of a plane or an axis that broadcasts over it."""
Box = tuple[slice, slice, slice]
Number = float | int
"""A real number; type checks at run time do not take an int for a float."""
Triple = tuple[Number, Number, Number]
"""Three numbers in the order (z, y, x)."""

IN_PLANE_VISIBLE = 0.9
"""A structure that must survive halving of the grid spans at least twice this many voxels in plane ..."""
SLICES_VISIBLE = 1.75
"""... and twice this many slices."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A regular voxel grid in the patient's frame.

    Attributes:
        origin_mm: centre of voxel (0, 0, 0).
        spacing_mm: distance of voxel centres along (z, y, x).
        shape: voxels along (z, y, x).
    """

    origin_mm: Triple
    spacing_mm: Triple
    shape: tuple[int, int, int]

    @property
    def z(self) -> Float32[np.ndarray, "z 1 1"]:
        """Height of the slices in mm."""
        return self._axis(0)[:, None, None]

    @property
    def y(self) -> Float32[np.ndarray, "1 y 1"]:
        """Position towards the back in mm."""
        return self._axis(1)[None, :, None]

    @property
    def x(self) -> Float32[np.ndarray, "1 1 x"]:
        """Position towards the patient's left in mm."""
        return self._axis(2)[None, None, :]

    @property
    def edge_mm(self) -> float:
        """Width of a soft edge: one voxel in the plane of the slices, which is where voxels are smallest."""
        return min(self.spacing_mm)

    def _axis(self, axis: int) -> Float32[np.ndarray, " n"]:
        steps = np.arange(self.shape[axis], dtype=np.float32)
        return np.float32(self.origin_mm[axis]) + steps * np.float32(self.spacing_mm[axis])

    def box(self, low_mm: Triple, high_mm: Triple) -> Box:
        """The voxels between two corners, one voxel of margin included; may be empty."""
        parts = []
        for low, high, origin, spacing, size in zip(
            low_mm, high_mm, self.origin_mm, self.spacing_mm, self.shape, strict=True
        ):
            start = max(0, math.floor((low - origin) / spacing))
            parts.append(slice(start, max(start, min(size, math.ceil((high - origin) / spacing) + 1))))
        return parts[0], parts[1], parts[2]

    def box_around(self, centre_mm: Triple, half_mm: Triple) -> Box:
        """The voxels within ``half_mm`` of a centre along each axis."""
        low = (centre_mm[0] - half_mm[0], centre_mm[1] - half_mm[1], centre_mm[2] - half_mm[2])
        return self.box(low, (centre_mm[0] + half_mm[0], centre_mm[1] + half_mm[1], centre_mm[2] + half_mm[2]))

    def crop(self, box: Box) -> Grid:
        """The part of the grid in a box."""
        origin = [o + s * part.start for o, s, part in zip(self.origin_mm, self.spacing_mm, box, strict=True)]
        sizes = [part.stop - part.start for part in box]
        return Grid(
            origin_mm=(origin[0], origin[1], origin[2]),
            spacing_mm=self.spacing_mm,
            shape=(sizes[0], sizes[1], sizes[2]),
        )

    def voxel(self, point_mm: Triple) -> tuple[int, int, int]:
        """The voxel (z, y, x) nearest to a point; may lie outside the grid."""
        index = [round((p - o) / s) for p, o, s in zip(point_mm, self.origin_mm, self.spacing_mm, strict=True)]
        return index[0], index[1], index[2]

    def at_least_visible(self, half_mm: Triple, share: Number = 1.0) -> Triple:
        """Half sizes of a body, enlarged where the grid is so coarse that partial volume would hide it.

        Dense bodies (calcium, metal) stay visible at a smaller ``share`` of the full minimum.
        """
        sz, sy, sx = (share * spacing for spacing in self.spacing_mm)
        z, y, x = half_mm
        return max(z, SLICES_VISIBLE * sz), max(y, IN_PLANE_VISIBLE * sy), max(x, IN_PLANE_VISIBLE * sx)


def ellipsoid_depth(
    grid: Grid, centre_mm: Triple, half_mm: Triple, axes: Float64[np.ndarray, "3 3"] | None = None
) -> Field:
    """Depth inside an ellipsoid, scaled by its mean half axis; ``axes`` are the rows of unit half-axis directions."""
    dz, dy, dx = grid.z - centre_mm[0], grid.y - centre_mm[1], grid.x - centre_mm[2]
    rz, ry, rx = (np.float32(half) for half in half_mm)
    if axes is None:
        q2 = (dz / rz) ** 2 + (dy / ry) ** 2 + (dx / rx) ** 2
    else:
        q2 = np.zeros(grid.shape, dtype=np.float32)
        for axis, half in zip(axes.astype(np.float32), (rz, ry, rx), strict=True):
            q2 += ((dz * (axis[0] / half) + dy * (axis[1] / half)) + dx * (axis[2] / half)) ** 2
    scale = np.float32((half_mm[0] * half_mm[1] * half_mm[2]) ** (1 / 3))
    return np.asarray((np.float32(1) - np.sqrt(q2)) * scale)


def capsule_depth(grid: Grid, start_mm: Triple, end_mm: Triple, radius_mm: Number) -> Field:
    """Depth inside a rod with round ends."""
    dz, dy, dx = (np.float32(e - s) for s, e in zip(start_mm, end_mm, strict=True))
    pz, py, px = grid.z - np.float32(start_mm[0]), grid.y - np.float32(start_mm[1]), grid.x - np.float32(start_mm[2])
    length2 = dz * dz + dy * dy + dx * dx + np.float32(1e-6)
    t = np.clip((pz * (dz / length2) + py * (dy / length2)) + px * (dx / length2), 0, 1)
    d2 = (pz - t * dz) ** 2 + (py - t * dy) ** 2 + (px - t * dx) ** 2
    return np.asarray(np.float32(radius_mm) - np.sqrt(d2))


def texture(grid: Grid, rng: np.random.Generator, wavelength_mm: Number) -> Field:
    """A smooth random field of about mean 0 and standard deviation 1: eight plane waves, the same on every grid.

    cos(a + b) = cos a cos b - sin a sin b makes them one matrix product of what depends on (z, y) and what on x.
    """
    direction = rng.normal(size=(8, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    wave_number = 2 * math.pi / (wavelength_mm * rng.uniform(0.7, 1.4, size=(8, 1)))
    kz, ky, kx = (wave_number * direction).T.astype(np.float32)
    phase = rng.uniform(0, 2 * math.pi, size=8).astype(np.float32)
    plane = grid.z * kz + grid.y * ky + phase
    line = kx[:, None] * grid.x[0]
    waves = np.concatenate([cosine(plane), -sine(plane)], axis=2)
    return np.asarray(product(waves, np.concatenate([cosine(line), sine(line)])) * np.float32(0.5))


@dataclass(frozen=True, kw_only=True)
class Polar:
    """The planes of a grid in polar coordinates around an axis along z on the midline.

    Attributes:
        turn: directions in the plane, one for each bin: 0 to the back, positive to the left, pi to the front.
        bin: the bin of each (y, x).
        radius: distance of each (y, x) from the axis, in mm.
    """

    turn: Float32[np.ndarray, " bins"]
    bin: Int64[np.ndarray, "y x"]
    radius: Float32[np.ndarray, "y x"]

    def depth(self, outline_mm: Float32[np.ndarray, "z bins"], across: Float32[np.ndarray, " bins"]) -> Field:
        """Depth inside a body whose surface is ``outline_mm`` from the axis, where it is star-shaped around it.

        Args:
            outline_mm: radius by height and direction.
            across: cosine of the angle between radius and normal of the surface, by direction.
        """
        table = outline_mm * across
        depth = np.take(table, self.bin, axis=1)
        depth -= across[self.bin] * self.radius
        return depth


COARSE_BINS, FINE_BINS, FINE_EDGE_MM = 360, 1440, 2.0


def polar(grid: Grid, pole_y: Number) -> Polar:
    """The grid's planes around an axis at ``pole_y``."""
    bins = FINE_BINS if grid.edge_mm < FINE_EDGE_MM else COARSE_BINS
    y, x = grid.y[0] - np.float32(pole_y), grid.x[0]
    place = (angle(x, y) + np.float32(math.pi)) * np.float32(bins / (2 * math.pi))
    turn = (np.arange(bins, dtype=np.float32) + np.float32(0.5)) * np.float32(2 * math.pi / bins) - np.float32(math.pi)
    chosen = np.clip(place.astype(np.int64), 0, bins - 1)
    return Polar(turn=turn, bin=chosen, radius=np.sqrt(x * x + y * y))


def across_outline(outline_mm: Float32[np.ndarray, " bins"]) -> Float32[np.ndarray, " bins"]:
    """Cosine of the angle between the radius and the normal of a closed outline, by direction."""
    bins = len(outline_mm)
    slope = (np.roll(outline_mm, -1) - np.roll(outline_mm, 1)) * np.float32(bins / (4 * math.pi))
    return np.asarray(outline_mm / np.sqrt(outline_mm**2 + slope**2))


def smoothstep(value: Field | Number, low: Number, high: Number) -> Field:
    """0 below ``low``, 1 above ``high``, and a smooth rise between."""
    t = np.clip((np.asarray(value, dtype=np.float32) - low) / (high - low), 0, 1).astype(np.float32)
    return np.asarray(t * t * (3 - 2 * t))


def unit_axes(normal: Triple) -> Float64[np.ndarray, "3 3"]:
    """Three orthogonal unit vectors (rows), the first along ``normal``."""
    first = np.asarray(normal, dtype=np.float64)
    first /= np.linalg.norm(first)
    other = np.array([1.0, 0.0, 0.0]) if abs(first[0]) < 0.9 else np.array([0.0, 1.0, 0.0])
    second = np.cross(first, other)
    second /= np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)])
