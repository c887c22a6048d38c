"""How a patient is scanned: field of view, slices, kernel, dose, table, padding, orientation, header.

An acquisition is drawn from a random stream of its own, so that it tells nothing about the findings.

| | training | hard |
|---|---|---|
| contrast phase | plain, venous | arterial |
| field of view in plane, mm | 307 to 435 | 450 to 512 |
| voxels in plane at full size, mm | 0.60 to 0.85 | 0.88 to 1.0 |
| extent along z, mm | 293 to 314 | 274 to 290 |
| distance of slices at full size, mm | 0.75 to 3 | 4 or 5 |
| thickness of slices at full size, mm | 0.75 to 3.2 | 4 to 5 |
| thickness of slices at small size, in their distances | 1 to 1.8 | 2.1 to 2.5 |
| kernel | soft, standard | lung |
| noise at full size, HU | soft 8 to 18, standard 12 to 26 | lung 36 to 60 |
| noise at small size, HU | soft 6 to 12, standard 8 to 18 | lung 24 to 36 |
| axes of the file | LPS, RAS, LAS, RPS | LPI, RAI, PSL |
| quality of a slice's JPEG | 85 to 95 | 55 to 75 |

Table and padding are drawn alike. The reader brings every file to the same axes and clips the padding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32

from vlm3d_ct.phantom.grid import Grid, Triple
from vlm3d_ct.phantom.patient import Patient, Phase

Size = Literal["small", "full"]
Kernel = Literal["soft", "standard", "lung"]
Header = Literal["true", "blank"]

SMALL_SHAPE = (32, 96, 96)
FULL_IN_PLANE = 512
PADDINGS_HU: tuple[int | None, ...] = (None, None, -1024, -2048, -8192)
TABLE_SHARE = 0.9
SKIN_MARGIN_MM = 8.0
"""From the skin to the edge of the narrowest field of view."""
SAMPLED_MM = 2.0
"""Slices further apart than this are averaged over three painted planes."""


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """What an acquisition is drawn from; pairs are bounds, longer tuples are choices of equal chance.

    Attributes:
        phases: of contrast medium.
        view_xy_mm: width of the field of view.
        view_factor: width of the field of view relative to the patient, within ``view_xy_mm``; None: any.
        view_z_mm: extent of the scan, at full size cut to whole slices.
        slice_mm: distances of slices at full size.
        most_thickness_mm, overlap: a slice is up to ``overlap`` times as thick as their distance, and no thicker.
        small_overlap: how many times as thick as their distance slices are at small size.
        noise_hu: standard deviation by kernel, at small and at full size.
        orientations: directions of the file's axes.
        jpeg_quality: of 2D slices.
    """

    phases: tuple[Phase, ...]
    view_xy_mm: tuple[float, float]
    view_factor: tuple[float, float] | None
    view_z_mm: tuple[float, float]
    slice_mm: tuple[float, ...]
    most_thickness_mm: float
    overlap: float
    small_overlap: tuple[float, float]
    noise_hu: dict[Size, dict[Kernel, tuple[float, float]]]
    orientations: tuple[str, ...]
    jpeg_quality: tuple[int, int]


TRAINING = Ranges(
    phases=("plain", "venous"),
    view_xy_mm=(307.2, 435.0),
    view_factor=(1.0, 1.12),
    view_z_mm=(296.0, 314.0),
    slice_mm=(0.75, 0.8, 1.0, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0),
    most_thickness_mm=3.2,
    overlap=1.5,
    small_overlap=(1.0, 1.8),
    noise_hu={
        "small": {"soft": (6.0, 12.0), "standard": (8.0, 18.0)},
        "full": {"soft": (8.0, 18.0), "standard": (12.0, 26.0)},
    },
    orientations=(*("LPS",) * 7, "RAS", "LAS", "RPS"),
    jpeg_quality=(85, 95),
)
HARD = Ranges(
    phases=("arterial",),
    view_xy_mm=(450.0, 512.0),
    view_factor=None,
    view_z_mm=(278.0, 290.0),
    slice_mm=(4.0, 5.0),
    most_thickness_mm=5.0,
    overlap=1.0,
    small_overlap=(2.1, 2.5),
    noise_hu={"small": {"lung": (24.0, 36.0)}, "full": {"lung": (36.0, 60.0)}},
    orientations=("LPI", "RAI", "PSL"),
    jpeg_quality=(55, 75),
)


def ranges(hard: bool) -> Ranges:
    """The ranges of the training or of the hard test set; no range is in both."""
    return HARD if hard else TRAINING


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """One scan's settings.

    Attributes:
        view_z_mm, view_xy_mm: extent of the scan.
        view_centre_mm: its centre in the patient's frame.
        shape: voxels (z, y, x).
        slice_thickness_mm: what a slice averages over along z; at least the distance of slices.
        kernel: of the reconstruction: soft ones smooth, the lung kernel enhances edges and noise.
        noise_hu: standard deviation of the noise halfway between the centre and the edge of the view.
        padding_hu: value outside the scanned circle; None where the scanner reconstructed there too.
        table: whether the patient's table is in the picture.
        orientation: directions in which the file's axes i, j, k run, such as LPS: left, posterior, superior.
        header: ``true``, or ``blank``: no geometry, and stored values instead of HU.
    """

    view_z_mm: float
    view_xy_mm: float
    view_centre_mm: Triple
    shape: tuple[int, int, int]
    slice_thickness_mm: float
    kernel: Kernel
    noise_hu: float
    padding_hu: int | None
    table: bool
    orientation: str
    header: Header

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of voxel centres along (z, y, x)."""
        z, y, x = self.shape
        return self.view_z_mm / z, self.view_xy_mm / y, self.view_xy_mm / x

    @property
    def grid(self) -> Grid:
        """The scan's voxels."""
        return centred_grid(self.view_centre_mm, self.spacing_mm, self.shape)

    def outside(self, grid: Grid) -> Bool[np.ndarray, "y x"]:
        """Where an axial slice of a grid lies outside the scanned circle."""
        _, y, x = self.view_centre_mm
        distance2: Float32[np.ndarray, "y x"] = ((grid.y - np.float32(y)) ** 2 + (grid.x - np.float32(x)) ** 2)[0]
        return np.asarray(distance2 > (self.view_xy_mm / 2) ** 2)

    @property
    def planes_per_slice(self) -> int:
        """How many planes are painted for a slice; an odd number.

        The small size has one: its slices are far thicker than anything on them, and its findings drawn to be seen so.
        """
        return 3 if self.shape != SMALL_SHAPE and self.spacing_mm[0] > SAMPLED_MM else 1

    @property
    def intercept_hu(self) -> int:
        """What is added to a stored value under a blank header."""
        return -8192 if self.padding_hu == -8192 else -1024


