"""Reading and writing volumes and masks as ``.nii.gz``: every check that a scan must pass stands here."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip
from jaxtyping import Int16, Shaped, UInt8
from numpy.typing import DTypeLike

from vlm3d_ct.volumes.atomic import write_atomically
from vlm3d_ct.volumes.faults import fault
from vlm3d_ct.volumes.geometry import Geometry, geometry_of
from vlm3d_ct.volumes.nifti_file import open_nifti, read_stored, scaling
from vlm3d_ct.volumes.volume import RegionMask, Volume

AIR_BELOW_HU = -200
"""A CT shows air: a volume whose least value lies above this does not hold Hounsfield units."""
TISSUE_ABOVE_HU = 0
"""A CT shows bone or muscle: a volume whose greatest value lies below this does not hold Hounsfield units."""
MAX_REGION = 20

_INT16 = np.iinfo(np.int16)
_MASK_REMEDY = "Make the mask again from this very volume."


def read_volume(path: Path) -> Volume:
    """Read a CT volume, whatever its orientation, into canonical axes and Hounsfield units.

    The header's slope and intercept are applied where set; values beyond int16 are clipped.

    Raises:
        DataError: the file is missing, damaged, not one 3D volume, without usable geometry, or its values are not
            finite, all equal, or no Hounsfield units.
    """
    file = open_nifti(path)
    geometry = geometry_of(file)
    values = _to_hu(_scaled(read_stored(file), *scaling(file)), path)
    _check_hu(values, path)
    return Volume(
        voxels_hu=geometry.canonical(values), spacing_mm=geometry.spacing_mm, source=path, origin_mm=geometry.origin_mm
    )


def read_mask(path: Path, *, like: Volume | None = None, max_label: int = MAX_REGION) -> RegionMask:
    """Read a label mask into canonical axes.

    Args:
        path: the file.
        like: the volume that the mask belongs to; shape, spacing and position must be equal.
        max_label: the largest label that may occur, at most 255.

    Raises:
        DataError: as for `read_volume`, and if the grid is not that of ``like``, or a label is not a whole number in
            0..``max_label``.
    """
    file = open_nifti(path)
    geometry = geometry_of(file)
    if like is not None:
        _check_grid(geometry, like, path)
    labels = _to_labels(_scaled(read_stored(file), *scaling(file)), max_label, path)
    return RegionMask(labels=geometry.canonical(labels), source=path)


def write_nifti(
    path: Path, array: Shaped[np.ndarray, "z y x"], spacing_mm: tuple[float, float, float], dtype: DTypeLike
) -> None:
    """Write an array in canonical (z, y, x) axes with an LPS header, atomically; the same input gives the same bytes.

    Raises:
        ValueError: ``dtype`` cannot hold the values.
    """
    voxels = np.ascontiguousarray(array, dtype=dtype)
    if not np.array_equal(voxels, array):
        raise ValueError(f"{np.dtype(dtype)} cannot hold the values of {path.name}")
    z_mm, y_mm, x_mm = spacing_mm
    affine = np.diag([-x_mm, -y_mm, z_mm, 1.0])
    header = nib.Nifti1Header()
    header.set_data_shape(voxels.shape[::-1])
    header.set_data_dtype(voxels.dtype)
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner")
    header.set_xyzt_units("mm")
    header["vox_offset"] = 352
    content = header.binaryblock + bytes(4) + voxels.tobytes()
    write_atomically(path, [igzip.compress(content, compresslevel=1, mtime=0)])


def _scaled(stored: Shaped[np.ndarray, "k j i"], slope: float, intercept: float) -> Shaped[np.ndarray, "k j i"]:
    if (slope, intercept) == (1.0, 0.0):
        return stored
    precision = np.float32 if stored.dtype.itemsize <= 2 else np.float64
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found not finite afterwards
        values: np.ndarray = np.multiply(stored, slope, dtype=precision)
        values += intercept
    return values


def _check_finite(values: Shaped[np.ndarray, "k j i"], path: Path) -> None:
    if values.dtype.kind != "f":
        return
    finite = np.isfinite(values)
    if not finite.all():
        shown = f"{finite.size - np.count_nonzero(finite)} of {finite.size} voxels"
        raise fault("not-finite", path, "voxels", shown, "Voxels are NaN or infinite.", "Convert the scan again.")


def _to_hu(values: Shaped[np.ndarray, "k j i"], path: Path) -> Int16[np.ndarray, "k j i"]:
    _check_finite(values, path)
    if values.dtype.kind == "f":
        values = np.rint(values)
    if not np.can_cast(values.dtype, np.int16):
        values = np.clip(values, 0 if values.dtype.kind == "u" else _INT16.min, _INT16.max)
    return values.astype(np.int16, copy=False)


def _check_hu(values: Int16[np.ndarray, "k j i"], path: Path) -> None:
    least, greatest = int(values.min()), int(values.max())
    shown = f"{least}..{greatest}"
    if least == greatest:
        raise fault(
            "constant", path, "voxels", shown, "All voxels are equal: there is no scan.", "Convert the scan again."
        )
    remedy = (
        "Apply slope and intercept exactly once: files of CT-RATE's train_fixed and valid_fixed are in HU, those of "
        "train and valid are not."
    )
    if least > AIR_BELOW_HU:
        message = f"No voxel is air (below {AIR_BELOW_HU}), so these are no Hounsfield units."
        raise fault("not-hu", path, "voxels", shown, message, remedy)
    if greatest < TISSUE_ABOVE_HU:
        message = f"No voxel is tissue (above {TISSUE_ABOVE_HU}), so these are no Hounsfield units."
        raise fault("not-hu", path, "voxels", shown, message, remedy)


def _to_labels(values: Shaped[np.ndarray, "k j i"], max_label: int, path: Path) -> UInt8[np.ndarray, "k j i"]:
    _check_finite(values, path)
    least, greatest = values.min(), values.max()
    if least < 0 or greatest > max_label:
        wrong = greatest if greatest > max_label else least
        count = int(np.count_nonzero((values < 0) | (values > max_label)))
        message = f"Labels must lie within 0..{max_label}."
        remedy = "Give a mask of region ids (0 background), or map its ids to the region table first."
        raise fault("label-range", path, "voxels", f"{wrong:g} ({count} voxels outside)", message, remedy)
    labels = values.astype(np.uint8)
    if values.dtype.kind == "f" and not np.array_equal(labels, values):
        wrong = values[labels != values][0]
        remedy = "Write the mask as uint8; it may have been resampled without nearest neighbour."
        raise fault("label-fraction", path, "voxels", f"{wrong:g}", "Labels must be whole numbers.", remedy)
    return labels


def _check_grid(geometry: Geometry, like: Volume, path: Path) -> None:
    shape = like.voxels_hu.shape
    if geometry.shape != shape:
        value = f"{'x'.join(map(str, geometry.shape))} for {'x'.join(map(str, shape))} of {like.source.name}"
        raise fault("mask-shape", path, "dim", value, "The mask (z, y, x) is not on the volume's grid.", _MASK_REMEDY)
    if not np.allclose(geometry.spacing_mm, like.spacing_mm, rtol=0.01):
        value = f"{_mm(geometry.spacing_mm)} for {_mm(like.spacing_mm)} of {like.source.name}"
        raise fault("mask-grid", path, "spacing", value, "The mask's voxels are not those of the volume.", _MASK_REMEDY)
    if like.origin_mm is None:
        return
    distance = np.abs(np.subtract(geometry.origin_mm, like.origin_mm))
    if (distance > np.array(like.spacing_mm)).any():
        value = f"{_mm(geometry.origin_mm)} for {_mm(like.origin_mm)} of {like.source.name}"
        message = "The mask lies elsewhere or is flipped against the volume."
        raise fault("mask-grid", path, "first voxel (z, y, x)", value, message, _MASK_REMEDY)


def _mm(numbers: tuple[float, float, float]) -> str:
    return "(" + ", ".join(f"{number:.2f}" for number in numbers) + ") mm"
