"""Metrics of a run: TensorBoard event files for people, JSON lines for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Literal, TextIO

from torch.utils.tensorboard import SummaryWriter

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
    """

    def __init__(self, output_dir: Path, tensorboard_dir: Path, first_step: int):
        self.failure: str | None = None
        self._path = output_dir / METRICS_FILE
        _drop_after(self._path, first_step)
        self._file: TextIO = self._path.open("a", encoding="utf-8")
        self._writer = SummaryWriter(str(tensorboard_dir), purge_step=first_step + 1)

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
        try:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, row["step"])
        except OSError as error:
            self.failure = (
                f"{self._path}: the metrics of step {row['step']} or the event file beside it cannot be written: "
                f"{error.strerror}. A checkpoint of this step is written; free space and start again."
            )

    def close(self) -> None:
        """Flush both."""
        with suppress(OSError) if self.failure else nullcontext():
            self._file.close()
            self._writer.close()


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
