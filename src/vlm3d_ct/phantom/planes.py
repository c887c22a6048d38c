"""Axial, coronal and sagittal stacks of a patient, and their slices as pictures."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8
from PIL import Image

from vlm3d_ct.phantom.acquisition import Acquisition, centred_grid
from vlm3d_ct.phantom.grid import Grid, Number, Triple

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
"""In the order of the axis (z, y, x) that the stack runs along: to the head, to the back, to the patient's left."""


def stack_grid(
    plane: Plane, acquisition: Acquisition, position_mm: Number, *, slices: int, slice_mm: float, pixels: int
) -> Grid:
    """Slices around a position on the stack's axis, over the field of view; its longer side has ``pixels`` pixels."""
    axis = PLANES.index(plane)
    extent = [acquisition.view_z_mm, acquisition.view_xy_mm, acquisition.view_xy_mm]
    pixel = max(extent[:axis] + extent[axis + 1 :]) / pixels
    spacing, shape, centre = [pixel] * 3, [round(length / pixel) for length in extent], [*acquisition.view_centre_mm]
    spacing[axis], shape[axis], centre[axis] = slice_mm, slices, position_mm
    place: Triple = (centre[0], centre[1], centre[2])
    return centred_grid(place, (spacing[0], spacing[1], spacing[2]), (shape[0], shape[1], shape[2]))


def positions(plane: Plane, grid: Grid) -> Float32[np.ndarray, " n"]:
    """Where the slices of a stack are on its axis, in mm."""
    return (grid.z[:, 0, 0], grid.y[0, :, 0], grid.x[0, 0, :])[PLANES.index(plane)]


def as_pictures(plane: Plane, voxels: Shaped[np.ndarray, "z y x"]) -> Shaped[np.ndarray, "n r c"]:
    """A stack's slices as they are looked at: head or front on top, the patient's right or front on the left."""
    stack = np.moveaxis(voxels, PLANES.index(plane), 0)
    return stack if plane == "axial" else stack[:, ::-1]


def enlarge(grey: UInt8[np.ndarray, "r c"], width: int, height: int) -> UInt8[np.ndarray, "r2 c2"]:
    """The picture at this size, undistorted: centred on black where its form is another."""
    rows, columns = grey.shape
    scale = min(width / columns, height / rows)
    size = (min(width, round(columns * scale)), min(height, round(rows * scale)))
    large = np.zeros((height, width), dtype=np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    resized = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC))
    large[top : top + size[1], left : left + size[0]] = resized
    return large


def enlarge_mask(mask: Bool[np.ndarray, "r c"], width: int, height: int) -> UInt8[np.ndarray, "r2 c2"]:
    """0 or 255 at this size, with the same placement as `enlarge`."""
    smooth = enlarge(mask.astype(np.uint8) * np.uint8(255), width, height)
    return np.where(smooth >= 128, np.uint8(255), np.uint8(0))


def to_grey(hu: Float32[np.ndarray, "r c"], window: tuple[float, float]) -> UInt8[np.ndarray, "r c"]:
    """Grey values 0..255 of a window (centre, width) in HU."""
    centre, width = window
    grey = np.clip((hu - np.float32(centre - width / 2)) * np.float32(255 / width), 0, 255)
    return np.asarray(np.rint(grey), dtype=np.uint8)


def jpeg(grey: UInt8[np.ndarray, "r c"], quality: int, *, colour: bool) -> bytes:
    """The picture as JPEG, grey or as grey RGB."""
    picture = Image.fromarray(grey)
    buffer = io.BytesIO()
    (picture.convert("RGB") if colour else picture).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
