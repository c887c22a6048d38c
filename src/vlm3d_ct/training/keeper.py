"""Which checkpoints of a run stay: the best, the last, and the two links to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlm3d_ct.checkpoint import load_checkpoint, point_to, save_checkpoint
from vlm3d_ct.errors import CheckpointError, ConfigError
from vlm3d_ct.log import warn

BEST, LAST = "checkpoint_best.pth", "checkpoint_last.pth"
_NAME = re.compile(r"checkpoint_step_(\d{8})\.pth")
_REHEARSAL = "checkpoint_rehearsal.pth"
_STRAY = re.compile(rf"\.(checkpoint_|metrics\.jsonl).*\.tmp|{re.escape(_REHEARSAL)}")


@dataclass(frozen=True)
class Kept:
    """A checkpoint and its validation score (None where it was not validated)."""

    step: int
    score: float | None

    @property
    def file(self) -> str:
        """Its name in the output folder."""
        return f"checkpoint_step_{self.step:08d}.pth"


class Keeper:
    """Saves checkpoints into a run's folder and deletes what neither is among the best nor among the last.

    New files are in place, and the links moved, before an old one goes. Only one process of a run may use it.
    """

    def __init__(self, output_dir: Path, keep_best: int, keep_last: int):
        self.output_dir, self.keep_best, self.keep_last = output_dir, keep_best, keep_last
        self.kept: list[Kept] = []

    def restore(self, content: dict[str, Any]) -> None:
        """Take up the record of a loaded checkpoint, and finish what a killed run left undone.

        What has vanished is forgotten; half-written files go, older checkpoints that were about to be deleted go, and
        the links point where they should.

        Raises:
            ConfigError: the folder cannot be brought up to date.
        """
        try:
            self._restore(content)
        except OSError as error:
            raise self._refused(error) from None

    def _refused(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"{error.filename or self.output_dir}: what a run left here cannot be brought up to date: "
            f"{error.strerror}. Make the folder writable and start the same command again."
        )

    def _restore(self, content: dict[str, Any]) -> None:
        self.remove_strays()
        kept = [Kept(**entry) for entry in content["kept"]]
        self.kept = [entry for entry in kept if (self.output_dir / entry.file).exists()]
        stay = {entry.file for entry in kept}
        for path in self.output_dir.glob("*"):  # nothing, where the folder is still to be made
            number = _NAME.fullmatch(path.name)
            if number is not None and int(number[1]) < content["step"] and path.name not in stay:
                path.unlink()
        self._move_links()

    def remove_strays(self) -> None:
        """Delete what a killed run left half-written. Whoever calls this is the only writer of the folder.

        Raises:
            ConfigError: a file cannot be deleted.
        """
        for path in self.output_dir.glob("*"):
            if _STRAY.fullmatch(path.name):
                try:
                    path.unlink()
                except OSError as error:
                    raise self._refused(error) from None

    def rehearse(self, content: dict[str, Any]) -> int:
        """Write a checkpoint of this content as `save` would, and remove it again.

        Returns:
            Its size in bytes.

        Raises:
            ConfigError: as `save`.
        """
        path = self.output_dir / _REHEARSAL
        try:
            return save_checkpoint(path, content)
        finally:
            with suppress(
                OSError
            ):  # what kept it from being written is what matters; `remove_strays` is next to see it
                path.unlink(missing_ok=True)

    def save(self, content: dict[str, Any], step: int, score: float | None) -> Path:
        """Write a checkpoint, move the links, delete what is no longer kept.

        Raises:
            ConfigError: the disk is full or refuses; the checkpoints of before are there, and usable.
        """
        kept = [entry for entry in self.kept if entry.step != step] + [Kept(step, score)]
        path, stay = self.output_dir / kept[-1].file, self._to_stay(kept)
        save_checkpoint(path, {**content, "kept": [asdict(entry) for entry in stay]})
        superseded, self.kept = [entry for entry in kept if entry not in stay], stay
        try:
            self._move_links()
            for entry in superseded:
                (self.output_dir / entry.file).unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{path}: is written and whole, but its folder cannot be brought up to date: {error.strerror}: "
                f"{error.filename or self.output_dir}. Make the folder writable and start the same command again."
            ) from None
        return path

    def _move_links(self) -> None:
        if self.kept:
            newest = max(self.kept, key=lambda entry: entry.step)
            point_to(self.output_dir / LAST, self.output_dir / newest.file)
        if best := _by_score(self.kept):
            point_to(self.output_dir / BEST, self.output_dir / best[0].file)

    def _to_stay(self, kept: Sequence[Kept]) -> list[Kept]:
        last = sorted(kept, key=lambda entry: entry.step)[-self.keep_last :]
        stay = {*_by_score(kept)[: self.keep_best], *last}
        return [entry for entry in kept if entry in stay]


def _by_score(kept: Iterable[Kept]) -> list[Kept]:
    """Best first, the earliest of equals first."""
    scored = [(entry.score, entry.step, entry) for entry in kept if entry.score is not None]
    return [entry for _, _, entry in sorted(scored, key=lambda item: (-item[0], item[1]))]


def checkpoints_of(output_dir: Path) -> set[tuple[str, int]]:
    """The names of a folder's checkpoints, and when each was written (ns): they tell whether a run has gone on."""
    found = set()
    for path in output_dir.glob("*"):  # nothing, where the folder is still to be made
        if _NAME.fullmatch(path.name):
            with suppress(FileNotFoundError):  # deleted by the run that is at it
                found.add((path.name, path.stat().st_mtime_ns))
    return found


def newest_checkpoint(output_dir: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest readable checkpoint of a run; damaged ones are named and passed over. None in an empty folder.

    Raises:
        CheckpointError: there are checkpoints, and none of them can be read.
    """
    if not output_dir.is_dir():
        return None
    found = sorted((path for path in output_dir.iterdir() if _NAME.fullmatch(path.name)), reverse=True)
    for path in found:
        try:
            return path, load_checkpoint(path)
        except CheckpointError as error:
            warn(f"{error} Trying the one before.")
    if found:
        raise CheckpointError(
            f"{output_dir}: none of its {len(found)} checkpoints can be read. Start again in another --output_dir."
        )
    return None