def centred_grid(centre_mm: Triple, spacing_mm: Triple, shape: tuple[int, int, int]) -> Grid:
    """The grid of these voxels around a centre."""
    corner = [c - step * (size - 1) / 2 for c, step, size in zip(centre_mm, spacing_mm, shape, strict=True)]
    return Grid(origin_mm=(corner[0], corner[1], corner[2]), spacing_mm=spacing_mm, shape=shape)


def draw_acquisition(
    rng: np.random.Generator, patient: Patient, size: Size, *, hard: bool = False, header: Header = "true"
) -> Acquisition:
    """A random acquisition of a patient: it depends on the patient's build, never on the findings.

    Args:
        rng: a stream of its own.
        patient: who is scanned.
        size: ``small`` 32x96x96 voxels of about 10x4x4 mm, ``full`` 512x512 in plane.
        hard: draw from the ranges that are kept for the hard test set.
        header: of the file; a blank one goes with the axes LPS, because it cannot state others.
    """
    allowed = ranges(hard)
    width = _view_width(rng, patient, allowed)
    length = float(rng.uniform(*allowed.view_z_mm))
    step, thickness_factor = float(rng.choice(allowed.slice_mm)), float(rng.uniform(1.0, allowed.overlap))
    if size == "small":
        shape, thickness = SMALL_SHAPE, length / SMALL_SHAPE[0] * float(rng.uniform(*allowed.small_overlap))
    else:
        count = math.floor(length / step)
        shape, length = (count, FULL_IN_PLANE, FULL_IN_PLANE), count * step
        thickness = max(step, min(step * thickness_factor, allowed.most_thickness_mm))
    noise = allowed.noise_hu[size]
    kernel = list(noise)[rng.integers(len(noise))]
    orientation = allowed.orientations[rng.integers(len(allowed.orientations))]
    return Acquisition(
        view_z_mm=length,
        view_xy_mm=width,
        view_centre_mm=(float(rng.uniform(-3, 3)), float(rng.uniform(-5, 5)), float(rng.uniform(-3, 3))),
        shape=shape,
        slice_thickness_mm=thickness,
        kernel=kernel,
        noise_hu=float(rng.uniform(*noise[kernel])),
        padding_hu=PADDINGS_HU[rng.integers(len(PADDINGS_HU))],
        table=bool(rng.random() < TABLE_SHARE),
        orientation=orientation if header == "true" else "LPS",
        header=header,
    )


def _view_width(rng: np.random.Generator, patient: Patient, allowed: Ranges) -> float:
    low, high = allowed.view_xy_mm
    if allowed.view_factor is None:
        return float(rng.uniform(low, high))
    fitting = 2 * (patient.body_half_width + SKIN_MARGIN_MM) * rng.uniform(*allowed.view_factor)
    return float(min(max(fitting, low), high))
