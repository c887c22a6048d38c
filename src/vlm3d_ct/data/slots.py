"""Shared memory that workers fill and the run reads, used again and again.

A batch of the plan's size is 400 MB. The first touch of fresh shared memory costs more than decompressing into it
(decision 0021), so the memory of a batch is given to a later one as soon as nobody in this process holds it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from math import prod
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary, finalize

import numpy as np
import torch
from torch import Tensor

from vlm3d_ct.data.batch import Batch
from vlm3d_ct.data.order import MicroBatchOrder
from vlm3d_ct.errors import ConfigError

SHARED_MEMORY = Path("/dev/shm")
Request = tuple[int | None, list[tuple[int, int]]]
"""What a worker is asked for: the slot to fill (None: memory of its own), and the (epoch, case number) pairs."""

_numbers = itertools.count()
_all_slots: WeakValueDictionary[int, Slots] = WeakValueDictionary()


class Slots:
    """Equal pieces of shared memory, made before the workers start.

    Args:
        count: batches that may be on their way or in use at once; more are possible and take fresh memory.
        nbytes: of the largest batch.

    Raises:
        ConfigError: the shared memory of this machine cannot hold them (a write would end in a bus error).
    """

    def __init__(self, count: int, nbytes: int):
        check_shared_memory(count * nbytes)
        self._memory = [_shared(nbytes) for _ in range(count)]
        self._taken: set[int] = set()
        self.number = next(_numbers)
        _all_slots[self.number] = self

    def take(self) -> int | None:
        """A slot that nobody uses, promised to a worker; None if there is none."""
        free = next((slot for slot in range(len(self._memory)) if slot not in self._taken), None)
        if free is not None:
            self._taken.add(free)
        return free

    def view(self, slot: int, start: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
        """For a worker: the memory from byte ``start`` as an array; None if the slot is too small."""
        return _view(self._memory[slot], start, shape, dtype)

    def receive(self, slot: int) -> Tensor:
        """The filled slot's bytes. It is free again when this tensor and all that share its memory are gone."""
        content = self._memory[slot].numpy()[:]
        finalize(content, self._taken.discard, slot).atexit = False
        return torch.from_numpy(content)  # the tensor's storage keeps `content` alive


@dataclass
class SlotBatch:
    """A batch as a worker sends it: voxels and labels stay in the slot, only their places travel.

    Attributes:
        small: all other fields of the batch. Tensors travel as arrays: torch would pass each through a file of its own,
            handed over by a thread of the worker, and the run would wait for it.
        slots: number of the `Slots`.
        slot: the one that was filled.
        shape: of the voxels.
        dtype: of the voxels.
        labelled: whether labels follow the voxels.
    """

    small: dict[str, Any]
    slots: int
    slot: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    labelled: bool

    def attach(self) -> Batch:
        """The batch with its voxels and labels, in the process that owns the slots."""
        content = _all_slots[self.slots].receive(self.slot)
        voxels = _view(content, 0, self.shape, self.dtype)
        assert voxels is not None
        labels = _view(content, voxels.nbytes, self.shape, torch.uint8) if self.labelled else None
        small: dict[str, Any] = {
            k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in self.small.items()
        }
        return Batch(**small, voxels=voxels, labels=labels)

    def pin_memory(self) -> Batch:
        """The attached batch in page-locked memory; called by the loader's thread, which frees the slot by it."""
        return self.attach().pin_memory()


class Filling:
    """Gives a `Stack` its memory in a worker: out of the slot while it lasts, else fresh."""

    def __init__(self, slots: Slots | None, slot: int | None):
        self._slots, self._slot, self._used = slots, slot, 0
        self._outside = slots is None or slot is None

    def __call__(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory for the next array of the batch."""
        view = None
        if self._slots is not None and self._slot is not None:
            view = self._slots.view(self._slot, self._used, shape, dtype)
        if view is None:
            self._outside = True
            return torch.empty(shape, dtype=dtype)
        self._used += view.nbytes
        return view

    def pack(self, batch: Batch) -> Batch | SlotBatch:
        """The batch as it is to be sent."""
        if self._outside or self._slots is None or self._slot is None:
            return batch
        shape, dtype = tuple(batch.voxels.shape), batch.voxels.dtype
        values = {field.name: getattr(batch, field.name) for field in fields(batch)}
        del values["voxels"], values["labels"]
        small = {k: v.numpy() if isinstance(v, Tensor) else v for k, v in values.items()}
        return SlotBatch(small, self._slots.number, self._slot, shape, dtype, batch.labels is not None)


class RequestOrder:
    """The micro-batches of an order, each with the slot that its worker fills."""

    def __init__(self, order: MicroBatchOrder, slots: Slots | None):
        self._order, self._slots = order, slots

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Request]:
        for keys in self._order:
            yield (None if self._slots is None else self._slots.take()), keys


def check_shared_memory(nbytes: int, folder: Path = SHARED_MEMORY) -> None:
    """Whether the machine's shared memory can hold so much.

    Raises:
        ConfigError: it cannot.
    """
    if not folder.is_dir():
        return  # not Linux: shared memory has no such limit
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if nbytes > free:
        raise ConfigError(
            f"{folder}: the loader needs {nbytes / 1e9:.2f} GB of shared memory and {free / 1e9:.2f} GB are free. "
            "Give the container more (docker run --shm-size=16g, or --ipc=host), or lower data.num_workers, "
            "data.prefetch_factor or training.batch_size; data.num_workers=0 needs none."
        )


def _shared(nbytes: int) -> Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(nbytes))


def _view(memory: Tensor, start: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
    end = start + prod(shape) * dtype.itemsize
    return memory[start:end].view(dtype).view(shape) if end <= len(memory) else None
