"""From a file's own axes to canonical LPS: which axis is which, voxel spacing, position of the first voxel."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped

from vlm3d_ct.errors import DataError
from vlm3d_ct.volumes.faults import fault
from vlm3d_ct.volumes.nifti_file import NiftiFile

MIN_SPACING_MM, MAX_SPACING_MM = 0.1, 20.0
MAX_TILT_DEGREES = 20.0
"""An oblique scan is taken along its nearest axes up to this angle."""

_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
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
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def canonical(self, stored: Shaped[np.ndarray, "k j i"]) -> Shaped[np.ndarray, "z y x"]:
        """The stored array in canonical axes; contiguous, a view where nothing has to move."""
        turned = stored.transpose(self.axes)
        return np.ascontiguousarray(turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)])


def geometry_of(file: NiftiFile) -> Geometry:
    """The geometry that a header states.

    Raises:
        DataError: no orientation, non-finite or contradictory numbers, a spacing outside 0.1..20 mm, or a tilt of more
            than 20 degrees.
    """
    affine = _affine_lps(file)
    columns = affine[:, :3]
    spacing_ijk = np.linalg.norm(columns, axis=0)
    for axis, spacing in enumerate(spacing_ijk):
        _check_spacing(file, f"affine axis {'ijk'[axis]}", float(spacing))
    cosines = columns / spacing_ijk
    # order[d] is the stored axis i, j or k that runs along direction d of (x, y, z)
    order = max(permutations(range(3)), key=lambda p: float(sum(abs(cosines[d, p[d]]) for d in range(3))))
    aligned = np.array([cosines[d, order[d]] for d in range(3)])
    tilt = float(np.degrees(np.arccos(np.clip(np.abs(aligned).min(), 0, 1))))
    if tilt > MAX_TILT_DEGREES:
        value = f"{tilt:.1f} degrees"
        remedy = f"Resample the scan to axes within {MAX_TILT_DEGREES:g} degrees of the patient's."
        raise fault(
            "oblique", file.path, "affine", value, "The scan is tilted too far against the patient's axes.", remedy
        )
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
    )


def _zyx(xyz: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    x, y, z = xyz
    return z, y, x


def _affine_lps(file: NiftiFile) -> Float64[np.ndarray, "3 4"]:
    header = file.header
    for axis in range(1, 4):
        _check_spacing(file, f"pixdim[{axis}]", float(header["pixdim"][axis]))
    if not (int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0):
        message = "The header states no orientation, so neither sides nor Hounsfield units can be trusted."
        remedy = "Use the corrected files (train_fixed, valid_fixed of CT-RATE), or convert from DICOM again."
        raise fault("no-orientation", file.path, "sform_code, qform_code", "0, 0", message, remedy)
    try:
        with np.errstate(all="ignore"):  # what is not finite is refused below
            affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except ValueError:
        raise _not_finite(file, "the quaternion is no rotation") from None
    if not np.isfinite(affine).all():
        raise _not_finite(file, np.array2string(affine[:3], precision=3).replace("\n", ""))
    lps: Float64[np.ndarray, "3 4"] = affine[:3] * _RAS_TO_LPS[:, None]
    return lps


def _not_finite(file: NiftiFile, value: str) -> DataError:
    message = "The affine is not a finite matrix, so the voxels have no place in the patient."
    return fault("affine", file.path, "affine", value, message, _REMEDY)


def _check_spacing(file: NiftiFile, field: str, spacing: float) -> None:
    if not MIN_SPACING_MM <= spacing <= MAX_SPACING_MM:  # NaN fails this too
        message = f"A voxel spacing must lie within {MIN_SPACING_MM:g} and {MAX_SPACING_MM:g} mm."
        raise fault("spacing", file.path, field, f"{spacing:g} mm", message, _REMEDY)
