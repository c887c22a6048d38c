"""What preparing left out and why, for the screen and for a file."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from vlm3d_ct.data.cache import Cache
from vlm3d_ct.data.prepare import PrepareSummary
from vlm3d_ct.volumes.atomic import write_atomically

NAMED = 3
"""Cases of a group that the screen names."""


def left_out_lines(summary: PrepareSummary) -> list[str]:
    """The faults by code, the most frequent first: how many cases, the first of them, and the first fault."""
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for case, error in summary.left_out:
        for problem in error.problems:
            groups[problem.code].setdefault(case.case_id, str(problem))
    lines = []
    for code, faults in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        names = ", ".join(list(faults)[:NAMED]) + (", ..." if len(faults) > NAMED else "")
        lines += [f"  {len(faults)} x {code}: {names}", f"      {next(iter(faults.values()))}"]
    return lines


def write_left_out(summary: PrepareSummary, cache: Cache, shard: tuple[int, int]) -> Path:
    """Write ``left_out.json`` beside the entries; a shard writes ``left_out_I_of_N.json``. Returns the path.

    The file says what the last run with this shard found; without a fault its list is empty.
    """
    index, count = shard
    name = "left_out.json" if count == 1 else f"left_out_{index}_of_{count}.json"
    path = cache.root / cache.fingerprint / name
    content = {
        "prepared": summary.prepared,
        "already": summary.already,
        "left_out": len(summary.left_out),
        "by_code": _counts([problem.code for problem in summary.problems]),
        "cases": [
            {"case_id": case.case_id, "kind": case.kind, "problems": [problem.as_dict() for problem in error.problems]}
            for case, error in summary.left_out
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, [json.dumps(content, indent=1).encode()])
    return path


def _counts(codes: Sequence[str]) -> dict[str, int]:
    return {code: codes.count(code) for code in sorted(set(codes))}
