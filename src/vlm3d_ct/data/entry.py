"""One prepared case as a file.

``VLM3DCT`` and a version byte | header length (uint32) | CRC of the header (uint32) | header (JSON) | voxels | labels
(blosc2: LZ4, bit-shuffled) | CRC of everything before (uint32). Numbers are little-endian. Nothing that the header says
is believed before it is checked: checksums tell of damage, not of intent.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import blosc2
import numpy as np
from isal import isal_zlib
from jaxtyping import Shaped
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from vlm3d_ct.config.schema import Precision
from vlm3d_ct.data.case import Kind
from vlm3d_ct.errors import DataError
from vlm3d_ct.volumes import companding
from vlm3d_ct.volumes.faults import fault
from vlm3d_ct.volumes.preprocess import Prepared

MAGIC = b"VLM3DCT\x01"
PREPARE_AGAIN = "Run `vlm3d-ct prepare` again."
LONGEST_HEADER = 2**14
"""A dozen names of 255 bytes each, and what else stands there."""

_PREFIX = struct.Struct("<8sII")
_CRC = struct.Struct("<I")
_Extent = Annotated[int, Field(ge=1, le=4096)]
_Spacing = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True, config={"extra": "forbid"})
class EntryHeader:
    """What an entry says about itself.

    Attributes:
        shape: voxels along (z, y, x).
        dtype: of the voxels as stored.
        precision: see `Prepared`.
        spacing_mm: see `Prepared`.
        kind: see `Prepared`.
        fingerprint: of the preprocessing.
        sources: [name, bytes, time of change in ns] of each file that it was made from.
        nbytes: compressed size of the voxels and, where there are some, the labels.
    """

    shape: tuple[_Extent, _Extent, _Extent]
    dtype: Literal["int16", "uint8"]
    precision: Precision
    spacing_mm: tuple[_Spacing, _Spacing, _Spacing]
    kind: Kind
    fingerprint: str
    sources: list[list[Any]]
    nbytes: Annotated[list[Annotated[int, Field(ge=1, le=2**32)]], Field(min_length=1, max_length=2)]


_HEADER = TypeAdapter(EntryHeader)


def encode_entry(prepared: Prepared, fingerprint: str, sources: list[list[Any]]) -> list[bytes]:
    """The bytes of an entry, in pieces."""
    coded = prepared.kind == "volume" and prepared.precision == "uint8"
    voxels = companding.to_codes(prepared.voxels_hu) if coded else prepared.voxels_hu
    blobs = [_compress(voxels)]
    if prepared.labels is not None:
        blobs.append(_compress(prepared.labels))
    header = _HEADER.validate_python(
        {
            "shape": prepared.voxels_hu.shape,
            "dtype": str(voxels.dtype),
            "precision": prepared.precision,
            "spacing_mm": prepared.spacing_mm,
            "kind": prepared.kind,
            "fingerprint": fingerprint,
            "sources": sources,
            "nbytes": [len(blob) for blob in blobs],
        }
    )
    text = json.dumps(asdict(header)).encode()
    chunks = [_PREFIX.pack(MAGIC, len(text), isal_zlib.crc32(text)), text, *blobs]
    crc = 0
    for chunk in chunks:
        crc = isal_zlib.crc32(chunk, crc)
    return [*chunks, _CRC.pack(crc)]


def entry_header(content: bytes, path: Path) -> tuple[EntryHeader, int]:
    """The header of an entry's first bytes, and where the voxels start.

    Raises:
        DataError: no entry, or damaged.
    """
    if len(content) < _PREFIX.size:
        raise _damaged(path, "header", content[:8])
    magic, length, crc = _PREFIX.unpack_from(content)
    text = content[_PREFIX.size : _PREFIX.size + length]
    if magic != MAGIC or len(text) != length or isal_zlib.crc32(text) != crc:
        raise _damaged(path, "header", content[:8])
    try:
        return _HEADER.validate_json(text, strict=True), _PREFIX.size + length
    except ValidationError as error:
        field = ".".join(map(str, error.errors()[0]["loc"])) or "JSON"
        raise _damaged(path, f"header {field}", error.errors()[0]["msg"]) from None


def read_header(path: Path) -> tuple[EntryHeader, int]:
    """The header of an entry, and how many bytes the file should have.

    Raises:
        DataError: no entry, or its header is damaged.
        OSError: there is no such file, or it cannot be read.
    """
    with path.open("rb") as file:
        header, start = entry_header(file.read(LONGEST_HEADER), path)
    return header, start + sum(header.nbytes) + _CRC.size


def decode_entry(content: bytes, header: EntryHeader, start: int, path: Path) -> Prepared:
    """The case, its checksum checked.

    Args:
        content: the whole file.
        header: of it.
        start: where its voxels start.
        path: the file, for messages.

    Raises:
        DataError: damaged, or its parts do not fit together.
    """
    blobs = memoryview(content)[start:-4]
    if len(blobs) != sum(header.nbytes) or _CRC.unpack(content[-4:])[0] != isal_zlib.crc32(memoryview(content)[:-4]):
        raise _damaged(path, "checksum", "differs")
    coded = header.kind == "volume" and header.precision == "uint8"
    if header.dtype != ("int16" if header.kind == "volume" and not coded else "uint8"):
        raise _damaged(path, "dtype", f"{header.dtype} of a {header.kind} in {header.precision}")
    arrays, position = [], 0
    for nbytes, dtype in zip(header.nbytes, (header.dtype, "uint8"), strict=False):
        arrays.append(_decompress(blobs[position : position + nbytes], header.shape, dtype, path))
        position += nbytes
    return Prepared(
        voxels_hu=companding.to_hu(arrays[0]) if coded else arrays[0],
        labels=arrays[1] if len(arrays) > 1 else None,
        spacing_mm=header.spacing_mm,
        kind=header.kind,
        precision=header.precision,
    )


def _compress(array: Shaped[np.ndarray, "z y x"]) -> bytes:
    blob: bytes = blosc2.compress2(
        np.ascontiguousarray(array),
        codec=blosc2.Codec.LZ4,
        filters=[blosc2.Filter.BITSHUFFLE],
        typesize=array.itemsize,
        nthreads=1,
    )
    return blob


def _decompress(blob: memoryview, shape: tuple[int, int, int], dtype: str, path: Path) -> Shaped[np.ndarray, "z y x"]:
    """The array, if the blob holds exactly so many bytes: looked up before any memory is taken."""
    expected = prod(shape) * np.dtype(dtype).itemsize
    try:
        holds, takes, _ = blosc2.get_cbuffer_sizes(blob)
        if (holds, takes) != (expected, len(blob)):
            raise _damaged(path, "voxels", f"{holds} bytes in {takes} for {expected} in {len(blob)}")
        array = np.empty(shape, dtype=dtype)
        blosc2.decompress2(blob, dst=array, nthreads=1)
    except (RuntimeError, ValueError) as error:
        raise _damaged(path, "voxels", str(error)) from None
    return array


def _damaged(path: Path, field: str, value: Any) -> DataError:
    return fault("cache-damaged", path, field, value, "The cache entry is damaged or none.", PREPARE_AGAIN)
