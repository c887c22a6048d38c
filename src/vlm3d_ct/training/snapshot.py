"""A copy of a run's state that stays what it is while the training goes on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Snapshot:
    """Copies nested dicts and lists of tensors to the CPU, into memory that is kept for the next time.

    It takes as much memory as the tensors do, once. From a GPU the copies are only enqueued, behind the work that is
    under way and before whatever is enqueued later: the device does not wait, and `wait` tells when they have arrived.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, ...], Tensor] = {}
        self._arrived: torch.cuda.Event | None = None

    def take(self, content: Any) -> Any:
        """The same content with its tensors copied; the tensors are overwritten by the next call.

        Not to be written anywhere before `wait` returned.
        """
        used: dict[tuple[str, ...], Tensor] = {}
        copied = self._copy(content, (), used)
        self._buffers = used
        return copied

    def wait(self) -> None:
        """Return when all copies have arrived; from any thread."""
        if self._arrived is not None:
            self._arrived.synchronize()
            self._arrived = None

    def _copy(self, part: Any, path: tuple[str, ...], used: dict[tuple[str, ...], Tensor]) -> Any:
        if isinstance(part, dict):
            return {key: self._copy(value, (*path, repr(key)), used) for key, value in part.items()}
        if isinstance(part, list | tuple):
            return type(part)(self._copy(value, (*path, str(i)), used) for i, value in enumerate(part))
        if not isinstance(part, Tensor):
            return part
        buffer = self._buffers.get(path)
        if buffer is None or buffer.shape != part.shape or buffer.dtype != part.dtype:
            buffer = torch.empty(part.shape, dtype=part.dtype, pin_memory=part.is_cuda)
        buffer.copy_(part.detach(), non_blocking=True)
        if part.is_cuda:
            self._arrived = self._arrived or torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(part.device))
        used[path] = buffer
        return buffer
