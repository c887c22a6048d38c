"""``vlm3d-ct evaluate compare``: evaluations side by side, from their output folders."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vlm3d_ct.cli.arguments import Commands, add_command, existing_directory
from vlm3d_ct.cli.evaluate.shared import add_interval_flags
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.evaluation.compare import compare_runs, read_run
from vlm3d_ct.evaluation.compare_files import comparison_page, format_comparison, write_comparison
from vlm3d_ct.evaluation.results import REPORT_FILE, refuse_other_kind, write_text
from vlm3d_ct.log import say


def add_kind(kinds: Commands[argparse.ArgumentParser]) -> None:
    """Register the kind."""
    parser = add_command(
        kinds,
        "compare",
        "Put evaluations on the same cases side by side, with paired differences from the first.",
        "vlm3d-ct evaluate compare exp_log/a/retrieval exp_log/b/retrieval --output_dir exp_log/a_and_b",
    )
    parser.add_argument("directories", nargs="+", metavar="DIR", help="output folders of evaluations of one kind")
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="results.json, differences.csv, report.html")
    add_interval_flags(parser)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Run ``evaluate compare``."""
    directories = [existing_directory("DIR", path) for path in parsed.directories]
    if len(directories) < 2:
        raise ConfigError("evaluate compare: give the output folders of at least two evaluations.")
    refuse_other_kind(Path(parsed.output_dir), "compare")
    runs = [read_run(path, name) for path, name in zip(directories, _names(directories), strict=True)]
    compared = compare_runs(runs, parsed.num_bootstraps, parsed.seed)
    output_dir = Path(parsed.output_dir)
    write_text(output_dir / REPORT_FILE, comparison_page(compared, runs).render())
    write_comparison(compared, runs, {"num_bootstraps": parsed.num_bootstraps, "seed": parsed.seed}, output_dir)
    say(format_comparison(compared, runs))
    say(f"report: {output_dir / REPORT_FILE}")
    return 0


def _names(directories: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell the folders apart; a folder that is given again is numbered."""
    parts = [path.resolve().parts for path in directories]
    length = next(
        length
        for length in range(1, max(map(len, parts)) + 1)
        if len({each[-length:] for each in parts}) == len(set(parts))
    )
    names = ["/".join(each[-length:]) for each in parts]
    counts = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [name if count == 1 else f"{name} ({count})" for name, count in zip(names, counts, strict=True)]
