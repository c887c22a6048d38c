"""AdamW as the plan wants it, and Muon for the matrices of the blocks as an alternative."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from vlm3d_ct.config import TrainingConfig

MUON_MOMENTUM = 0.95
"""Jordan et al. (2024)."""


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for some matrices and AdamW for all else, as one optimizer.

    Muon makes a step's matrix orthogonal: no direction of a layer's weights learns faster than another. Its step has
    the root mean square of AdamW's (Liu et al. 2025, "Muon is Scalable for LLM Training"), so that both take one
    learning rate and one decay.

    Args:
        others: AdamW's groups.
        matrices: what Muon moves, all of two dimensions.
        config: learning rate, decay, and AdamW's moments.
    """

    def __init__(self, others: list[dict[str, Any]], matrices: list[nn.Parameter], config: TrainingConfig):
        adamw = torch.optim.AdamW(others, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
        muon = torch.optim.Muon(
            matrices,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=MUON_MOMENTUM,
            adjust_lr_fn="match_rms_adamw",
        )
        self._parts: tuple[torch.optim.Optimizer, ...] = (adamw, muon)
        super().__init__([*adamw.param_groups, *muon.param_groups], {})
        self._share()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Called by `load_state_dict`, which replaces the groups and the state."""
        super().__setstate__(state)
        self._share()

    def _share(self) -> None:
        """Both parts work on this optimizer's own groups and state."""
        start = 0
        for part in self._parts:
            end = start + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[start:end], self.state
            start = end

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move all parameters that have a gradient."""
        for part in self._parts:
            part.step()


def build_optimizer(modules: Iterable[nn.Module], config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimizer over all parameters; biases, norms and the temperature (everything of one dimension) do not decay.

    No group mixes modules: one may be sharded over the ranks, the other not, and the fused kernel takes one kind.
    """
    groups: list[dict[str, Any]] = []
    matrices: list[nn.Parameter] = []
    for module in modules:
        of_blocks = _block_matrices(module) if config.optimizer == "muon" else []
        matrices += of_blocks
        moved = set(map(id, of_blocks))
        parameters = [p for p in module.parameters() if p.requires_grad and id(p) not in moved]
        groups.append({"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay})
        groups.append({"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0})
    groups = [group for group in groups if group["params"]]
    if matrices:
        return MuonAndAdamW(groups, matrices, config)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def _block_matrices(module: nn.Module) -> list[nn.Parameter]:
    """Weights of the linear layers within the encoders' blocks: not embeddings, heads or projections."""
    stacks = [stack for stack in module.modules() if isinstance(stack, nn.ModuleList)]
    named = [pair for stack in stacks for pair in stack.named_parameters() if pair[1].requires_grad]
    return [parameter for name, parameter in named if parameter.ndim == 2 and name.endswith(".weight")]


def full_state_dict(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state dict as it is from its first step on: before that, with zeros in place of the moments."""
    state: dict[str, Any] = optimizer.state_dict()
    if not state["state"]:
        for group, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
            for parameter, number in zip(group["params"], saved["params"], strict=True):
                state["state"][number] = _first_state(parameter, is_muon="momentum" in group)
    return state


def _first_state(parameter: nn.Parameter, *, is_muon: bool) -> dict[str, torch.Tensor]:
    names = ("momentum_buffer",) if is_muon else ("exp_avg", "exp_avg_sq")
    moments = {name: torch.zeros_like(parameter, requires_grad=False) for name in names}
    return moments if is_muon else {"step": torch.zeros((), device=parameter.device), **moments}
