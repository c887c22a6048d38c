"""``vlm3d-ct phantom`` and ``prepare``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from vlm3d_ct.cli.arguments import Commands, add_command, add_config_flags, read_config
from vlm3d_ct.data.cohort import find_cohort, refuse_or_skip
from vlm3d_ct.data.dataset import open_cache
from vlm3d_ct.data.prepare import prepare_cases
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.log import say
from vlm3d_ct.phantom.cohort import write_cohort
from vlm3d_ct.phantom.preview import check_preview, write_preview
from vlm3d_ct.volumes.preprocess import Preprocess


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Register the commands."""
    _add_phantom(commands)
    _add_prepare(commands)


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
    _add_workers(parser)
    parser.set_defaults(run=_phantom)


def _add_prepare(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "prepare",
        "Read, check and resize every case once, into the cache. Can be interrupted and started again.",
        "vlm3d-ct prepare --config configs/pretrain_ctrate.yaml --workers 16",
    )
    add_config_flags(parser)
    parser.add_argument(
        "--shard", default="1/1", metavar="I/N", help="the I-th of N shares, for a cluster's array jobs"
    )
    _add_workers(parser)
    parser.set_defaults(run=_prepare)


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: cores)"
    )


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


def _prepare(parsed: argparse.Namespace) -> int:
    config = read_config(parsed)
    cohort = find_cohort(config)
    summary = prepare_cases(
        (*cohort.training, *cohort.validation),
        Preprocess.from_config(config.preprocess),
        open_cache(config),
        workers=parsed.workers,
        shard=_shard(parsed.shard),
    )
    say(f"{summary.prepared} cases prepared, {summary.already} were ready, {len(summary.unusable)} left out")
    refuse_or_skip(summary.problems, config)
    return 0


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit()):
        raise ConfigError(f"--shard {text}: give I/N with I in 1..N, such as 3/8.")
    return int(index), int(count)
