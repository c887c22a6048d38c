"""Functions that give the same float32 on every processor.

NumPy's single-precision sine, exponential and power differ in their last digit between processors with other vector
units, and a matrix product sums in another order. Computed in double precision and then rounded, two results differ
only where a double-precision error of 1e-16 crosses a boundary between two floats, about once in 10^9 values. Sums,
products and square roots are exact everywhere and need none of this.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

Array = Float32[np.ndarray, "..."]


def sine(radians: Array) -> Array:
    """Of angles in radians."""
    return np.asarray(np.sin(radians, dtype=np.float64), dtype=np.float32)


def cosine(radians: Array) -> Array:
    """Of angles in radians."""
    return np.asarray(np.cos(radians, dtype=np.float64), dtype=np.float32)


def exponential(exponent: Array) -> Array:
    """Of natural base."""
    return np.asarray(np.exp(exponent, dtype=np.float64), dtype=np.float32)


def power(base: Array, exponent: float | int) -> Array:
    """Of bases that are not negative."""
    return np.asarray(np.power(base, float(exponent), dtype=np.float64), dtype=np.float32)


def angle(across: Array, along: Array) -> Array:
    """The angle in radians, -pi to pi, between the direction ``along`` and a point."""
    return np.asarray(np.arctan2(across, along, dtype=np.float64), dtype=np.float32)


def product(rows: Array, columns: Array) -> Array:
    """Of two matrices, or of stacks of them."""
    return np.asarray(rows.astype(np.float64) @ columns.astype(np.float64), dtype=np.float32)
