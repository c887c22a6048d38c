"""From raw cases to the cache: read, check, preprocess, store. May be stopped and started again at any moment."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

from vlm3d_ct.data.cache import Cache
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.load import load_and_preprocess
from vlm3d_ct.data.workers import map_cases
from vlm3d_ct.errors import ConfigError, Problem, Stopped
from vlm3d_ct.log import progress, say
from vlm3d_ct.volumes.preprocess import Preprocess

COMPRESSED_SHARE = 0.6
"""Size of an entry against its voxels: 0.56-0.59 measured on a thoracic CT at 64x512x512, with and without noise."""


@dataclass(frozen=True, kw_only=True)
class PrepareSummary:
    """What preparing came to.

    Attributes:
        prepared: cases that were made now.
        already: cases whose entries were there and current.
        unusable: cases that could not be made; ``problems`` says why.
        problems: in the order in which they were found.
    """

    prepared: int
    already: int
    unusable: tuple[Case, ...]
    problems: tuple[Problem, ...]


def prepare_cases(
    cases: Sequence[Case],
    preprocess: Preprocess,
    cache: Cache,
    *,
    workers: int,
    shard: tuple[int, int] = (1, 1),
    stopping: Callable[[], bool] = lambda: False,
) -> PrepareSummary:
    """Bring the cache up to date for these cases; those that are current are left as they are.

    Args:
        cases: what to prepare.
        preprocess: how; its fingerprint must be the cache's.
        cache: where to.
        workers: processes; 0 runs in this one.
        shard: (i, n) takes every n-th case from the i-th on, i in 1..n, so that n machines share the work.
        stopping: asked between cases; once it says yes no further case is begun.

    Raises:
        Stopped: ``stopping`` said yes; what is prepared stays.
        ConfigError: the shard does not exist, or the disk is too small or refuses.
    """
    if preprocess.fingerprint != cache.fingerprint:
        raise ValueError(f"cache {cache.fingerprint} is not of preprocessing {preprocess.fingerprint}")
    index, count = shard
    if not 1 <= index <= count:
        raise ConfigError(f"--shard {index}/{count}: give I/N with I in 1..N.")
    cache.remove_stray_files()
    states = [(case, cache.is_current(case)) for case in cases]
    _announce([case for case, current in states if not current], len(cases), preprocess, cache.root)
    own = states[index - 1 :: count]
    missing = [case for case, current in own if not current]
    already = len(own) - len(missing)
    unusable: list[Case] = []
    problems: list[Problem] = []
    task = partial(_prepare_one, preprocess=preprocess, cache=cache)
    with (
        progress("Preparing", total=len(own), initial=already) as ticker,
        closing(map_cases(task, missing, workers)) as results,
    ):
        _stop_if(stopping)
        for case, error in results:
            if error is not None:
                unusable.append(case)
                problems.extend(error.problems)
            ticker.advance()
            _stop_if(stopping)
    return PrepareSummary(
        prepared=len(missing) - len(unusable),
        already=already,
        unusable=tuple(unusable),
        problems=tuple(problems),
    )


def _prepare_one(case: Case, *, preprocess: Preprocess, cache: Cache) -> None:
    cache.write(case, load_and_preprocess(case, preprocess))


def _stop_if(stopping: Callable[[], bool]) -> None:
    if stopping():
        raise Stopped("stopped while preparing; start the same command again to continue.")


def _announce(missing: Sequence[Case], total: int, preprocess: Preprocess, root: Path) -> None:
    """Say how much work and disk it will be, for all shards together; refuse if the disk cannot hold it."""
    volumes = sum(case.kind == "volume" for case in missing)
    voxel_bytes = 2 * volumes * prod(preprocess.size) + (len(missing) - volumes) * prod(preprocess.slice_size)
    needed = round(COMPRESSED_SHARE * voxel_bytes)
    existing = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if missing:
        say(f"{len(missing)} of {total} cases to prepare, about {needed / 1e9:.2f} GB in {root}.")
    else:
        say(f"All {total} cases are prepared in {root}.")
    if needed > free:
        raise ConfigError(
            f"{root}: preparing needs about {needed} bytes and {free} are free. "
            "Free space, set data.cache_dir to another disk, or make preprocess.size smaller."
        )
