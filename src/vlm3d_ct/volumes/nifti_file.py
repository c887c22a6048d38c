"""The container: a ``.nii.gz`` file as header and stored values, bounded and checked.

The header is read first; what it declares bounds the decompression, and the CRC and the exact length are checked, which
neither nibabel nor SimpleITK do. A file that lies about its size is refused before it takes memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from isal import igzip_lib
from jaxtyping import Shaped
from nibabel.spatialimages import HeaderDataError

from vlm3d_ct.volumes.faults import fault

MAX_DECLARED_BYTES = 4 * 2**30
"""Largest accepted uncompressed file."""
FREE_BYTES, MAX_RATIO = 512 * 2**20, 200
"""Above ``FREE_BYTES`` a file may expand at most ``MAX_RATIO``-fold: scans shrink a few fold, bombs a thousandfold."""
DEFLATE_RATIO = 1032
"""No deflate stream expands further than this."""

_GZIP_ERROR = cast("type[Exception]", igzip_lib.error)  # the library's stub declares an instance
_HEADER_BYTES = 348
_VOXEL_OFFSET = 352
_COPY_AGAIN = "Copy or download the file again, or make it again."
_CONVERT = "Convert it to NIfTI-1 and compress it with gzip (.nii.gz)."


@dataclass(frozen=True, kw_only=True)
class NiftiFile:
    """A file whose header has been read and whose voxels are still compressed.

    Attributes:
        path: the file.
        compressed: all its bytes.
        header: the NIfTI-1 header, unchanged.
        shape_ijk: voxels along the file's own axes.
        dtype: type of the stored values, in the file's byte order.
        offset: where the voxels start in the uncompressed file.
    """

    path: Path
    compressed: bytes
    header: Any
    shape_ijk: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int


def open_nifti(path: Path) -> NiftiFile:
    """Read a file's bytes and parse its header.

    Raises:
        DataError: missing, not gzip, not NIfTI-1, not three-dimensional, or of a type that is no intensity.
    """
    compressed = _read_bytes(path)
    header = _parse_header(compressed, path)
    offset = float(header["vox_offset"])
    if not (offset == 0 or (_VOXEL_OFFSET <= offset <= 2**20 and offset.is_integer())):
        raise fault("nifti-header", path, "vox_offset", offset, "The voxels cannot start there.", _COPY_AGAIN)
    return NiftiFile(
        path=path,
        compressed=compressed,
        header=header,
        shape_ijk=_shape(header, path),
        dtype=_dtype(header, path),
        offset=int(offset) or _VOXEL_OFFSET,
    )


def read_stored(file: NiftiFile) -> Shaped[np.ndarray, "k j i"]:
    """The values as stored, axes reversed so that the order in memory is that of the file; read-only.

    Raises:
        DataError: truncated, damaged, or not of the size that the header declares.
    """
    content = _gunzip(file, file.offset + prod(file.shape_ijk) * file.dtype.itemsize)
    return np.frombuffer(content, dtype=file.dtype, offset=file.offset).reshape(file.shape_ijk[::-1])


def scaling(file: NiftiFile) -> tuple[float, float]:
    """(slope, intercept) with value = slope * stored + intercept; (1, 0) where the header sets none (NaN, slope 0)."""
    slope, intercept = float(file.header["scl_slope"]), float(file.header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0
    return slope, intercept if np.isfinite(intercept) else 0.0


def _read_bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_DECLARED_BYTES:
            size = path.stat().st_size
            raise fault("file-too-large", path, "size", f"{size} bytes", "No CT volume is that large.", _COPY_AGAIN)
        return path.read_bytes()
    except FileNotFoundError:
        remedy = "Put the file there or remove its entry."
        raise fault("missing-file", path, "file", "absent", "The file does not exist.", remedy) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise fault(
            "unreadable-file", path, "file", reason, "The file cannot be read.", "Check its permissions."
        ) from None


def _parse_header(compressed: bytes, path: Path) -> Any:
    if compressed[:2] != b"\x1f\x8b":
        raise fault("not-gzip", path, "first bytes", compressed[:4], "This is not a gzip file.", _CONVERT)
    try:
        decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        block = decompressor.decompress(compressed[: 2**16], max_length=_HEADER_BYTES)
    except _GZIP_ERROR as error:
        raise fault("damaged-gzip", path, "gzip stream", str(error), "The file is damaged.", _COPY_AGAIN) from None
    if len(block) < _HEADER_BYTES:
        value = f"{len(block)} bytes"
        raise fault("truncated", path, "header", value, "The file ends inside the NIfTI header.", _COPY_AGAIN)
    order = next((o for o in "<>" if np.frombuffer(block, f"{o}i4", count=1)[0] == _HEADER_BYTES), None)
    if order is None or block[344:348] != b"n+1\x00":
        raise fault("not-nifti", path, "header", block[344:348], "This is not a single-file NIfTI-1.", _CONVERT)
    return nib.Nifti1Header(block, endianness=order, check=False)


def _shape(header: Any, path: Path) -> tuple[int, int, int]:
    dims = [int(size) for size in header["dim"]]
    axes = dims[1 : 1 + dims[0]] if 1 <= dims[0] <= 7 else []
    if len(axes) < 3 or min(axes) < 1 or max(axes[3:], default=1) != 1 or min(axes[:3]) < 2:
        shown = "x".join(map(str, axes)) or str(dims)
        raise fault(
            "not-3d", path, "dim", shown, "The file does not hold one 3D volume.", "Give one 3D volume per file."
        )
    return axes[0], axes[1], axes[2]


def _dtype(header: Any, path: Path) -> np.dtype[Any]:
    remedy = "Store the volume as int16."
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except (HeaderDataError, KeyError):
        code = int(header["datatype"])
        raise fault("voxel-type", path, "datatype", code, "The type of the voxels is unknown.", remedy) from None
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise fault("voxel-type", path, "datatype", str(dtype), "Voxels of this type are no intensities.", remedy)
    return dtype


def _gunzip(file: NiftiFile, declared: int) -> bytes:
    path, size = file.path, len(file.compressed)
    if declared > MAX_DECLARED_BYTES or declared > FREE_BYTES + MAX_RATIO * size:
        value = f"{declared} bytes declared by {size}"
        raise fault(
            "gzip-bomb", path, "dim", value, "The file would expand beyond any CT volume.", "Do not use this file."
        )
    if declared > DEFLATE_RATIO * size:
        value = f"{size} bytes for {declared}"
        raise fault(
            "truncated", path, "size", value, "The file is too short for what its header declares.", _COPY_AGAIN
        )
    decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    try:
        content: bytes = decompressor.decompress(file.compressed, max_length=declared + 1)
    except _GZIP_ERROR as error:
        raise fault("damaged-gzip", path, "gzip stream", str(error), "The file is damaged.", _COPY_AGAIN) from None
    if len(content) > declared:
        value = f"more than {declared} bytes"
        raise fault("length", path, "voxels", value, "The file holds more than its header declares.", _COPY_AGAIN)
    if not decompressor.eof:
        value = f"{len(content)} of {declared} bytes"
        raise fault("truncated", path, "voxels", value, "The file is cut off.", _COPY_AGAIN)
    if len(content) < declared:
        value = f"{len(content)} of {declared} bytes"
        raise fault("length", path, "voxels", value, "The file holds less than its header declares.", _COPY_AGAIN)
    if decompressor.unused_data:
        value = f"{len(decompressor.unused_data)} bytes"
        raise fault("trailing-bytes", path, "end of file", value, "Foreign bytes follow the gzip stream.", _COPY_AGAIN)
    return content
