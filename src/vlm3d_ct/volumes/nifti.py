"""Reading and writing volumes and masks as ``.nii.gz``: every check that a scan must pass stands here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip
from jaxtyping import Int16, Shaped, UInt8
from numpy.typing import DTypeLike

from vlm3d_ct.errors import DataError
from vlm3d_ct.volumes.atomic import write_atomically
from vlm3d_ct.volumes.faults import fault
from vlm3d_ct.volumes.geometry import Geometry, geometry_of
from vlm3d_ct.volumes.nifti_file import NiftiFile, open_nifti, read_stored, scaling
from vlm3d_ct.volumes.stored import StoredScan
from vlm3d_ct.volumes.volume import RegionMask, Volume

AIR_BELOW_HU = -200
"""A CT shows air: a volume whose least value lies above this does not hold Hounsfield units."""
TISSUE_ABOVE_HU = 0
"""A CT shows bone or muscle: a volume whose greatest value lies below this does not hold Hounsfield units."""
SOFT_TISSUE_HU, AIR_OR_LUNG_HU, LEAST_SHARE = (-200, 200), (-1100, -600), 0.02
"""At least this share of a volume must lie in each of the two ranges."""
MAX_SLOPE, MAX_INTERCEPT_HU = 100.0, 32768.0
MAX_REGION = 20

_INT16 = np.iinfo(np.int16)
_MASK_REMEDY = "Make the mask again from this very volume."


def read_volume(path: Path, *, stored: StoredScan | None = None) -> Volume:
    """Read a CT volume, whatever its orientation, into canonical axes and Hounsfield units; see `Volume.scale`.

    A header that states a geometry speaks for itself: its slope and intercept are applied where set, ``stored`` is
    ignored. A blank one states neither, and then ``stored`` is applied, once. Values beyond int16 are clipped.

    Args:
        path: the file.
        stored: what a table says about it, where there is one.

    Raises:
        DataError: the file is missing, damaged, not one 3D volume, without usable geometry, or its values are not
            finite, all equal, or no Hounsfield units.
    """
    file = open_nifti(path)
    geometry = geometry_of(file, stored)
    applied = stored if geometry.blank else None
    slope, intercept = scaling(file) if applied is None else _table_scaling(file, applied)
    values = _to_hu(read_stored(file), slope, intercept, path)
    _check_hu(values, path)
    _check_histogram(values, path, by_table=applied is not None)
    where = "the header" if applied is None else applied.table.name
    scale = f"HU {_formula(slope, intercept, where)}; geometry by {geometry.basis}."
    if stored is not None and applied is None:
        scale += f" {stored.table.name} was not applied: a file with a true header is in HU."
    return Volume(
        voxels_hu=geometry.canonical(values),
        spacing_mm=geometry.spacing_mm,
        source=path,
        origin_mm=None if geometry.blank else geometry.origin_mm,
        scale=scale,
        stored=applied,
    )


def read_mask(
    path: Path, *, like: Volume | None = None, max_label: int = MAX_REGION, stored: StoredScan | None = None
) -> RegionMask:
    """Read a label mask into canonical axes.

    Args:
        path: the file.
        like: the volume that the mask belongs to; shape, spacing and position must be equal. Where it came from a
            blank header and the mask's is blank too, both lie along the same axes.
        max_label: the largest label that may occur, at most 255.
        stored: what a table says about a volume that could not be read; for a mask with a blank header, too.

    Raises:
        DataError: as for `read_volume`, and if the grid is not that of ``like``, or a label is not a whole number in
            0..``max_label``.
    """
    file = open_nifti(path)
    geometry = geometry_of(file, stored if like is None else like.stored)
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


def _table_scaling(file: NiftiFile, stored: StoredScan) -> tuple[float, float]:
    """Slope and intercept of the table, which must be the only ones."""
    own = scaling(file)
    if own != (1.0, 0.0):
        message = f"The header rescales the values, and {stored.table.name} would do so again."
        remedy = "Take the file from its source again; one of the two is not of this file."
        raise fault("rescaled-twice", file.path, "scl_slope, scl_inter", f"{own[0]:g}, {own[1]:g}", message, remedy)
    if not (0 < stored.slope <= MAX_SLOPE and abs(stored.intercept_hu) <= MAX_INTERCEPT_HU):  # NaN fails this too
        value = f"{stored.slope:g}, {stored.intercept_hu:g}"
        message = f"{stored.table.name} gives no usable slope and intercept for this file."
        remedy = "Correct the row from the DICOM series, or leave the case out."
        raise fault("rescale", file.path, "RescaleSlope, RescaleIntercept", value, message, remedy)
    return stored.slope, stored.intercept_hu


def _formula(slope: float, intercept: float, where: str) -> str:
    if (slope, intercept) == (1.0, 0.0):
        return "as stored"
    return f"= {slope:g} x stored {'-' if intercept < 0 else '+'} {abs(intercept):g} by {where}"


def _scaled(stored: Shaped[np.ndarray, "..."], slope: float, intercept: float) -> Shaped[np.ndarray, "..."]:
    if (slope, intercept) == (1.0, 0.0):
        return stored
    precision = np.float32 if stored.dtype.itemsize <= 2 else np.float64
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found not finite afterwards
        values: np.ndarray = np.multiply(stored, slope, dtype=precision)
        values += intercept
    return values


def _not_finite(count: int, size: int, path: Path) -> DataError:
    shown = f"{count} of {size} voxels"
    return fault("not-finite", path, "voxels", shown, "Voxels are NaN or infinite.", "Convert the scan again.")


def _to_hu(
    stored: Shaped[np.ndarray, "k j i"], slope: float, intercept: float, path: Path
) -> Int16[np.ndarray, "k j i"]:
    """Rescaled, rounded and clipped plane by plane: in one piece the floats would take twice the memory of the scan."""
    if (slope, intercept) == (1.0, 0.0) and np.can_cast(stored.dtype, np.int16):
        return stored.astype(np.int16, copy=False)
    hu = np.empty(stored.shape, dtype=np.int16)
    damaged = 0
    for plane, result in zip(stored, hu, strict=True):
        values = _scaled(plane, slope, intercept)
        if values.dtype.kind == "f":
            damaged += values.size - int(np.count_nonzero(np.isfinite(values)))
            values = np.rint(values)
        lowest = 0 if values.dtype.kind == "u" else _INT16.min
        with np.errstate(invalid="ignore"):  # NaN has no whole number; it is counted above
            result[:] = np.clip(values, lowest, min(_INT16.max, _greatest(values.dtype)))
    if damaged:
        raise _not_finite(damaged, hu.size, path)
    return hu


def _greatest(dtype: np.dtype[Any]) -> int:
    return int(np.iinfo(dtype).max) if dtype.kind in "iu" else _INT16.max


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


def _check_histogram(values: Int16[np.ndarray, "k j i"], path: Path, *, by_table: bool) -> None:
    """Refuse values that lie in the wrong place: moved by a table's row, or never moved from what a scanner stores.

    Least and greatest value do not tell: padding and metal reach far. Values that were in HU already lose their soft
    tissue to a row, and values that were left too high have no air. 0.48-0.61 and 0.30-0.37 of three real scans lie
    there.
    """
    told = "With the table's slope and intercept" if by_table else "With its header's slope and intercept"
    remedy = (
        "Check the row of this file: its values may be in HU already, or the row may be of another file."
        if by_table
        else "Apply slope and intercept exactly once: scanners often store HU + 1024."
    )
    for name, (low, high) in (("soft tissue", SOFT_TISSUE_HU), ("air or lung", AIR_OR_LUNG_HU)):
        share = np.count_nonzero((values >= low) & (values <= high)) / values.size
        if share < LEAST_SHARE:
            shown = f"{share:.2%} of the voxels in {low}..{high}"
            message = f"{told} the volume shows no {name}, so these are no HU."
            raise fault("not-hu", path, "voxels", shown, message, remedy)


def _to_labels(values: Shaped[np.ndarray, "k j i"], max_label: int, path: Path) -> UInt8[np.ndarray, "k j i"]:
    if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
        raise _not_finite(finite.size - int(np.count_nonzero(finite)), finite.size, path)
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
