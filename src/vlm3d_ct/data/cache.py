"""Prepared cases on disk: one checked file each (`entry`), in a folder named by the preprocessing's fingerprint."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm3d_ct.data.case import Case, Kind
from vlm3d_ct.data.entry import PREPARE_AGAIN, decode_entry, encode_entry, entry_header, read_header
from vlm3d_ct.errors import ConfigError, DataError
from vlm3d_ct.volumes.atomic import remove_stray_files, write_atomically
from vlm3d_ct.volumes.faults import fault
from vlm3d_ct.volumes.preprocess import Prepared

SUFFIX = ".ct"
SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}")
"""What a case id must look like, because it becomes a file name."""

MOST_LISTED_SOURCES = 12
MOST_ATTEMPTS = 3
PASSING_ERRORS = {errno.ESTALE, errno.EIO, errno.EINTR}
OTHER_SOURCES = "cache-other-sources"
"""Code of the fault of an entry that belongs to a file of the same name, or to an earlier state of this one."""

Sources = list[list[Any]]
"""[name, bytes, time of change in ns] of every file that a case is made from, and how they are read."""


@dataclass(frozen=True)
class Cache:
    """The prepared cases of one preprocessing.

    Attributes:
        root: the cache folder of the configuration; entries lie in ``root/fingerprint/kind/``.
        fingerprint: of the preprocessing (`Preprocess.fingerprint`).
    """

    root: Path
    fingerprint: str
    _known: dict[tuple[Kind, str, Path], int] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Hashes of the sources of entries that were found to be the cases' own: a mask may have a hundred files."""

    def path(self, case_id: str, kind: Kind) -> Path:
        """Where the entry of a case is or would be.

        Raises:
            DataError: the case id is not fit for a file name.
        """
        if not SAFE_NAME.fullmatch(case_id):
            message = "A case id may hold letters, digits and . _ + - only."
            raise fault("case-id", self.root, "case_id", case_id, message, "Rename the case.")
        return self.root / self.fingerprint / kind / f"{case_id}{SUFFIX}"

    def write(self, case: Case, prepared: Prepared, sources: Sources | None = None) -> None:
        """Store a prepared case; the entry appears whole or not at all.

        Args:
            case: whose entry it is.
            prepared: its voxels and labels.
            sources: the `sources_of` the case as they were before it was read, so that an entry of a file that changed
                meanwhile is not current; None for as they are now.

        Raises:
            ConfigError: the disk is full or refuses.
        """
        path = self.path(case.case_id, case.kind)
        chunks = encode_entry(prepared, self.fingerprint, sources_of(case) if sources is None else sources)
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

    def read(self, case: Case) -> Prepared:
        """Read an entry back, checking its checksum, its fingerprint, and that it was made of the case's own files.

        Raises:
            DataError: there is none, the disk does not give it, it is damaged, or it was made of other files or by
                another preprocessing.
        """
        path = self.path(case.case_id, case.kind)
        content = _read_bytes(path)
        header, start = entry_header(content, path)
        if header.fingerprint != self.fingerprint:
            message = f"The entry comes from another preprocessing than {self.fingerprint}."
            raise fault("cache-fingerprint", path, "fingerprint", header.fingerprint, message, PREPARE_AGAIN)
        self._check_sources(case, header.sources, path)
        return decode_entry(content, header, start, path)

    def _check_sources(self, case: Case, found: Sources, path: Path) -> None:
        """Refuse what was made of other files. The case's own are looked at once, and again where an entry differs.

        Times of change are left to `is_current`: machines with copies of their own would prepare in turns for ever.
        """
        key, state = (case.kind, case.case_id, case.image_paths[0]), hash(json.dumps(found))
        if self._known.get(key) == state:
            return
        sources = sources_still_there(case)
        if sources is not None and _names_and_sizes(found) != _names_and_sizes(sources):
            message = "The entry was made of other files than this case has now: changed ones, or another folder's."
            remedy = f"{PREPARE_AGAIN} Folders whose cases share names need a data.cache_dir each."
            raise fault(OTHER_SOURCES, path, "sources", f"not {case.image_paths[0]}", message, remedy)
        self._known[key] = state

    def is_current(self, case: Case) -> bool:
        """Whether a complete entry exists whose source files have not changed since; its checksum is left to `read`."""
        path = self.path(case.case_id, case.kind)
        try:
            header, size = read_header(path)
            sources_unchanged = header.sources == sources_of(case)
            return sources_unchanged and header.fingerprint == self.fingerprint and path.stat().st_size == size
        except (OSError, DataError):
            return False

    def remove_stray_files(self) -> int:
        """Remove what killed writers left behind; returns how many files that were."""
        folder = self.root / self.fingerprint
        return remove_stray_files(folder) if folder.is_dir() else 0


def _read_bytes(path: Path) -> bytes:
    """The content of an entry; what a network disk may refuse for a moment is asked for again."""
    for attempt in range(1, MOST_ATTEMPTS + 1):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            message = "The case has not been prepared."
            raise fault("not-prepared", path, "file", "absent", message, PREPARE_AGAIN) from None
        except OSError as error:
            if attempt < MOST_ATTEMPTS and error.errno in PASSING_ERRORS:
                continue
            reason = error.strerror or type(error).__name__
            remedy = "See whether the disk of data.cache_dir is there and readable, then run the command again."
            raise fault("cache-unreadable", path, "file", reason, "The disk does not give the entry.", remedy) from None
    raise AssertionError("unreachable: the last attempt returns or raises")


def sources_still_there(case: Case) -> Sources | None:
    """`sources_of`, or None where a file has gone: what is prepared is enough to go on with."""
    try:
        return sources_of(case)
    except OSError:
        return None


def sources_of(case: Case) -> Sources:
    """What a case is made from, as it is now.

    Many files, such as one for each structure, are one entry with their number and a hash, so that the header stays
    small.

    Raises:
        OSError: one of them is not there.
    """
    paths = [*dict.fromkeys(case.image_paths), *case.mask_paths]
    # a name that is no UTF-8 has no JSON of its own
    states = [(os.fsencode(path.name).decode("utf-8", "backslashreplace"), path.stat()) for path in paths]
    files: list[list[Any]] = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in states]
    if len(files) > MOST_LISTED_SOURCES:
        digest = hashlib.sha256(json.dumps(_names_and_sizes(files)).encode()).hexdigest()
        files = [[f"{len(files)} files {digest}", sum(file[1] for file in files), sum(file[2] for file in files)]]
    stored = case.stored
    read_as = (
        "" if stored is None else f" {stored.slope} {stored.intercept_hu} {stored.spacing_mm} {stored.orientation}"
    )
    return [*files, [case.mask_labels + read_as, 0, 0]]


def _names_and_sizes(sources: Sources) -> list[list[Any]]:
    return [source[:2] for source in sources]
