"""Metrics of a run: TensorBoard event files for people, JSON lines for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TextIO

from torch.utils.tensorboard import SummaryWriter

from vlm3d_ct.errors import ConfigError
from vlm3d_ct.volumes.atomic import write_atomically

METRICS_FILE = "metrics.jsonl"
RecordKind = Literal["train", "validation", "system"]


class Recorder:
    """Writes each record to both places; scalars only, no text and no pictures of patients.

    Args:
        output_dir: of the run; ``metrics.jsonl`` lies there.
        tensorboard_dir: of the run's event files.
        first_step: records after it, left by an interrupted run, are dropped.

    Attributes:
        failure: what could not be written, and why; None while all is well. After it nothing more is written: the run
            is to save a checkpoint and end.

    Raises:
        ConfigError: the files cannot be opened.
    """

    def __init__(self, output_dir: Path, tensorboard_dir: Path, first_step: int):
        self.failure: str | None = None
        self._path, self._events = output_dir / METRICS_FILE, tensorboard_dir
        try:
            _drop_after(self._path, first_step)
            self._writer = SummaryWriter(str(tensorboard_dir), purge_step=first_step + 1)
            self._file: TextIO = self._path.open("a", encoding="utf-8")
        except OSError as error:
            size = self._path.stat().st_size if self._path.exists() else 0
            raise ConfigError(
                f"{self._path}: the metrics ({size} bytes so far) or the event file in {tensorboard_dir} cannot be "
                f"written: {error.strerror}. Free space, or make both folders writable."
            ) from None

    def record(self, kind: RecordKind, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Append one record; numbers that are not finite become null in the JSON."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        scalars = {f"{kind}/{name}": value for name, value in values.items()}
        self._append({"step": step, "epoch": round(epoch, 4), "kind": kind, **finite}, scalars)

    def record_skip(self, step: int, epoch: float, cause: str, case_ids: Sequence[str]) -> None:
        """Append to the JSON lines that a step was skipped, why, and the cases that are suspected."""
        row = {"step": step, "epoch": round(epoch, 4), "kind": "skipped", "cause": cause, "cases": list(case_ids)}
        self._append(row, {})

    def _append(self, row: Mapping[str, Any], scalars: Mapping[str, float]) -> None:
        if self.failure is not None:
            return
        line = json.dumps(row) + "\n"
        try:
            self._file.write(line)
            self._file.flush()
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, row["step"])
        except OSError as error:
            self._fail(
                f"the metrics of step {row['step']} ({len(line)} bytes)",
                error,
                "A checkpoint of this step is written; free space and start again.",
            )

    def close(self) -> None:
        """Flush both; what cannot be written now is a `failure`, too."""
        for close in (self._file.close, self._writer.close):
            try:
                close()
            except OSError as error:
                self._fail("the last metrics", error, "The checkpoint of the last step is written.")

    def _fail(self, what: str, error: OSError, remedy: str) -> None:
        self.failure = self.failure or (
            f"{self._path}: {what} or their event file in {self._events} cannot be written: {error.strerror}. {remedy}"
        )


def _drop_after(path: Path, last_step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # the last line of a killed run may be torn
        if record["step"] <= last_step:
            kept.append(line)
    write_atomically(path, [line.encode() for line in kept])
