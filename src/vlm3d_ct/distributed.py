"""Several processes as one: ranks, gathers with and without gradient, agreement."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from vlm3d_ct.errors import ConfigError, UserError

T = TypeVar("T")
TIMEOUT = timedelta(minutes=10)
"""A collective that waits longer than this means a lost rank: the process ends with an error. Training sets its own,
`training.timeout_minutes`."""


def launched_rank() -> int:
    """The rank the launcher gave this process; 0 without a launcher, known before any process group exists."""
    return int(os.environ.get("RANK", "0"))


def launched_world_size() -> int:
    """The number of processes that the launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def pick_device() -> torch.device:
    """This rank's GPU where there is CUDA, else the CPU."""
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        return device
    return torch.device("cpu")


@contextmanager
def process_group(device: torch.device, timeout: timedelta = TIMEOUT) -> Iterator[None]:
    """The process group of a launched run (nccl on GPUs, gloo on CPUs); nothing for a single process.

    Args:
        device: of this rank.
        timeout: how long a rank waits for the others in a collective before it takes one of them for lost and fails.
    """
    if launched_world_size() == 1:
        yield
        return
    store, own_rank, size = next(iter(rendezvous("env://", timeout=timeout)))
    ours = PrefixStore(meet(store, own_rank, size, timeout), store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=ours, rank=own_rank, world_size=size, timeout=timeout)
    try:
        yield
    finally:
        dist.destroy_process_group()


def meet(store: Store, own_rank: int, size: int, timeout: timedelta) -> str:
    """A name that exactly these processes agree on, whatever others left in the store before them.

    torchrun keeps one store over all its restarts, and torch writes each attempt's addresses under the same keys: a
    restarted rank that looks before the other has written connects to a process that is dead. The number of the restart
    would not do as a name, since each node's launcher counts its own.

    Rank 0 offers a name, the others sign it, and rank 0 confirms their signatures: all of them new, so that neither an
    offer nor a confirmation of an earlier attempt is taken for one of this. The processes of earlier attempts must be
    dead, as a launcher sees to before it starts anew: a living one could sign in another's place.

    Raises:
        TimeoutError, DistStoreError: not all ranks came.
    """
    own = uuid4().hex
    if own_rank == 0:
        store.set("meeting", own)
        for other in range(1, size):
            signature = store.get(f"{own}/{other}").decode()
            store.set(f"{own}/{other}/{signature}", "confirmed")
        return own
    deadline = time.monotonic() + timeout.total_seconds()
    while time.monotonic() < deadline:
        offered: str = store.get("meeting").decode()
        store.set(f"{offered}/{own_rank}", own)
        if store.check([f"{offered}/{own_rank}/{own}"]):
            return offered
        time.sleep(0.02)
    raise TimeoutError(f"rank {own_rank}: rank 0 did not come within {timeout}")


def rank() -> int:
    """This process's rank in the running group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of ranks in the running group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait for all ranks."""
    if dist.is_initialized():
        dist.barrier()


def replicate(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on its device, wrapped so that gradients are averaged over the ranks."""
    model = model.to(device)
    if world_size() == 1:
        return model
    return DistributedDataParallel(
        model, device_ids=[device.index] if device.type == "cuda" else None, gradient_as_bucket_view=True
    )


def gather_with_gradient(local: Tensor) -> Tensor:
    """All ranks' rows, in rank order; the gradient flows back to every rank that contributed.

    Each rank then computes the loss of the whole step. The backward pass sums over ranks what their (equal) losses ask
    of a row, i.e. world_size times its gradient, and the average of `replicate` divides by world_size: the result is
    exactly the gradient of one process that holds the whole step.
    """
    if world_size() == 1:
        return local
    if local.numel() == 0:  # of a level that is switched off: on every rank, so that nothing is asked of the backend
        return torch.cat([local] * world_size())
    gathered: Tensor = _Gather.apply(local)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """`gather`, whose backward pass sums over the ranks.

    Not `torch.distributed.nn.functional.all_gather`: with gloo its backward pass receives contiguous rows into memory
    laid out like the gradient, and where that is transposed, as in the region loss, they are in disorder (torch 2.13).
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        return gather(local)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        whole = sum_over_ranks(gradient.contiguous())
        own: Tensor = whole.chunk(world_size())[rank()]
        return own


def gather(local: Tensor) -> Tensor:
    """All ranks' rows, in rank order, without gradient."""
    if world_size() == 1:
        return local
    if local.numel() == 0:
        return torch.cat([local] * world_size())
    parts = [torch.empty_like(local) for _ in range(world_size())]
    dist.all_gather(parts, local.contiguous())
    return torch.cat(parts)


def gather_objects(local: T, timeout: timedelta | None = None) -> list[T]:
    """Every rank's picklable object, in rank order, on every rank (our own processes: the pickle is trusted).

    With a ``timeout`` of its own the ranks may be further apart than the timeout of `process_group`.
    """
    if world_size() == 1:
        return [local]
    parts: list[Any] = [None] * world_size()
    group = None if timeout is None else dist.new_group(backend="gloo", timeout=timeout)
    dist.all_gather_object(parts, local, group=group)
    if group is not None:
        dist.destroy_process_group(group)
    return parts


def from_main_rank(find: Callable[[], T], timeout: timedelta | None = None) -> T:
    """What ``find`` returns on rank 0, on every rank: of a folder that changes, or that a second machine sees a moment
    later, each rank would find something else.

    Args:
        find: called on rank 0 only; its result is pickled.
        timeout: how long the others wait for it, where that is longer than the timeout of `process_group`.

    Raises:
        Exception: as `leaving_together`, where ``find`` fails.
    """
    if world_size() == 1:
        return find()
    with leaving_together(timeout):
        found = [find() if rank() == 0 else None]
    group = dist.new_group(backend="gloo", timeout=timeout)  # nccl would take the pickle through the GPUs' memory
    dist.broadcast_object_list(found, src=0, group=group)
    dist.destroy_process_group(group)
    return cast(T, found[0])


@contextmanager
def leaving_together(timeout: timedelta | None = None) -> Iterator[None]:
    """What fails on one rank in the block ends all of them, together after it: none is left waiting for the others.

    All ranks enter it, and no collective may be in it. With a ``timeout`` of its own they may be further apart than
    that of `process_group`.

    Raises:
        ConfigError: on the others, where what failed is a user's error; a failed rank raises what it has.
        RuntimeError: on the others, where it is not.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    told = None if failure is None else (isinstance(failure, UserError), str(failure) or repr(failure))
    try:
        everywhere = gather_objects(told, timeout)
    except Exception:
        if failure is None:
            raise
        raise failure from None  # what failed here matters more than that another rank did not come to hear of it
    if failure is not None:
        raise failure
    for number, found in enumerate(everywhere):
        if found is not None:
            by_user, text = found
            raise ConfigError(text) if by_user else RuntimeError(f"rank {number} failed: {text}")


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum over all ranks."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set on any rank; every rank gets the same answer."""
    if world_size() == 1:
        return flag
    value = torch.tensor(int(flag), device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())
