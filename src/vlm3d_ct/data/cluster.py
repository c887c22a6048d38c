"""Running one task over many cases on a dask cluster, through joblib. Needs the extra ``cluster``."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from vlm3d_ct.data.case import Case
from vlm3d_ct.errors import ConfigError, DataError

R = TypeVar("R")
LONGEST_CONNECTION_S = 20
"""How long to try to reach the scheduler."""


class DaskCluster:
    """The workers of a dask scheduler; made by `dask_cluster`."""

    def __init__(self, client: Any):
        self._client = client

    @property
    def workers(self) -> int:
        """Cases that the cluster works at side by side."""
        return sum(self._client.nthreads().values())

    def map_cases(
        self, task: Callable[[Case], R], cases: Iterable[Case]
    ) -> Generator[tuple[Case, R | DataError], None, None]:
        """As `workers.map_cases`, but for a case that kills its worker again and again, which ends the whole.

        Raises:
            ConfigError: the cluster gave a case up.
        """
        from distributed.scheduler import KilledWorker
        from joblib import Parallel, delayed, parallel_config

        with parallel_config(backend="dask", client=self._client):
            parallel = Parallel(n_jobs=-1, return_as="generator_unordered", batch_size=1)
            try:
                yield from parallel(delayed(_attempt)(task, case) for case in cases)
            except KilledWorker as error:
                raise ConfigError(
                    f"--dask: a case killed its workers, most likely for want of memory ({error}). Give the workers "
                    "more, or prepare without --dask, which names the case; what is done stays."
                ) from error


@contextmanager
def dask_cluster(address: str) -> Iterator[DaskCluster]:
    """Connect to a scheduler. Its workers must see the data and the cache under the same paths.

    Args:
        address: such as ``tcp://head-node:8786``.

    Raises:
        ConfigError: the extra is not installed, nothing answers there, or it has no worker.
    """
    try:
        import joblib  # noqa: F401 - needed as well; asked for here, so that the message comes early

        from distributed import Client
    except ImportError as error:
        raise ConfigError(f"--dask needs the extra `cluster` ({error}): pip install 'vlm3d-ct[cluster]'.") from error
    try:
        client = Client(address, timeout=LONGEST_CONNECTION_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--dask {address}: no scheduler answers there ({error}). Give its tcp:// address."
        ) from error
    with client:
        cluster = DaskCluster(client)
        if cluster.workers == 0:
            raise ConfigError(f"--dask {address}: the scheduler has no workers. Start some: `dask worker {address}`.")
        yield cluster


def _attempt(task: Callable[[Case], R], case: Case) -> tuple[Case, R | DataError]:
    try:
        return case, task(case)
    except DataError as error:
        return case, error
