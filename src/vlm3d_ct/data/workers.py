"""Running one task over many cases in worker processes, so that no case and no dead worker stops the others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import TypeVar

from vlm3d_ct.data.case import Case
from vlm3d_ct.errors import DataError
from vlm3d_ct.volumes.faults import fault

R = TypeVar("R")


def map_cases(
    task: Callable[[Case], R], cases: Iterable[Case], workers: int
) -> Generator[tuple[Case, R | DataError], None, None]:
    """Yield each case with the task's result, or with the `DataError` that it raised, in order of completion.

    If a worker dies (killed for memory, a crash in a library), the cases it may have been at are tried again one by
    one, and only the one that kills its worker once more is given up.

    Args:
        task: a picklable function; other exceptions than `DataError` end the whole.
        cases: what to run over.
        workers: processes; 0 runs in this one.
    """
    if workers == 0:
        for case in cases:
            yield case, _attempt(task, case)
        return
    waiting = deque(cases)
    suspects: deque[Case] = deque()
    while waiting or suspects:
        if suspects:
            alone = suspects.popleft()
            for lost in (yield from _run_pool(task, deque([alone]), 1)):
                yield lost, _died(lost)
        else:
            suspects.extend((yield from _run_pool(task, waiting, workers)))


def _attempt(task: Callable[[Case], R], case: Case) -> R | DataError:
    try:
        return task(case)
    except DataError as error:
        return error


def _run_pool(
    task: Callable[[Case], R], waiting: deque[Case], workers: int
) -> Generator[tuple[Case, R | DataError], None, list[Case]]:
    """Run until ``waiting`` is empty; returns the cases that were under way when a worker died."""
    running: dict[Future[R | DataError], Case] = {}
    with _single_threaded():
        pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)
        try:
            while waiting or running:
                while waiting and len(running) < 2 * workers:
                    future = pool.submit(_attempt, task, waiting[0])
                    running[future] = waiting.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    yield running.pop(future), result
        except BrokenProcessPool:
            return list(running.values())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return []


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Workers started inside use one thread each for matrix products."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _died(case: Case) -> DataError:
    message = "The process that read this case was killed twice, most likely for want of memory."
    remedy = "Run again with fewer workers; if that does not help, leave the case out."
    return fault("worker-died", case.image_paths[0], "case", case.case_id, message, remedy)
