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
