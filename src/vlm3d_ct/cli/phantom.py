"""``vlm3d-ct phantom``."""

from __future__ import annotations

import argparse
from pathlib import Path

from vlm3d_ct.cli.arguments import Commands, add_command, add_workers
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.log import say
from vlm3d_ct.phantom.cohort import write_cohort
from vlm3d_ct.phantom.preview import check_preview, write_preview


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Register the command."""
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
        "--hard",
        choices=("scans", "words", "both"),
        nargs="?",
        const="both",
        default="none",
        help="a test set: acquisition, wording, or (if nothing follows) both from ranges that training never sees",
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
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
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
    say(f"written: {parsed.patients} volumes and {parsed.slices} slices in {parsed.directory}")
    if preview is not None:
        write_preview(Path(parsed.directory), preview)
        say(f"picture: {preview}")
    return 0
