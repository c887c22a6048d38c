"""What a scanner makes of a clean picture: its kernel's sharpness, noise of the kernel's texture, stored integers."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32, Int16

from vlm3d_ct.phantom.acquisition import Acquisition, Kernel
from vlm3d_ct.phantom.grid import Field, Grid
from vlm3d_ct.phantom.patient import Patient

HU_RANGE = (-1024, 3071)
"""What a scanner stores."""
GRAINS: dict[Kernel, tuple[float, float]] = {"soft": (1.0, 2.0), "standard": (0.45, 1.0), "lung": (-0.3, 1.0)}
"""Noise is white noise filtered along both axes with taps (a, b, a): coarse grain, fine grain, finer than white."""
SHARPNESS: dict[Kernel, float] = {"soft": -0.35, "standard": 0.0, "lung": 0.9}
"""How much of what a 3x3 blur would take away is taken away (below 0) or put on top (above 0)."""
RESOLVED_MM = 1.5
"""A kernel's sharpness is seen where voxels are smaller than this."""
CENTRAL_RISE = 0.35
"""How much noisier the centre of the view is than its edge, relative to the mean: more tissue lies around it."""
SHOULDER_RISE = {"up": 0.25, "down": 0.7}
"""How much noisier slices through the shoulders are, by where the arms are."""
SHOULDERS_MM = (60.0, 100.0)
"""Heights between which a chest becomes shoulders."""


def grain(rng: np.random.Generator, shape: tuple[int, int], kernel: Kernel) -> Float32[np.ndarray, "y x"]:
    """Noise of mean 0 and standard deviation 1 with a kernel's texture.

    It is nearly Gaussian: a weighted sum of 18 uniform numbers, which are drawn three times as fast.
    """
    outer, inner = (np.float32(tap) for tap in GRAINS[kernel])
    white = _white(rng, (shape[0] + 2, shape[1] + 2))
    rows = white[:-2] + white[2:]
    rows *= outer
    rows += inner * white[1:-1]
    noise: Float32[np.ndarray, "y x"] = rows[:, :-2] + rows[:, 2:]
    noise *= outer
    noise += inner * rows[:, 1:-1]
    noise *= np.float32(1 / (2 * outer**2 + inner**2))
    return noise


def _white(rng: np.random.Generator, shape: tuple[int, int]) -> Float32[np.ndarray, "y x"]:
    """Independent numbers of mean 0 and variance 1, each the sum of two uniform ones."""
    size = shape[0] * shape[1]
    uniform = rng.bit_generator.random_raw((size + 1) // 2).view(np.uint16)  # four of 16 bits in a word
    white: Float32[np.ndarray, " n"] = uniform[:size].astype(np.float32)
    white += uniform[size : 2 * size]
    white -= np.float32(65535)
    white *= np.float32(math.sqrt(6) / 65536)
    return white.reshape(shape)


def sharpen(plane: Float32[np.ndarray, "y x"], amount: float) -> Float32[np.ndarray, "y x"]:
    """The plane with its fine detail (what a 3x3 binomial blur removes) times ``1 + amount``; the rim stays."""
    blurred = plane[:-2] + plane[2:]
    blurred += 2 * plane[1:-1]
    inner = blurred[:, :-2] + blurred[:, 2:]
    inner += 2 * blurred[:, 1:-1]
    inner *= np.float32(-amount / 16)
    result = plane.copy()
    result[1:-1, 1:-1] *= np.float32(1 + amount)
    result[1:-1, 1:-1] += inner
    return result


def noise_map(acquisition: Acquisition, grid: Grid, patient: Patient) -> tuple[Field, Field]:
    """Standard deviation of the noise: a factor for each slice, and HU for each place in the plane.

    It follows the patient's build and the place only, never what is abnormal.
    """
    _, y, x = acquisition.view_centre_mm
    radius2 = ((grid.y - np.float32(y)) ** 2 + (grid.x - np.float32(x)) ** 2)[0] / np.float32(
        (acquisition.view_xy_mm / 2) ** 2
    )
    in_plane = np.float32(acquisition.noise_hu) * (1 + np.float32(CENTRAL_RISE) * (np.float32(0.5) - radius2))
    low, high = SHOULDERS_MM
    shoulders = np.clip((grid.z[:, 0, 0] - np.float32(low)) / np.float32(high - low), 0, 1)
    return 1 + np.float32(SHOULDER_RISE[patient.arms]) * shoulders, np.maximum(in_plane, np.float32(1.0))


class Scanner:
    """Turns clean slices into stored ones."""

    def __init__(self, acquisition: Acquisition, patient: Patient, rng: np.random.Generator):
        grid = acquisition.grid
        self._acquisition = acquisition
        self._rng = rng
        self._by_slice, self._in_plane = noise_map(acquisition, grid, patient)
        self._outside = acquisition.outside(grid)

    def store(self, hu: Float32[np.ndarray, "y x"], index: int) -> Int16[np.ndarray, "y x"]:
        """Slice ``index`` as the scanner stores it, in HU: slices are asked for from the first to the last."""
        kernel = self._acquisition.kernel
        if SHARPNESS[kernel] and self._acquisition.spacing_mm[2] < RESOLVED_MM:
            hu = sharpen(hu, SHARPNESS[kernel])
        noisy = grain(self._rng, (hu.shape[0], hu.shape[1]), kernel)
        noisy *= self._in_plane * self._by_slice[index]
        noisy += hu
        np.rint(noisy, out=noisy)
        np.clip(noisy, *HU_RANGE, out=noisy)
        stored: Int16[np.ndarray, "y x"] = noisy.astype(np.int16)
        if self._acquisition.padding_hu is not None:
            stored[self._outside] = self._acquisition.padding_hu
        return stored
