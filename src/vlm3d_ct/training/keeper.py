"""Which checkpoints of a run stay: the best, the last, and the two links to them."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlm3d_ct.checkpoint import load_checkpoint, point_to, save_checkpoint
from vlm3d_ct.errors import CheckpointError
from vlm3d_ct.log import warn

BEST, LAST = "checkpoint_best.pth", "checkpoint_last.pth"
_NAME = re.compile(r"checkpoint_step_(\d{8})\.pth")
_STRAY = re.compile(r"\.checkpoint_.*\.tmp")


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
        """
        kept = [Kept(**entry) for entry in content["kept"]]
        self.kept = [entry for entry in kept if (self.output_dir / entry.file).exists()]
        stay = {entry.file for entry in kept}
        for path in self.output_dir.glob("*"):  # nothing, where the folder is still to be made
            number = _NAME.fullmatch(path.name)
            superseded = number is not None and int(number[1]) < content["step"] and path.name not in stay
            if superseded or _STRAY.fullmatch(path.name):
                path.unlink()
        self._move_links()

    def save(self, content: dict[str, Any], step: int, score: float | None) -> Path:
        """Write a checkpoint, move the links, delete what is no longer kept."""
        self.kept = [entry for entry in self.kept if entry.step != step] + [Kept(step, score)]
        path = self.output_dir / self.kept[-1].file
        stay = self._to_stay()
        save_checkpoint(path, {**content, "kept": [asdict(entry) for entry in stay]})
        self._move_links()
        for entry in self.kept:
            if entry not in stay:
                (self.output_dir / entry.file).unlink(missing_ok=True)
        self.kept = stay
        return path

    def _move_links(self) -> None:
        if self.kept:
            newest = max(self.kept, key=lambda entry: entry.step)
            point_to(self.output_dir / LAST, self.output_dir / newest.file)
        if best := self._by_score():
            point_to(self.output_dir / BEST, self.output_dir / best[0].file)

    def _by_score(self) -> list[Kept]:
        scored = [(entry.score, entry.step, entry) for entry in self.kept if entry.score is not None]
        return [entry for _, _, entry in sorted(scored, key=lambda item: (-item[0], item[1]))]

    def _to_stay(self) -> list[Kept]:
        last = sorted(self.kept, key=lambda entry: entry.step)[-self.keep_last :]
        stay = {*self._by_score()[: self.keep_best], *last}
        return [entry for entry in self.kept if entry in stay]


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
