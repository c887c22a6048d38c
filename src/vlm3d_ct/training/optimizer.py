"""AdamW as the plan wants it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from vlm3d_ct.config import TrainingConfig


def build_optimizer(modules: Iterable[nn.Module], config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over all parameters; biases, norms and the temperature (everything of one dimension) do not decay.

    No group mixes modules: one may be sharded over the ranks, the other not, and the fused kernel takes one kind.
    """
    groups: list[dict[str, Any]] = []
    for module in modules:
        parameters = [p for p in module.parameters() if p.requires_grad]
        groups.append({"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay})
        groups.append({"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0})
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def full_state_dict(optimizer: torch.optim.AdamW) -> dict[str, Any]:
    """The optimizer's state dict as it is from its first step on: before that, with zeros in place of the moments."""
    state: dict[str, Any] = optimizer.state_dict()
    if not state["state"]:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        numbers = [number for group in state["param_groups"] for number in group["params"]]
        for number, parameter in zip(numbers, parameters, strict=True):
            moments = {name: torch.zeros_like(parameter, requires_grad=False) for name in ("exp_avg", "exp_avg_sq")}
            state["state"][number] = {"step": torch.zeros((), device=parameter.device), **moments}
    return state
