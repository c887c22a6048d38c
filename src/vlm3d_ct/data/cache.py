"""Prepared cases on disk: one checked file each, in a folder named by the fingerprint of the preprocessing.

An entry is: ``VLM3DCT`` and a version byte | header length (uint32) | CRC of the header (uint32) | header (JSON) |
voxels | labels (blosc2: LZ4, bit-shuffled) | CRC of everything before (uint32). Numbers are little-endian.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from isal import isal_zlib
from jaxtyping import Shaped

from vlm3d_ct.data.case import Case, Kind
from vlm3d_ct.errors import ConfigError, DataError
from vlm3d_ct.volumes import companding
from vlm3d_ct.volumes.atomic import remove_stray_files, write_atomically
from vlm3d_ct.volumes.faults import fault
from vlm3d_ct.volumes.preprocess import Prepared

MAGIC = b"VLM3DCT\x01"
SUFFIX = ".ct"
SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}")
"""What a case id must look like, because it becomes a file name."""

_PREFIX = struct.Struct("<8sII")
_CRC = struct.Struct("<I")
MOST_LISTED_SOURCES = 12
_LONGEST_HEADER = 2**14  # a dozen names of 255 bytes each, and what else stands there
_AGAIN = "Run `vlm3d-ct prepare` again."


@dataclass(frozen=True)
class Cache:
    """The prepared cases of one preprocessing.

    Attributes:
        root: the cache folder of the configuration; entries lie in ``root/fingerprint/kind/``.
        fingerprint: of the preprocessing (`Preprocess.fingerprint`).
    """

    root: Path
    fingerprint: str

    def path(self, case_id: str, kind: Kind) -> Path:
        """Where the entry of a case is or would be.

        Raises:
            DataError: the case id is not fit for a file name.
        """
        if not SAFE_NAME.fullmatch(case_id):
            message = "A case id may hold letters, digits and . _ + - only."
            raise fault("case-id", self.root, "case_id", case_id, message, "Rename the case.")
        return self.root / self.fingerprint / kind / f"{case_id}{SUFFIX}"

    def write(self, case: Case, prepared: Prepared) -> None:
        """Store a prepared case; the entry appears whole or not at all.

        Raises:
            ConfigError: the disk is full or refuses.
        """
        path = self.path(case.case_id, case.kind)
        chunks = _encode(prepared, self.fingerprint, _sources(case))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, chunks)
        except OSError as error:
            size = sum(map(len, chunks))
            reason = error.strerror or type(error).__name__
            raise ConfigError(
                f"{path}: cannot write the cache entry of {size} bytes: {reason}. "
                "Free space or set data.cache_dir to another disk, then run the command again; it continues."
            ) from error

    def read(self, case_id: str, kind: Kind) -> Prepared:
        """Read an entry back, checking its checksum and its fingerprint.

        Raises:
            DataError: there is none, it is damaged, or it comes from another preprocessing.
        """
        path = self.path(case_id, kind)
        try:
            content = path.read_bytes()
        except OSError:
            raise fault("not-prepared", path, "file", "absent", "The case has not been prepared.", _AGAIN) from None
        header, start = _read_header(content, path)
        if len(content) < start + _CRC.size or _CRC.unpack(content[-4:])[0] != isal_zlib.crc32(
            memoryview(content)[:-4]
        ):
            raise fault("cache-damaged", path, "checksum", "differs", "The cache entry is damaged.", _AGAIN)
        if header["fingerprint"] != self.fingerprint:
            message = f"The entry comes from another preprocessing than {self.fingerprint}."
            raise fault("cache-fingerprint", path, "fingerprint", header["fingerprint"], message, _AGAIN)
        return _decode(header, memoryview(content)[start:-4])

    def is_current(self, case: Case) -> bool:
        """Whether a complete entry exists whose source files have not changed since; its checksum is left to `read`."""
        path = self.path(case.case_id, case.kind)
        try:
            with path.open("rb") as file:
                header, start = _read_header(file.read(_LONGEST_HEADER), path)
            size = start + sum(header["nbytes"]) + _CRC.size
            sources_unchanged = bool(header["sources"] == _sources(case))
            return sources_unchanged and header["fingerprint"] == self.fingerprint and path.stat().st_size == size
        except (OSError, DataError):
            return False

    def remove_stray_files(self) -> int:
        """Remove what killed writers left behind; returns how many files that were."""
        folder = self.root / self.fingerprint
        return remove_stray_files(folder) if folder.is_dir() else 0


def read_entry_header(path: Path) -> dict[str, Any]:
    """What an entry says about itself: shape, dtype, spacing_mm, kind, fingerprint, sources.

    Raises:
        DataError: the file is no cache entry, or its header is damaged.
    """
    with path.open("rb") as file:
        return _read_header(file.read(_LONGEST_HEADER), path)[0]


def _sources(case: Case) -> list[list[Any]]:
    """[name, bytes, time of change in ns] of every file that a case is made from, and how they are read.

    Many files, such as one for each structure, are one entry with their number and a hash, so that the header stays
    small.
    """
    paths = [*dict.fromkeys(case.image_paths), *case.mask_paths]
    states = [(path.name, path.stat()) for path in paths]
    files: list[list[Any]] = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in states]
    if len(files) > MOST_LISTED_SOURCES:
        digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
        files = [[f"{len(files)} files {digest}", sum(size for _, size, _ in files), 0]]
    stored = case.stored
    read_as = (
        "" if stored is None else f" {stored.slope} {stored.intercept_hu} {stored.spacing_mm} {stored.orientation}"
    )
    return [*files, [case.mask_labels + read_as, 0, 0]]


def _encode(prepared: Prepared, fingerprint: str, sources: list[list[Any]]) -> list[bytes]:
    coded = prepared.kind == "volume" and prepared.precision == "uint8"
    voxels = companding.to_codes(prepared.voxels_hu) if coded else prepared.voxels_hu
    blobs = [_compress(voxels)]
    if prepared.labels is not None:
        blobs.append(_compress(prepared.labels))
    header = {
        "shape": prepared.voxels_hu.shape,
        "dtype": str(voxels.dtype),
        "precision": prepared.precision,
        "spacing_mm": prepared.spacing_mm,
        "kind": prepared.kind,
        "fingerprint": fingerprint,
        "sources": sources,
        "nbytes": [len(blob) for blob in blobs],
    }
    text = json.dumps(header).encode()
    chunks = [_PREFIX.pack(MAGIC, len(text), isal_zlib.crc32(text)), text, *blobs]
    crc = 0
    for chunk in chunks:
        crc = isal_zlib.crc32(chunk, crc)
    return [*chunks, _CRC.pack(crc)]


def _compress(array: Shaped[np.ndarray, "z y x"]) -> bytes:
    blob: bytes = blosc2.compress2(
        np.ascontiguousarray(array),
        codec=blosc2.Codec.LZ4,
        filters=[blosc2.Filter.BITSHUFFLE],
        typesize=array.itemsize,
        nthreads=1,
    )
    return blob


def _decode(header: dict[str, Any], blobs: memoryview) -> Prepared:
    arrays, start = [], 0
    for nbytes, dtype in zip(header["nbytes"], (header["dtype"], "uint8"), strict=False):
        array = np.empty(header["shape"], dtype=dtype)
        blosc2.decompress2(blobs[start : start + nbytes], dst=array, nthreads=1)
        arrays.append(array)
        start += nbytes
    z, y, x = header["spacing_mm"]
    coded = header["kind"] == "volume" and header["precision"] == "uint8"
    return Prepared(
        voxels_hu=companding.to_hu(arrays[0]) if coded else arrays[0],
        labels=arrays[1] if len(arrays) > 1 else None,
        spacing_mm=(z, y, x),
        kind=header["kind"],
        precision=header["precision"],
    )


def _read_header(content: bytes, path: Path) -> tuple[dict[str, Any], int]:
    """The header and where the voxels start."""
    damaged = fault("cache-damaged", path, "header", content[:8], "The cache entry is damaged or none.", _AGAIN)
    if len(content) < _PREFIX.size:
        raise damaged
    magic, length, crc = _PREFIX.unpack_from(content)
    text = content[_PREFIX.size : _PREFIX.size + length]
    if magic != MAGIC or len(text) != length or isal_zlib.crc32(text) != crc:
        raise damaged
    header: dict[str, Any] = json.loads(text)
    return header, _PREFIX.size + length
