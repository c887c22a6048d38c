"""What a retrieval evaluation leaves behind for programs, and the table that it prints for people."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm3d_ct.evaluation.retrieval import RetrievalResult
from vlm3d_ct.volumes.atomic import write_atomically

RESULTS_FILE = "results.json"
CASES_FILE = "pool_cases.txt"
RANKS_FILE = "ranks.csv"
RIGHT_ITEM = {
    "own": "the case's own index only",
    "group": "any case with the identical text",
}
"""What counts as right under each rule, in words."""


def write_results(
    output_dir: Path,
    *,
    result: RetrievalResult,
    case_ids: Sequence[str],
    pool_name: str,
    left_out: Mapping[str, int],
    provenance: Mapping[str, str],
) -> Path:
    """Write ``results.json``, ``pool_cases.txt`` (an id a line) and ``ranks.csv``; returns the path of the first.

    Fractions are 0..1; a number that could not be measured (NaN) is null. ``results.json`` comes last, so where it is,
    the other two are.
    """
    write_text(output_dir / CASES_FILE, "".join(f"{case_id}\n" for case_id in case_ids))
    write_text(output_dir / RANKS_FILE, _ranks_csv(result, case_ids))
    results: dict[str, Any] = {
        "pool": {"name": pool_name, "size": result.size, "cases_file": CASES_FILE},
        "image_to_text": result.image_to_text,
        "text_to_image": result.text_to_image,
        "chance": result.chance,
    }
    if result.regions is not None:
        results["region_alignment"] = {
            "accuracy": result.regions.accuracy,
            "chance": result.regions.chance,
            "num_cases": result.regions.num_cases,
        }
    results["provenance"] = {
        **provenance,
        "right_item": RIGHT_ITEM[result.duplicates],
        "cases_sharing_their_text": result.num_shared_texts,
        "left_out": dict(left_out),
    }
    path = output_dir / RESULTS_FILE
    write_text(path, json.dumps(_nan_to_null(results), indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    return path


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text whole or not at all; the folder is made if missing. What UTF-8 cannot hold is escaped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, [content.encode("utf-8", "backslashreplace")])


def format_table(result: RetrievalResult) -> str:
    """Both directions against chance, for a terminal."""
    lines = [f"{'':18}{'R@1':>9}{'R@5':>9}{'R@10':>9}{'MRR':>9}{'median rank':>14}"]
    for title, row in (("volume to report", result.image_to_text), ("report to volume", result.text_to_image)):
        recalls = "".join(f"{format_share(row[name]):>9}" for name in ("R@1", "R@5", "R@10"))
        lines.append(f"{title:18}{recalls}{row['MRR']:>9.3f}{row['median_rank']:>14g}")
    lines.append(f"{'chance':18}" + "".join(f"{format_share(value):>9}" for value in result.chance.values()))
    if result.regions is not None:
        lines.append(
            f"region alignment {format_share(result.regions.accuracy)}, chance {format_share(result.regions.chance)} "
            f"({result.regions.num_cases} cases)"
        )
    lines.append(f"{result.size} cases; right is {RIGHT_ITEM[result.duplicates]}{describe_shared_texts(result)}")
    return "\n".join(lines)


def format_share(share: float) -> str:
    """A fraction as a percentage; ``n/a`` where it could not be measured."""
    return "n/a" if math.isnan(share) else f"{100 * share:.1f} %"


def describe_shared_texts(result: RetrievalResult) -> str:
    """A clause on the cases whose text is not theirs alone; empty where every text is unique."""
    if not result.num_shared_texts:
        return ""
    return f"; {result.num_shared_texts} cases share their text with another"


def _ranks_csv(result: RetrievalResult, case_ids: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case_id", "image_to_text_rank", "text_to_image_rank"])
    rows = zip(case_ids, result.image_to_text_ranks.tolist(), result.text_to_image_ranks.tolist(), strict=True)
    writer.writerows(rows)
    return text.getvalue()


def _nan_to_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nan_to_null(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
