"""What evaluations leave behind for programs: JSON and CSV that appear whole, and numbers as people read them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Literal

from vlm3d_ct.errors import ConfigError
from vlm3d_ct.evaluation.metrics.bootstrap import Interval
from vlm3d_ct.volumes.atomic import write_atomically

EvaluationKind = Literal["retrieval", "zero-shot", "regions", "probe", "compare"]
"""The evaluations, by the names of their commands."""
RESULTS_FILE = "results.json"
CASES_FILE = "pool_cases.txt"
REPORT_FILE = "report.html"


def refuse_other_kind(output_dir: Path, kind: EvaluationKind) -> None:
    """Refuse a folder that holds the results of an evaluation of another kind, before anything is computed.

    All kinds write ``results.json``, ``report.html`` and ``pool_cases.txt``, zero-shot and probe ``classes.csv`` and
    ``predictions.csv`` too: in one folder they would overwrite each other's and leave a mixture. Results of the same
    kind are replaced, and so are those that name no kind.

    Raises:
        ConfigError: the folder holds results of another kind.
    """
    try:
        results = json.loads((output_dir / RESULTS_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return
    found = results.get("kind") if isinstance(results, dict) else None
    if found is not None and found != kind:
        raise ConfigError(
            f"--output_dir {output_dir}: holds the results of `evaluate {found}`, which `evaluate {kind}` would "
            "overwrite in part. Give another folder; the embeddings can be shared with --embeddings FILE.npz."
        )


def write_results(output_dir: Path, kind: EvaluationKind, results: Mapping[str, Any]) -> Path:
    """Write ``results.json``, the last file of an evaluation: where it is, the others are. Returns its path.

    Its first entry is the kind of the evaluation, by which readers know which files are of it. A number that could not
    be measured (NaN) is null; dataclasses are written as objects.
    """
    path, content = output_dir / RESULTS_FILE, _plain({"kind": kind, **results})
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    return path


def write_cases(output_dir: Path, case_ids: Sequence[str]) -> None:
    """Write ``pool_cases.txt``, an id a line, in the order of every other file."""
    write_text(output_dir / CASES_FILE, "".join(f"{case_id}\n" for case_id in case_ids))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table with a header; NaN is an empty cell, floats keep every digit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row] for row in rows])
    write_text(path, text.getvalue())


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text whole or not at all; the folder is made if missing. What UTF-8 cannot hold is escaped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, [content.encode("utf-8", "backslashreplace")])


def format_share(share: float) -> str:
    """A fraction as a percentage; ``n/a`` where it could not be measured."""
    return "n/a" if math.isnan(share) else f"{100 * share:.1f} %"


def format_number(number: float, digits: int = 3) -> str:
    """A number with fixed digits; ``n/a`` where it could not be measured."""
    return "n/a" if math.isnan(number) else f"{number:.{digits}f}"


def format_interval(interval: Interval, *, share: bool = False, digits: int = 3) -> str:
    """``0.712 (0.655-0.768)``, or in per cent; the estimate alone where there is no interval."""
    scale, suffix, places = (100.0, " %", 1) if share else (1.0, "", digits)
    if math.isnan(interval.estimate):
        return "n/a"
    text = f"{scale * interval.estimate:.{places}f}{suffix}"
    if math.isnan(interval.low) or math.isnan(interval.high):
        return text
    return f"{text} ({scale * interval.low:.{places}f} to {scale * interval.high:.{places}f})"


def _plain(value: Any) -> Any:
    """The value as JSON holds it."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
