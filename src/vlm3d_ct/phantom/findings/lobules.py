"""Secondary pulmonary lobules: polyhedra of one size that fill space, slightly bent.

Truncated octahedra, the cells of a body-centred cubic lattice, stand for the lobules: their cut by a slice is the
polygonal pattern that radiologists see where septa are thick or lobules differ in density. Lobules measure 10 to
25 mm across (Webb, Radiology 2006; 239: 322-338).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from vlm3d_ct.phantom.canvas import Points
from vlm3d_ct.phantom.grid import Number
from vlm3d_ct.phantom.rounded import sine

BEND = 0.16
"""Amplitude of the bending as a share of a lobule's diameter; its wavelength is about two diameters."""
HASH_STEPS = np.array([73_856_093, 19_349_663, 83_492_791])
"""Primes that spread neighbouring lobules over all values (Teschner et al., 2003)."""
HASH_VALUES = 4096


@dataclass(frozen=True)
class Lobules:
    """Where points lie in their lobules.

    Attributes:
        septum_mm: distance to the nearest septum.
        centre_mm: distance to the lobule's centre, where its bronchiole and artery are.
        value: a random number in 0..1 of the lobule.
    """

    septum_mm: Float32[np.ndarray, " n"]
    centre_mm: Float32[np.ndarray, " n"]
    value: Float32[np.ndarray, " n"]


def lobules(points: Points, rng: np.random.Generator, diameter_mm: Number, stretch: Number = 1.0) -> Lobules:
    """The lobules at some points.

    Args:
        points: of the canvas.
        rng: decides where the lattice lies, its bends and the lobules' values.
        diameter_mm: of a lobule; the lattice constant.
        stretch: how much taller than wide lobules are, for grids with thick slices.
    """
    scale = np.float32(1 / diameter_mm)
    z, y, x = points.z * np.float32(scale / stretch), points.y * scale, points.x * scale
    phases = rng.uniform(0, 2 * math.pi, size=3).astype(np.float32)
    shift = rng.uniform(0, 1, size=3).astype(np.float32)
    turn = rng.uniform(0, math.pi)
    c, s = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    bend = np.float32(BEND)
    v = z + bend * sine(np.float32(2.9) * y + np.float32(1.7) * x + phases[0]) + shift[0]
    by = y + bend * sine(np.float32(3.1) * x + np.float32(2.3) * z + phases[1])
    bx = x + bend * sine(np.float32(2.7) * y - np.float32(2.1) * z + phases[2])
    return _in_lattice((v, c * by + s * bx + shift[1], c * bx - s * by + shift[2]), diameter_mm, rng)


def _in_lattice(place: tuple[Float32[np.ndarray, " n"], ...], diameter_mm: Number, rng: np.random.Generator) -> Lobules:
    """The nearest point of the body-centred lattice, which is two cubic lattices, half a step apart."""
    corners = [np.rint(u) for u in place]
    centres = [np.floor(u) for u in place]
    half = np.float32(0.5)
    from_corner = [np.abs(u - i) for u, i in zip(place, corners, strict=True)]
    from_centre = [np.abs(u - i - half) for u, i in zip(place, centres, strict=True)]
    d2_corner, d2_centre = (d[0] ** 2 + d[1] ** 2 + d[2] ** 2 for d in (from_corner, from_centre))
    at_corner = d2_corner < d2_centre
    z, y, x = (np.where(at_corner, a, b) for a, b in zip(from_corner, from_centre, strict=True))
    square = half - np.maximum(np.maximum(z, y), x)
    hexagon = (np.float32(0.75) - (z + y + x)) * np.float32(1 / math.sqrt(3))
    key = at_corner * np.int64(rng.integers(2**31)) + np.int64(rng.integers(2**31))
    for i, j, step in zip(corners, centres, HASH_STEPS, strict=True):
        key ^= np.where(at_corner, i, j).astype(np.int64) * step
    key ^= key >> 13
    value = ((key * 1_274_126_177 >> 16) % HASH_VALUES).astype(np.float32) / np.float32(HASH_VALUES)
    size = np.float32(diameter_mm)
    return Lobules(np.minimum(square, hexagon) * size, np.sqrt(np.minimum(d2_corner, d2_centre)) * size, value)
