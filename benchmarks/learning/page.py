"""The page of the comparison: conditions, goals, tables, plots, and what somebody wrote beside it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from learning.goals import LEAST_SEEDS, Found, goals, interval, mean_recall, show
from learning.records import RECALLS, WAYS, Record, common_findings
from learning.runs import BASE
from learning.variants import FULL, PLAIN, SHORTER, VARIANTS

TABLES: Mapping[str, Mapping[str, str]] = {
    "Retrieval": {f"{name} {words}": f"{name} {words}" for words in WAYS.values() for name in RECALLS},
    "What R@5 depends on": {
        f"{title} {words}".strip(): f"R@5 {words}{suffix}"
        for title, suffix in (
            ("", ""),
            ("before fine-tuning", " before fine-tuning"),
            ("masks withheld", " without masks"),
            ("hard set", " hard"),
            ("hard scans only", " scans"),
            ("hard words only", " words"),
        )
        for words in WAYS.values()
    },
    "Findings and regions": {
        "AUROC": "AUROC",
        "whole volumes": "AUROC, whole volumes",
        "findings below 0.65": "findings below",
        "alignment, true masks": "alignment, true masks",
        "predicted": "alignment, predicted masks",
        "none": "alignment, none masks",
        "pointing": "pointing",
    },
    "Cost and health": {
        "parameters (M)": "parameters",
        "effective rank": "volume effective rank",
        "mean cosine": "volume mean cosine",
    },
}
"""Tables by title: the figure of each column by its heading."""
COMPARED: Mapping[str, tuple[int, Callable[[Record], float]]] = {
    "R@5": (1, mean_recall),
    "R@5, hard scans": (1, lambda record: mean_recall(record, " scans")),
    "AUROC": (3, lambda record: record.figures["AUROC"]),
    "whole volumes": (3, lambda record: record.figures["AUROC, whole volumes"]),
    "pointing": (1, lambda record: record.figures["pointing"]),
}
"""What variants are compared by, seed by seed: decimals and the figure."""
NOTES = "benchmark_notes.md"


def render(found: Found, plots: Sequence[tuple[str, str]], notes: Path) -> str:
    """The page.

    Args:
        found: the records by variant; those without any have no row.
        plots: (description, path from the page) of each picture.
        notes: of what is written by hand; included where it exists.
    """
    found = {name: found[name] for name in VARIANTS if found.get(name)}
    lines = ["# Does it learn what it claims? On phantoms", "", *_conditions(found), "", "## Goals", ""]
    lines += ["| goal | the full design | |", "|---|---|---|"]
    lines += [f"| {what} | {reached} | {verdict} |" for what, reached, verdict in goals(found)]
    lines += ["", "## Seed by seed", "", *_seed_by_seed(found)]
    for title, columns in TABLES.items():
        lines += ["", f"## {title}", "", *_table(found, columns)]
    lines += ["", "## By finding", "", *_by_finding(found), ""]
    lines += [f"![{description}]({path})" for description, path in plots]
    lines += ["", "## The variants", ""]
    lines += [f"- **{name}**: {variant.about}." for name, variant in VARIANTS.items()]
    if notes.exists():
        lines += ["", notes.read_text(encoding="utf-8").strip()]
    return "\n".join([*lines, ""])


def _conditions(found: Found) -> Iterator[str]:
    yield (
        "`python benchmarks/compare_variants.py`. Nothing here is about patients, nothing is a CT-RATE result. "
        "Recalls, alignment and pointing in %; means over seeds ± half the 95 % interval (Student's t), of two seeds "
        "both. AUROC is zero-shot: prompts against the regions that they speak of where sentences were trained so, "
        "else against whole volumes."
    )
    yield f"Settings: `configs/demo_pretrain.yaml`, then `configs/demo_finetune.yaml`, with `{' '.join(BASE)}`."
    told: dict[str, list[str]] = {}
    for name, records in found.items():
        for record in records:
            words = ", ".join(f"{key} {value}" for key, value in record.conditions.items())
            told.setdefault(words, []).append(f"{name} ({record.seed})")
    for words, runs in told.items():
        yield ""
        yield f"- {words}: {', '.join(runs)}."


def _table(found: Found, columns: Mapping[str, str]) -> Iterator[str]:
    yield "| variant | seeds | minutes | " + " | ".join(columns) + " |"
    yield "|---" * (len(columns) + 3) + "|"
    for name, records in found.items():
        cells = [_cell(records, key) for key in columns.values()]
        minutes = statistics.fmean(record.minutes for record in records)
        yield f"| {name} | {len(records)} | {minutes:.1f} | {' | '.join(cells)} |"


def _cell(records: Sequence[Record], key: str) -> str:
    """Nothing where a run that was recorded earlier did not measure it."""
    values = [record.figures[key] for record in records if key in record.figures]
    if len(values) < LEAST_SEEDS:
        return ", ".join(show(value, float("nan")) for value in values)
    return show(*interval(values))


def _seed_by_seed(found: Found) -> Iterator[str]:
    """What each variant has less or more than the full design of the same seed, whose luck they share."""
    yield (
        "A variant's figure less that of the full design with as much time and the same seed, which sees the same "
        "cases in the same order: mean ± half the 95 % interval of the differences, of two seeds both. R@5 is the mean "
        "of both ways."
    )
    yield ""
    yield "| variant | seeds | " + " | ".join(COMPARED) + " |"
    yield "|---" * (len(COMPARED) + 2) + "|"
    for name, records in found.items():
        base = SHORTER if not VARIANTS[name].takes_long and SHORTER in found else FULL
        others = {record.seed: record for record in found.get(base, ())}
        pairs = [(record, others[record.seed]) for record in records if record.seed in others]
        if name in (FULL, SHORTER) or not pairs:
            continue
        cells = [
            _signed([measure(one) - measure(other) for one, other in pairs], digits)
            for digits, measure in COMPARED.values()
        ]
        yield f"| {name} | {len(pairs)} | {' | '.join(cells)} |"


def _signed(differences: Sequence[float], digits: int) -> str:
    if len(differences) < LEAST_SEEDS:
        return ", ".join(f"{difference:+.{digits}f}" for difference in differences)
    mean, half = interval(differences)
    return f"{mean:+.{digits}f} ± {half:.{digits}f}"


def _by_finding(found: Found) -> Iterator[str]:
    shown: Mapping[str, Sequence[Record]] = {name: found[name] for name in (FULL, PLAIN) if name in found}
    yield "Zero-shot AUROC."
    yield ""
    yield "| finding | " + " | ".join(shown) + " |"
    yield "|---" * (len(shown) + 1) + "|"
    for finding in common_findings(record for records in shown.values() for record in records):
        cells = [show(*interval([record.auroc[finding] for record in records])) for records in shown.values()]
        yield f"| {finding} | {' | '.join(cells)} |"
