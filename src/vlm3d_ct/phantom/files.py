"""Writing what a scan holds as ``.nii.gz``: any orientation with a true header, or stored values under a blank one.

Files are synced together, by the cohort, before they are listed.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip
from jaxtyping import Float64, Int16, Shaped, UInt8

from vlm3d_ct.phantom.acquisition import Acquisition
from vlm3d_ct.volumes.atomic import write_atomically

AXES = {"S": 0, "I": 0, "P": 1, "A": 1, "L": 2, "R": 2}
"""The canonical axis (z, y, x) that runs along or against each direction ..."""
AGAINST = frozenset("IAR")
"""... and the directions against it: canonical axes run to the head, to the back, to the patient's left."""
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_VOXEL_OFFSET = 352


def write_volume_file(path: Path, voxels_hu: Int16[np.ndarray, "z y x"], acquisition: Acquisition) -> None:
    """Write a scan as its acquisition says; under a blank header the intercept is taken off."""
    if acquisition.header == "blank":
        voxels_hu = voxels_hu - np.int16(acquisition.intercept_hu)
    _write(path, voxels_hu, acquisition)


def write_mask_file(path: Path, ids: UInt8[np.ndarray, "z y x"], acquisition: Acquisition) -> None:
    """Write region or lesion ids on the grid of the scan and under a header like its own."""
    _write(path, ids, acquisition)


def along(orientation: str, array: Shaped[np.ndarray, "z y x"]) -> Shaped[np.ndarray, "k j i"]:
    """A canonical array as it lies in a file whose axes i, j, k run in the directions of ``orientation``."""
    turned = array.transpose([AXES[letter] for letter in reversed(orientation)])
    flips = tuple(slice(None, None, -1 if letter in AGAINST else 1) for letter in reversed(orientation))
    return np.ascontiguousarray(turned[flips])


def affine_ras(acquisition: Acquisition) -> Float64[np.ndarray, "4 4"]:
    """From the file's voxel indices (i, j, k) to millimetres to the right, front and head, as NIfTI counts them."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    first = [*acquisition.grid.origin_mm]
    for column, letter in enumerate(acquisition.orientation):
        axis, backwards = AXES[letter], letter in AGAINST
        step = acquisition.spacing_mm[axis]
        if backwards:
            first[axis] += step * (acquisition.shape[axis] - 1)
        affine[2 - axis, column] = -step if backwards else step
    affine[:3, 3] = first[::-1]
    affine[:3] *= _LPS_TO_RAS[:, None]
    return affine


def _write(path: Path, array: Shaped[np.ndarray, "z y x"], acquisition: Acquisition) -> None:
    stored = along(acquisition.orientation, array)
    header = nib.Nifti1Header()
    header.set_data_shape(stored.shape[::-1])
    header.set_data_dtype(stored.dtype)
    if acquisition.header == "true":
        affine = affine_ras(acquisition)
        header.set_sform(affine, code="scanner")
        header.set_qform(affine, code="scanner")
        header.set_xyzt_units("mm")
    header["vox_offset"] = _VOXEL_OFFSET
    content = header.binaryblock + bytes(4) + stored.tobytes()
    write_atomically(path, [igzip.compress(content, compresslevel=1, mtime=0)], sync=False)
