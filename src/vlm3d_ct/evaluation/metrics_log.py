"""The metrics that a training run has logged, one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from vlm3d_ct.errors import DataError, Problem

MAX_LOG_BYTES = 256 << 20

Kind = Literal["train", "validation"]
KINDS = ("train", "validation", "system", "skipped")
"""What a run logs; the rows of the last are about the machine and are not read."""


@dataclass(frozen=True, kw_only=True)
class MetricsLog:
    """The log of one stage of training.

    Attributes:
        name: the stage, for titles.
        train: rows of kind ``train`` by rising step; each has ``step``, ``epoch`` and metrics, all numbers.
        validation: rows of kind ``validation``, likewise.
        num_unreadable: lines left out because they are no such row, as a crash leaves behind.
    """

    name: str
    train: tuple[dict[str, float], ...]
    validation: tuple[dict[str, float], ...]
    num_unreadable: int

    def series(self, kind: Kind, metric: str) -> tuple[Float64[np.ndarray, " s"], Float64[np.ndarray, " s"]]:
        """Epochs and values of a metric, where it was logged."""
        rows = [row for row in (self.train if kind == "train" else self.validation) if metric in row]
        epochs = np.array([row["epoch"] for row in rows], dtype=np.float64)
        return epochs, np.array([row[metric] for row in rows], dtype=np.float64)


def read_metrics(name: str, path: Path) -> MetricsLog:
    """Read a metrics log. Where a resumed run has logged a step again, the later line counts.

    Raises:
        DataError: the file cannot be read or is larger than 256 MB.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_LOG_BYTES + 1)
    except OSError as error:
        raise _problem(path, str(error), "It cannot be read.") from error
    if len(content) > MAX_LOG_BYTES:
        raise _problem(path, f"more than {MAX_LOG_BYTES} bytes", "It is too large for a metrics log.")
    rows: dict[str, dict[float, dict[str, float]]] = {"train": {}, "validation": {}}
    num_unreadable = 0
    for line in content.splitlines():
        row = _parse(line)
        if row is None:
            num_unreadable += 1
        elif (kind := row[0]) in rows:
            rows[kind][row[1]["step"]] = row[1]
    return MetricsLog(
        name=name,
        train=tuple(rows["train"][step] for step in sorted(rows["train"])),
        validation=tuple(rows["validation"][step] for step in sorted(rows["validation"])),
        num_unreadable=num_unreadable,
    )


def _parse(line: bytes) -> tuple[str, dict[str, float]] | None:
    """Kind and numbers of a line; None for a torn or foreign one."""
    try:
        row: Any = json.loads(line)
        if not isinstance(row, dict) or row.get("kind") not in KINDS:
            return None
        numbers = {key: float(value) for key, value in row.items() if isinstance(value, int | float)}
    except (ValueError, RecursionError, OverflowError):
        return None
    positioned = "step" in numbers and "epoch" in numbers and np.isfinite(numbers["step"] + numbers["epoch"])
    return (row["kind"], numbers) if positioned else None


def _problem(path: Path, value: str, message: str) -> DataError:
    return DataError(
        Problem(
            code="metrics-log",
            file=str(path),
            field="file",
            value=value,
            message=message,
            remedy="Give the metrics.jsonl of a training run, or none.",
        )
    )
