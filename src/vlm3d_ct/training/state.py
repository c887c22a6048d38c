"""Weights and optimiser state as one process holds them, whatever share of them each rank has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from vlm3d_ct.distributed import rank
from vlm3d_ct.training.optimizer import full_state_dict


def gather_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What a checkpoint holds as ``model`` and ``optimizer``: the same of a sharded and of a replicated model.

    All ranks call this together; rank 0 gets the state, the others get nothing. Sharded tensors are gathered one at a
    time and arrive on the CPU; others are the live ones, which the next step changes.
    """
    keep = rank() == 0
    state = {"model": in_full(model.state_dict(), keep), "optimizer": in_full(full_state_dict(optimizer), keep)}
    return state if keep else {}


def in_full(value: Any, keep: bool = True) -> Any:
    """Nested dicts and lists with every sharded tensor whole, on the CPU; a rank that does not keep them helps only."""
    if isinstance(value, DTensor):
        full = value.full_tensor()
        return full.cpu() if keep else None
    if isinstance(value, dict):
        return {key: in_full(entry, keep) for key, entry in value.items()}
    if isinstance(value, list):
        return [in_full(entry, keep) for entry in value]
    return value


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load what `gather_state` returned, each rank its share."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    shares = {
        number: {name: _share(entry, parameter) for name, entry in saved["state"][number].items()}
        for number, parameter in zip(numbers, parameters, strict=True)
        if number in saved["state"]
    }
    optimizer.load_state_dict({**saved, "state": shares})


def _share(entry: Tensor, parameter: Tensor) -> Tensor:
    """The moment laid out over the ranks like its parameter; a counter as it is."""
    if not isinstance(parameter, DTensor) or entry.shape != parameter.shape:
        return entry
    mesh, placements = parameter.device_mesh, parameter.placements
    return distribute_tensor(entry, mesh, placements, src_data_rank=None)  # every rank has read it
