"""AdamW as the plan wants it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from vlm3d_ct.config import TrainingConfig


def build_optimizer(modules: Iterable[nn.Module], config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over all parameters; biases, norms and the temperature (everything of one dimension) do not decay."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
