"""From raw cases to the cache: read, check, preprocess, store. May be stopped and started again at any moment."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

from vlm3d_ct.data.cache import Cache, sources_still_there
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.cluster import dask_cluster
from vlm3d_ct.data.load import load_and_preprocess
from vlm3d_ct.data.workers import map_cases
from vlm3d_ct.errors import ConfigError, DataError, Problem, Stopped
from vlm3d_ct.log import format_seconds, progress, say
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.volumes.preprocess import Preprocess

COMPRESSED_SHARE = 0.6
"""Size of an entry against its voxels: 0.56-0.59 measured on a thoracic CT at 64x512x512, with and without noise."""
VOXEL_BYTES = {"int16": 2.0, "uint8": 1.3}
"""Of a volume's voxel, before compression; 8 bits compress less: 0.65 of an entry in 16 (benchmarks/data_speed.py)."""
SURVEY_THREADS = 16
"""Entries looked at side by side: on a shared disk each look is a wait."""

Task = Callable[[Case], float]
Results = Generator[tuple[Case, float | DataError], None, None]


@dataclass(frozen=True, kw_only=True)
class PrepareSummary:
    """What preparing came to.

    Attributes:
        prepared: cases that were made now.
        already: cases whose entries were there and current.
        left_out: cases that could not be made, in the order in which they were given, each with why.
    """

    prepared: int
    already: int
    left_out: tuple[tuple[Case, DataError], ...]

    @property
    def unusable(self) -> tuple[Case, ...]:
        """The cases that were left out."""
        return tuple(case for case, _ in self.left_out)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All faults of the cases that were left out."""
        return tuple(problem for _, error in self.left_out for problem in error.problems)


@dataclass(frozen=True)
class _State:
    """A case, whether its entry is current, and the bytes of its files."""

    case: Case
    current: bool
    nbytes: int


def prepare_cases(
    cases: Sequence[Case],
    preprocess: Preprocess,
    cache: Cache,
    *,
    workers: int,
    shard: tuple[int, int] = (1, 1),
    dask: str | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> PrepareSummary:
    """Bring the cache up to date for these cases; those that are current are left as they are.

    Args:
        cases: what to prepare.
        preprocess: how; its fingerprint must be the cache's.
        cache: where to.
        workers: processes; 0 runs in this one.
        shard: (i, n) takes every n-th case from the i-th on, i in 1..n, so that n machines share the work.
        dask: address of a scheduler whose workers do the work instead of ``workers``.
        stopping: asked between cases; once it says yes no further case is begun.

    Raises:
        ConfigError: the shard does not exist, the disk is too small or refuses, or there is no such cluster.
        Stopped: ``stopping`` said yes; what is prepared stays.
    """
    index, count = shard
    if not 1 <= index <= count:
        raise ConfigError(f"--shard {index}/{count}: give I/N with I in 1..N.")
    task = partial(prepare_case, preprocess=preprocess, cache=cache)
    with ExitStack() as stack:
        cache.remove_stray_files()
        with ThreadPoolExecutor(SURVEY_THREADS) as threads:
            states = list(threads.map(partial(_look_at, cache=cache), cases))
        _announce(states, preprocess, cache.root)
        own = states[index - 1 :: count]
        missing = [state for state in own if not state.current]
        if dask is None or not missing:
            return _run(own, missing, lambda todo: map_cases(task, todo, workers), workers, stopping)
        cluster = stack.enter_context(dask_cluster(dask))
        return _run(own, missing, lambda todo: cluster.map_cases(task, todo), cluster.workers, stopping)


def prepare_case(case: Case, *, preprocess: Preprocess, cache: Cache) -> float:
    """Make the entry of one case; returns the seconds that it took.

    Raises:
        DataError: with every problem of the case's files.
        ConfigError: the disk refuses.
    """
    if preprocess.fingerprint != cache.fingerprint:  # on a cluster: a worker with another version of this package
        raise ConfigError(
            f"{cache.root}: the cache is of preprocessing {cache.fingerprint}, this process prepares "
            f"{preprocess.fingerprint}. Install the same version of vlm3d-ct on all machines."
        )
    start = time.perf_counter()
    sources = sources_still_there(case) or []  # loading says which file is absent
    cache.write(case, load_and_preprocess(case, preprocess), sources)
    return time.perf_counter() - start


def _look_at(case: Case, *, cache: Cache) -> _State:
    if cache.is_current(case):
        return _State(case, True, 0)
    paths = [path for path in dict.fromkeys((*case.image_paths, *case.mask_paths)) if path.exists()]
    return _State(case, False, sum(path.stat().st_size for path in paths))


def _run(
    own: Sequence[_State],
    missing: Sequence[_State],
    run: Callable[[Sequence[Case]], Results],
    workers: int,
    stopping: Callable[[], bool],
) -> PrepareSummary:
    # mixed, so that large and small cases, volumes and slices, come evenly: the first ones then speak for all
    mixed = [missing[i] for i in random_stream("prepare", len(missing)).permutation(len(missing))]
    nbytes = {(state.case.kind, state.case.case_id): state.nbytes for state in mixed}
    place = {key: number for number, key in enumerate((state.case.kind, state.case.case_id) for state in own)}
    first, left, seen_bytes, seen_s = max(1, workers), sum(nbytes.values()), 0, 0.0
    faults: list[tuple[Case, DataError]] = []
    with (
        progress("Preparing", total=len(own), initial=len(own) - len(missing)) as ticker,
        closing(run([state.case for state in mixed])) as results,
    ):
        _stop_if(stopping)
        for done, (case, result) in enumerate(results, 1):
            size = nbytes[case.kind, case.case_id]
            left -= size
            if isinstance(result, DataError):
                faults.append((case, result))
            else:
                seen_bytes, seen_s = seen_bytes + size, seen_s + result
            if done == first < len(mixed) and seen_bytes:
                seconds = seen_s / seen_bytes * left / first
                say(f"It takes about {format_seconds(seconds)} more, {first} cases at a time (measured on {done}).")
            ticker.advance()
            _stop_if(stopping)
    return PrepareSummary(
        prepared=len(missing) - len(faults),
        already=len(own) - len(missing),
        left_out=tuple(sorted(faults, key=lambda item: place[item[0].kind, item[0].case_id])),
    )


def _stop_if(stopping: Callable[[], bool]) -> None:
    if stopping():
        raise Stopped("stopped while preparing; start the same command again to continue.")


def _announce(states: Sequence[_State], preprocess: Preprocess, root: Path) -> None:
    """Say how much work and disk it will be, for all shards together; refuse if the disk cannot hold it."""
    missing = [state.case for state in states if not state.current]
    volumes = sum(case.kind == "volume" for case in missing)
    volume_bytes = VOXEL_BYTES[preprocess.precision] * prod(preprocess.size)
    voxel_bytes = volumes * volume_bytes + (len(missing) - volumes) * prod(preprocess.slice_size)
    needed = round(COMPRESSED_SHARE * voxel_bytes)
    if not missing:
        say(f"All {len(states)} cases are prepared in {root}.")
        return
    say(f"{len(missing)} of {len(states)} cases to prepare, about {needed / 1e9:.2f} GB in {root}.")
    existing = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise ConfigError(
            f"{root}: preparing needs about {needed} bytes and {free} are free. "
            "Free space, set data.cache_dir to another disk, or make preprocess.size smaller."
        )
    status = os.statvfs(existing)
    if status.f_files > 0 and status.f_favail < len(missing):  # some file systems have no fixed number and say 0
        raise ConfigError(
            f"{root}: preparing makes {len(missing)} files and the disk has room for {status.f_favail} more (inodes). "
            "Remove files, or set data.cache_dir to another disk."
        )
