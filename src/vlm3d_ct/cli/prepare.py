"""``vlm3d-ct prepare``."""

from __future__ import annotations

import argparse

from vlm3d_ct.cli.arguments import Commands, add_command, add_config_flags, add_workers, read_config
from vlm3d_ct.data.cohort import find_cohort
from vlm3d_ct.data.dataset import open_cache
from vlm3d_ct.data.left_out import left_out_lines, write_left_out
from vlm3d_ct.data.prepare import prepare_cases
from vlm3d_ct.data.stopping import stopped_by_signals
from vlm3d_ct.errors import ConfigError, DataError
from vlm3d_ct.log import say
from vlm3d_ct.volumes.preprocess import Preprocess


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Register the command."""
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
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="let the workers of this dask scheduler do it; they must see the same paths (extra: cluster)",
    )
    add_workers(parser)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        DataError: cases cannot be used and `data.on_invalid` is ``error``; all others are prepared.
        Stopped: a signal asked for it.
    """
    config, shard = read_config(parsed), _shard(parsed.shard)
    with stopped_by_signals("preparing"):
        cohort, cache = find_cohort(config), open_cache(config)
        summary = prepare_cases(
            (*cohort.training, *cohort.validation),
            Preprocess.from_config(config.preprocess),
            cache,
            workers=parsed.workers,
            shard=shard,
            dask=parsed.dask,
        )
        path = write_left_out(summary, cache, shard)
    say(f"{summary.prepared} cases prepared, {summary.already} were ready, {len(summary.left_out)} left out")
    for line in left_out_lines(summary):
        say(line)
    if summary.left_out:
        say(f"All of them with file, value and remedy: {path}")
        if config.data.on_invalid == "error":
            raise DataError(summary.problems)
    return 0


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit()):
        raise ConfigError(f"--shard {text}: give I/N with I in 1..N, such as 3/8.")
    return int(index), int(count)
