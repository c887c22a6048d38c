"""The page of what was measured."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from itertools import pairwise

import torch

from speed.cases import DEPTHS, Case, depth_case
from speed.measure import Row
from speed.parts import SMALL, Part, small_share
from vlm3d_ct.config import Config

FORMULA = (
    "FLOPs are products of matrices, 2 for each multiply-add. With n patches read, s of them in a slab, z slabs, m "
    "memory tokens (21), width d and hidden width h, a block costs 2 (n + m) (4 d^2 + 2 d h) in its linear maps, "
    "4 n (s + m) d in attention within slabs, 4 n (z + m) d along z, 4 n (n + m) d over all patches, and 4 m (n + m) d "
    "for the memory (`models/flops.py`). A backward pass counts twice; whole blocks that are recomputed once more, "
    "what `cheap` recomputes not at all."
)


def render(
    rows: Sequence[Row],
    parts: Sequence[Part],
    texts: Mapping[str, float],
    *,
    base: Config,
    hardware: str,
    device: str,
    precision: str,
    peak: float,
    repetitions: int,
    day: datetime,
) -> str:
    """As Markdown."""
    size = "x".join(map(str, base.preprocess.size))
    forward = [row for row in rows if not row.case.trains]
    lines = [
        f"# Step time: {hardware}, {day:%Y-%m-%d}",
        "",
        f"`python benchmarks/step_time.py`, vlm3d-ct {version('vlm3d-ct')}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {torch.get_num_threads()} threads on the CPU. Device {device}, {precision}; "
        f"the plan's encoder and volumes of {size} unless a row says otherwise; texts of {base.text.max_len} tokens "
        "through an encoder of BioBERT's size; random weights, fresh noise for every repetition, medians of "
        f"{repetitions}. Every row is a process of its own. A large product of matrices reaches {peak / 1e12:.2f} "
        "TFLOP/s.",
        "",
        f"Memory is the peak of {'what torch allocated' if device == 'cuda' else 'the whole process'}. {FORMULA}",
        "",
        "## Forward pass of the vision encoder",
        "",
        "| what | batch | patches read | time | against dense | TFLOP | share of the peak | memory |",
        "|---|---|---|---|---|---|---|---|",
        *(_forward_row(row, rows, peak) for row in forward),
        "",
        *_depths({row.case.name: row for row in rows}),
        "## Training step",
        "",
        "Forward pass with losses, backward pass, clipping and AdamW, of one micro-batch.",
        "",
        "| what | batch | read | forward | backward | optimizer | step | TFLOP | of the peak | memory |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_step_row(row, peak) for row in rows if row.case.trains),
        "",
        *_parts(parts),
        *_texts(texts),
    ]
    return "\n".join(lines)


def _forward_row(row: Row, rows: Sequence[Row], peak: float) -> str:
    if not row.seconds:
        return f"| {row.case.name} | {row.case.batch} | did not fit |"
    seconds = row.seconds[0]
    dense = next((r.seconds[0] for r in rows if r.case.name == "dense" and r.seconds), None)
    as_large = not any(setting.startswith("preprocess.size") for setting in row.case.settings)
    ratio = f"{dense * row.case.batch / seconds:.2f} times as fast" if dense is not None and as_large else "-"
    share = row.flops / seconds / peak
    return (
        f"| {row.case.name} | {row.case.batch} | {row.read:.0%} | {seconds:.3g} s | {ratio} | {row.flops / 1e12:.2f} "
        f"| {share:.0%} | {row.gib:.2f} GiB |"
    )


NOTHING = Row(Case("nothing"), [], 0.0, 0, 0.0)


def _depths(rows: Mapping[str, Row]) -> list[str]:
    found = [
        (slices, rows[depth_case(slices).name])
        for slices in DEPTHS
        if rows.get(depth_case(slices).name, NOTHING).seconds
    ]
    steps = [
        f"{fewer} to {more} slices: {other.seconds[0] / one.seconds[0]:.2f} times the time"
        for (fewer, one), (more, other) in pairwise(found)
    ]
    return ["; ".join(steps) + ".", ""] if steps else []


def _step_row(row: Row, peak: float) -> str:
    if not row.seconds:
        return f"| {row.case.name} | {row.case.batch} | did not fit |"
    total = sum(row.seconds)
    times = " | ".join(f"{seconds:.3g} s" for seconds in (*row.seconds, total))
    share = row.flops / total / peak
    return (
        f"| {row.case.name} | {row.case.batch} | {row.read:.0%} | {times} | {row.flops / 1e12:.2f} | {share:.0%} "
        f"| {row.gib:.2f} GiB |"
    )


def _parts(parts: Sequence[Part]) -> list[str]:
    if not parts:
        return []
    total = sum(part.seconds for part in parts)
    rows = sorted(parts, key=lambda part: -part.seconds)
    return [
        "## Where the time goes",
        "",
        "Every part by itself, forward and backward, without attention dropout on a CPU; nothing recomputed.",
        "",
        "| part | time | share |",
        "|---|---|---|",
        *(f"| {part.name} | {part.seconds:.3g} s | {part.seconds / total:.1%} |" for part in rows),
        "",
        f"{', '.join(SMALL)}: together {small_share(parts):.1%}.",
        "",
    ]


def _texts(texts: Mapping[str, float]) -> list[str]:
    if not texts:
        return []
    return [
        "## Texts",
        "",
        "The text side by itself, forward and backward.",
        "",
        "| the BERT | time |",
        "|---|---|",
        *(f"| {way} | {seconds:.3g} s |" for way, seconds in texts.items()),
        "",
    ]
