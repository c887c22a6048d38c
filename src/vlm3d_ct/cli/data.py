"""``vlm3d-ct phantom`` and ``verify``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from vlm3d_ct.cli.arguments import Commands, add_command, add_workers
from vlm3d_ct.config import load_config
from vlm3d_ct.data.verify import verify_directory
from vlm3d_ct.errors import ConfigError, DataError
from vlm3d_ct.log import say
from vlm3d_ct.phantom.cohort import write_cohort
from vlm3d_ct.phantom.preview import check_preview, write_preview
from vlm3d_ct.volumes.atomic import write_atomically


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Register the commands."""
    _add_phantom(commands)
    _add_verify(commands)


def _add_phantom(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "phantom",
        "Write a cohort of digital chest phantoms with masks, reports and labels, in the real formats.",
        "vlm3d-ct phantom data/phantoms --patients 1000 --slices 300 --seed 1",
    )
    parser.add_argument("directory", metavar="DIR", help="a new or empty folder; with --append one written before")
    parser.add_argument("--patients", type=int, required=True, metavar="N", help="volumes, one a patient")
    parser.add_argument("--slices", type=int, default=0, metavar="N", help="2D slices of other patients")
    parser.add_argument(
        "--size", choices=("small", "full"), default="small", help="small: 32x96x96; full: 512x512 slices"
    )
    parser.add_argument("--seed", type=int, default=0, help="cohorts of different seeds share no patient (default: 0)")
    parser.add_argument(
        "--hard", action="store_true", help="a test set: acquisition and wording from ranges that training never sees"
    )
    parser.add_argument("--rough_masks", action="store_true", help="region masks with the faults of automatic ones")
    parser.add_argument(
        "--headers",
        choices=("true", "blank"),
        default="true",
        help="blank: stored values without geometry, and metadata.csv, as CT-RATE's first version has them",
    )
    parser.add_argument("--append", action="store_true", help="add N more to a cohort of the same settings")
    parser.add_argument("--preview", metavar="FILE", help="draw some of the volumes, their masks and texts, into a PNG")
    add_workers(parser)
    parser.set_defaults(run=_phantom)


def _add_verify(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "verify",
        "Read everything in a data folder as training would, and list every fault with its remedy.",
        "vlm3d-ct verify data/ctrate --json faults.json",
    )
    parser.add_argument("path", metavar="PATH", help="a data folder, or a configuration (all its data folders)")
    parser.add_argument("--json", metavar="FILE", help="write everything found to a file")
    add_workers(parser)
    parser.set_defaults(run=_verify)


def _phantom(parsed: argparse.Namespace) -> int:
    preview = None if parsed.preview is None else Path(parsed.preview)
    if preview is not None:
        check_preview(preview)
        if parsed.headers == "blank" or parsed.patients == 0:
            raise ConfigError(
                "--preview shows volumes with true headers: drop it, or --headers blank and --patients 0."
            )
    write_cohort(
        Path(parsed.directory),
        patients=parsed.patients,
        slices=parsed.slices,
        size=parsed.size,
        seed=parsed.seed,
        hard=parsed.hard,
        headers=parsed.headers,
        rough_masks=parsed.rough_masks,
        append=parsed.append,
        workers=parsed.workers,
    )
    if preview is not None:
        write_preview(Path(parsed.directory), preview)
        say(f"picture: {preview}")
    return 0


def _verify(parsed: argparse.Namespace) -> int:
    path = Path(parsed.path)
    if path.is_dir():
        directories = [path]
    else:
        data = load_config(path).data
        directories = [Path(folder) for folder in (data.ctrate_dir, data.omniabnorm_dir) if folder is not None]
        if not directories:
            raise ConfigError(f"{path}: data.ctrate_dir and data.omniabnorm_dir are not set: nothing to verify.")
    reports = [verify_directory(directory, workers=parsed.workers) for directory in directories]
    for report in reports:
        for line in report.render():
            say(line)
    if parsed.json is not None:
        text = json.dumps([report.as_dict() for report in reports], indent=1)
        write_atomically(Path(parsed.json), [text.encode()])
    return DataError.exit_code if any(report.problems for report in reports) else 0
