"""From a file's own axes to canonical LPS: which axis is which, voxel spacing, position of the first voxel."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped
from nibabel.spatialimages import HeaderDataError

from vlm3d_ct.errors import DataError
from vlm3d_ct.volumes.faults import fault
from vlm3d_ct.volumes.nifti_file import NiftiFile
from vlm3d_ct.volumes.stored import StoredScan

MIN_SPACING_MM, MAX_SPACING_MM = 0.1, 20.0
MAX_TILT_DEGREES = 20.0
"""An oblique scan is taken along its nearest axes up to this angle."""

_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
_NO_QFORM = (ValueError, HeaderDataError)
"""What nibabel raises where quaternion, spacing and handedness make no matrix."""
_REMEDY = "Write the file again with a true header (sform or qform), for example from the DICOM series."


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a file's voxels lie in the patient, in canonical order (z, y, x) of LPS.

    Attributes:
        shape: voxels along (z, y, x).
        spacing_mm: distance of voxel centres along (z, y, x).
        origin_mm: position of the canonical first voxel's centre, (z, y, x) in LPS.
        axes: for each of (z, y, x) the axis of the stored array (k, j, i) that it comes from.
        flips: whether that axis is reversed.
        basis: where this was read, in a few words.
        blank: the file itself states none of it, so that `basis` is a table.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    basis: str
    blank: bool

    def canonical(self, stored: Shaped[np.ndarray, "k j i"]) -> Shaped[np.ndarray, "z y x"]:
        """The stored array in canonical axes; contiguous, a view where nothing has to move."""
        turned = stored.transpose(self.axes)
        return np.ascontiguousarray(turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)])


def is_blank(file: NiftiFile) -> bool:
    """Whether a header says nothing about the patient: no orientation code, or the identity that stands for one.

    Writers that know no geometry leave voxels of exactly 1 mm from an origin at 0, along R, A, S (nibabel's default) or
    along L, P, S (ITK's).
    """
    header = file.header
    if not (int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0):
        return True
    if not np.array_equal(header["pixdim"][1:4], (1, 1, 1)):
        return False
    try:
        with np.errstate(all="ignore"):  # what is not finite is no identity
            affine = header.get_best_affine()
            return any(np.array_equal(affine, identity) for identity in (np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])))
    except _NO_QFORM:
        return False


def geometry_of(file: NiftiFile, stored: StoredScan | None = None) -> Geometry:
    """The geometry that a header states; that of ``stored`` where the header is blank.

    Raises:
        DataError: no orientation, non-finite or contradictory numbers, a spacing outside 0.1..20 mm, or a tilt of more
            than 20 degrees.
    """
    for axis in range(1, 4):
        _check_spacing(file, f"pixdim[{axis}]", float(file.header["pixdim"][axis]))
    blank = is_blank(file)
    affine, basis = _affine_of_table(file, stored) if blank else _affine_of_header(file)
    columns = affine[:, :3]
    spacing_ijk = np.linalg.norm(columns, axis=0)
    for axis, spacing in enumerate(spacing_ijk):
        _check_spacing(file, f"affine axis {'ijk'[axis]}", float(spacing))
    order, aligned = _nearest_axes(file, columns / spacing_ijk)
    first = np.zeros(3)  # index (i, j, k) of the canonical first voxel
    for d in range(3):
        if aligned[d] < 0:
            first[order[d]] = file.shape_ijk[order[d]] - 1
    origin = affine @ np.append(first, 1.0)
    return Geometry(
        shape=_zyx(tuple(file.shape_ijk[order[d]] for d in range(3))),
        spacing_mm=_zyx(tuple(float(spacing_ijk[order[d]]) for d in range(3))),
        origin_mm=_zyx(tuple(float(v) for v in origin)),
        axes=_zyx(tuple(2 - order[d] for d in range(3))),
        flips=_zyx(tuple(bool(aligned[d] < 0) for d in range(3))),
        basis=basis,
        blank=blank,
    )


def _nearest_axes(
    file: NiftiFile, cosines: Float64[np.ndarray, "3 3"]
) -> tuple[tuple[int, ...], Float64[np.ndarray, " 3"]]:
    """For each direction of (x, y, z) the stored axis i, j or k that runs along it, and the cosine between them."""
    order = max(permutations(range(3)), key=lambda p: float(sum(abs(cosines[d, p[d]]) for d in range(3))))
    aligned = np.array([cosines[d, order[d]] for d in range(3)])
    tilt = float(np.degrees(np.arccos(np.clip(np.abs(aligned).min(), 0, 1))))
    if tilt > MAX_TILT_DEGREES:
        value = f"{tilt:.1f} degrees"
        remedy = f"Resample the scan to axes within {MAX_TILT_DEGREES:g} degrees of the patient's."
        raise fault(
            "oblique", file.path, "affine", value, "The scan is tilted too far against the patient's axes.", remedy
        )
    return order, aligned


def _zyx(xyz: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    x, y, z = xyz
    return z, y, x


def _affine_of_table(file: NiftiFile, stored: StoredScan | None) -> tuple[Float64[np.ndarray, "3 4"], str]:
    """The affine of a file without one: spacing and axes by its table, the origin unknown (0)."""
    if stored is None:
        codes = f"{int(file.header['sform_code'])}, {int(file.header['qform_code'])}"
        message = "The header states no orientation, so neither sides nor Hounsfield units can be trusted."
        remedy = (
            "Use the corrected files (train_fixed, valid_fixed of CT-RATE), give the table of metadata that has a row "
            "for this file, or convert from DICOM again."
        )
        raise fault("no-orientation", file.path, "sform_code, qform_code", codes, message, remedy)
    if stored.spacing_mm is None:
        message = f"The header is blank and {stored.table.name} gives no spacing (XYSpacing, ZSpacing) for this file."
        remedy = "Fill in the spacing from the DICOM series, use the corrected file, or leave the case out."
        raise fault("no-spacing", file.path, "ZSpacing", "none", message, remedy)
    for axis, spacing in zip("zyx", stored.spacing_mm, strict=True):
        _check_spacing(file, f"{axis} spacing of {stored.table.name}", spacing)
    row, column = np.array(stored.orientation[:3]), np.array(stored.orientation[3:])
    cosines = np.stack([row, column, np.cross(row, column)], axis=1)
    if not np.allclose(cosines.T @ cosines, np.eye(3), atol=1e-3):  # NaN fails this too
        message = f"The directions that {stored.table.name} gives are not two unit vectors at a right angle."
        remedy = "Correct the row (ImageOrientationPatient), or leave the case out."
        raise fault("affine", file.path, "ImageOrientationPatient", str(stored.orientation), message, remedy)
    affine = np.concatenate([cosines * np.array(stored.spacing_mm[::-1]), np.zeros((3, 1))], axis=1)
    return affine, f"{stored.table.name}, because the header is blank"


def _affine_of_header(file: NiftiFile) -> tuple[Float64[np.ndarray, "3 4"], str]:
    """The sform; the qform where there is no sform, or where that is not finite: each states the whole geometry."""
    header = file.header
    found: list[tuple[str, Any]] = []
    try:
        with np.errstate(all="ignore"):  # what is not finite is refused below
            if int(header["sform_code"]) > 0:
                found.append(("the header's sform", header.get_sform()))
            if int(header["qform_code"]) > 0:
                found.append(("the header's qform", header.get_qform()))
    except _NO_QFORM as error:
        if not found:
            raise _not_finite(file, f"no qform: {error}") from None
    for basis, affine in found:
        if np.isfinite(affine).all():
            lps = np.asarray(affine, dtype=np.float64)[:3] * _RAS_TO_LPS[:, None]
            return lps, basis if basis == found[0][0] else f"{basis}, because the sform is not finite"
    raise _not_finite(file, np.array2string(np.asarray(found[0][1])[:3], precision=3).replace("\n", ""))


def _not_finite(file: NiftiFile, value: str) -> DataError:
    message = "The affine is not a finite matrix, so the voxels have no place in the patient."
    return fault("affine", file.path, "affine", value, message, _REMEDY)


def _check_spacing(file: NiftiFile, field: str, spacing: float) -> None:
    if not MIN_SPACING_MM <= spacing <= MAX_SPACING_MM:  # NaN fails this too
        message = f"A voxel spacing must lie within {MIN_SPACING_MM:g} and {MAX_SPACING_MM:g} mm."
        raise fault("spacing", file.path, field, f"{spacing:g} mm", message, _REMEDY)
