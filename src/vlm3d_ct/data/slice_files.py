"""The files of 2D cases: slices with their neighbours and lesion masks, found inside the data folder only."""

from __future__ import annotations

from pathlib import Path

from vlm3d_ct.data.names import confined, stays_inside
from vlm3d_ct.data.records import TextRecord
from vlm3d_ct.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
NEIGHBOUR_OFFSETS = (-1, 0, 1, 2)
"""The slices of a pseudo-3D volume, counted from the key slice towards the head."""


class SliceFiles:
    """Finds the files that records speak of below ``root``; a folder is listed once, however many records name it."""

    def __init__(self, root: Path):
        self.root = root
        self._listed: dict[Path, dict[str, Path]] = {}

    def named(self, record: TextRecord, field: str) -> Path | None:
        """The path that a field names, inside the data folder; None where the record has no such field.

        A path is relative to the data folder, to the folder of the record's file, or to the folder that the data
        folder lies in, whose name it then begins with; the first that is there is taken.

        Raises:
            DataError: it is no path, or leaves the data folder.
        """
        name = record.fields.get(field)
        if name is None:
            return None
        path = confined(self.root, name) if isinstance(name, str) else None
        if path is None or not isinstance(name, str):
            message, remedy = "This is no path inside the data folder.", f"Give it relative to {self.root}."
            raise DataError(record.problem("path-escapes", field, name, message, remedy))
        parts = path.relative_to(self.root).parts
        others = [record.file.parent.joinpath(*parts)]
        if len(parts) > 1 and parts[0].casefold() == self.root.name.casefold():
            others.append(self.root.joinpath(*parts[1:]))
        inside = (other for other in others if other.is_relative_to(self.root) and stays_inside(self.root, other))
        return next((other for other in (path, *inside) if other.exists()), path)

    def image(self, record: TextRecord, stem: Path) -> Path | None:
        """``stem`` with the first image ending that there is; None without one.

        Raises:
            DataError: the file is a link that leaves the data folder.
        """
        listed = self._list(stem.parent)
        path = next((listed[name] for suffix in IMAGE_SUFFIXES if (name := stem.name + suffix) in listed), None)
        return None if path is None else self._checked(record, path)

    def file(self, record: TextRecord, stated: Path) -> Path | None:
        """A file named with or without its image ending; None without one.

        Raises:
            DataError: the file is a link that leaves the data folder.
        """
        return self._checked(record, stated) if stated.is_file() else self.image(record, stated)

    def folder(self, record: TextRecord, folder: Path) -> tuple[Path, ...]:
        """The images of a folder, sorted by name.

        Raises:
            DataError: one is a link that leaves the data folder.
        """
        images = (path for path in self._list(folder).values() if path.suffix.lower() in IMAGE_SUFFIXES)
        return tuple(self._checked(record, path) for path in images)

    def stack(self, record: TextRecord, stated: Path) -> tuple[Path, ...] | None:
        """The key slice among its neighbours, feet to head; None where it is not there.

        Args:
            record: for messages.
            stated: a folder with ``0.jpg`` and its neighbours ``-1.jpg``, ``1.jpg``, ...; the key slice in such a
                folder; or a single slice, with or without its ending. Where a neighbour is missing, the nearest one
                there is stands for it; a single slice stands for all.

        Raises:
            DataError: a file is a link that leaves the data folder.
        """
        key = self.image(record, stated / "0") if stated.is_dir() else self.file(record, stated)
        if key is None:
            return None
        position = _position(key)
        if position is None or key.parent == self.root / "images":  # a folder of many cases, not of one
            return (key,) * len(NEIGHBOUR_OFFSETS)
        siblings = [path for path in self._list(key.parent).values() if path.suffix.lower() in IMAGE_SUFFIXES]
        offsets = {number - position: path for path in siblings if (number := _position(path)) is not None}
        offsets[0] = key
        # of two that are equally near, the one nearer to the key slice
        nearest = (min(offsets, key=lambda o: (abs(o - wanted), abs(o))) for wanted in NEIGHBOUR_OFFSETS)
        return tuple(self._checked(record, offsets[offset]) for offset in nearest)

    def _list(self, folder: Path) -> dict[str, Path]:
        if folder not in self._listed:
            try:
                paths = sorted(folder.iterdir())
            except OSError:
                paths = []  # what is missing is reported by whoever needs it
            self._listed[folder] = {path.name: path for path in paths}
        return self._listed[folder]

    def _checked(self, record: TextRecord, path: Path) -> Path:
        if path.is_symlink() and not stays_inside(self.root, path):
            message, remedy = "The file is a link that leaves the data folder.", "Copy the file there."
            raise DataError(record.problem("path-escapes", "file", str(path), message, remedy))
        return path


def _position(path: Path) -> int | None:
    """The number that a slice's file is named by (0 the key slice, 1 the next one towards the head), if it is one."""
    sign, digits = path.stem[:1] == "-", path.stem.lstrip("-")
    return (-int(digits) if sign else int(digits)) if digits.isdecimal() and len(digits) < 6 else None
