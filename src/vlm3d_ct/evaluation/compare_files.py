"""The files and the page of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vlm3d_ct.evaluation.compare import LOWER_IS_BETTER, Compared, Run
from vlm3d_ct.evaluation.results import format_interval, format_number, write_csv, write_results
from vlm3d_ct.pages.page import Facts, Page, Prose, Section, Table

DIFFERENCES_FILE = "differences.csv"
NOTE = (
    "Differences are a run minus the first, with 95 % intervals from the same drawn patients in both; p is two-sided "
    "and not corrected for the number of rows. A difference says nothing of another training seed. Ranks: lower is "
    "better. Where both runs are at 0 or 1 the interval is the bound that the number of patients sets."
)


def write_comparison(
    compared: Mapping[str, Compared], runs: Sequence[Run], settings: Mapping[str, object], output_dir: Path
) -> None:
    """Write ``differences.csv`` and, last, ``results.json``."""
    header = ("metric", "run", "estimate", "low", "high", "difference", "difference_low", "difference_high", "p_value")
    rows: list[tuple[object, ...]] = []
    for metric, found in compared.items():
        for name, value in found.runs.items():
            row: tuple[object, ...] = (metric, name, value.estimate, value.low, value.high)
            if name in found.differences:
                gap = found.differences[name]
                rows.append((*row, gap.interval.estimate, gap.interval.low, gap.interval.high, gap.p_value))
            else:
                rows.append((*row, "", "", "", ""))
    write_csv(output_dir / DIFFERENCES_FILE, header, rows)
    write_results(
        output_dir,
        "compare",
        {
            "kind_of_runs": runs[0].kind,
            "num_units": len(runs[0].units),
            "first": runs[0].name,
            "metrics": {metric: vars(found) for metric, found in compared.items()},
            "runs": {run.name: run.provenance for run in runs},
            "settings": settings,
        },
    )


def format_comparison(compared: Mapping[str, Compared], runs: Sequence[Run]) -> str:
    """Estimates and differences, for a terminal; the numbers of single classes are in the files."""
    lines = [f"{'':36}" + "".join(f"{run.name:>34}" for run in runs)]
    for metric, found in compared.items():
        if metric.count("/") > 1:
            continue
        cells = [format_interval(found.runs[runs[0].name])]
        for name, gap in found.differences.items():
            cells.append(f"{format_number(found.runs[name].estimate)} ({_signed(gap.interval.estimate)})")
        lines.append(f"{metric:36}" + "".join(f"{cell:>34}" for cell in cells))
    return "\n".join(lines)


def comparison_page(compared: Mapping[str, Compared], runs: Sequence[Run]) -> Page:
    """The report: every number of every run, and its differences from the first."""
    header = ("", *(run.name for run in runs), *(f"{run.name} - {runs[0].name}, p" for run in runs[1:]))
    rows = []
    for metric, found in compared.items():
        digits = 1 if metric.endswith(LOWER_IS_BETTER) else 3
        cells = [format_interval(found.runs[run.name], digits=digits) for run in runs]
        for run in runs[1:]:
            gap = found.differences[run.name]
            cells.append(f"{format_interval(gap.interval, digits=digits)}, p {format_number(gap.p_value)}")
        rows.append((metric, *cells))
    same = len({run.provenance.get("data_list_sha256") for run in runs}) == 1
    data = "The runs saw the same cases and texts." if same else "The runs embedded different lists of cases or texts."
    return Page(
        title="Evaluations side by side",
        lead=f"{len(runs)} runs of kind {runs[0].kind} on the same {len(runs[0].units)} units. {data}",
        sections=(
            Section(title="Numbers", blocks=(Table(header=header, rows=tuple(rows)), Prose(text=NOTE, soft=True))),
            *(
                Section(title=f"Provenance of {run.name}", blocks=(Facts(rows=tuple(run.provenance.items())),))
                for run in runs
            ),
        ),
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}"
