"""The model spread over the ranks: each keeps a share of the weights, gradients and moments (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from vlm3d_ct.config import Config
from vlm3d_ct.distributed import replicate, world_size
from vlm3d_ct.models import Built, VisionLanguageModel, rebuild
from vlm3d_ct.training.state import in_full


def distribute(model: VisionLanguageModel, config: Config, device: torch.device) -> nn.Module:
    """The model as the ranks train it together, by `training.strategy`; one rank trains it as it is.

    Gradients are averages over the ranks either way, and ``no_sync()`` leaves them to a later micro-batch.
    """
    if world_size() == 1 or config.training.strategy == "ddp":
        return replicate(model, device)
    return Sharded(model, device)


class Sharded(nn.Module):
    """The dual encoder, sharded in place: a block's weights are whole only while it computes.

    What is no block (embeddings, heads, projections) is gathered once a step. So is a block with weights that the model
    touches outside of it, as a last block along z has.
    """

    def __init__(self, model: VisionLanguageModel, device: torch.device):
        super().__init__()
        mesh = init_device_mesh(device.type, (world_size(),))
        touched = {id(parameter) for parameter in model.vision_encoder.seen_by_patches_only()}
        for block in (*model.vision_encoder.blocks, *model.text_encoder.bert.encoder.layer):
            if touched.isdisjoint(map(id, block.parameters())):
                fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        self.module: nn.Module = model

    def forward(self, *inputs: Any) -> Any:
        """Those of the model."""
        return self.module(*inputs)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Backward passes in here leave their gradients on this rank, to be averaged with a later one."""
        self.module.set_requires_gradient_sync(False)  # type: ignore[operator]
        try:
            yield
        finally:
            self.module.set_requires_gradient_sync(True)  # type: ignore[operator]


def whole_model(model: nn.Module, built: Built, config: Config, device: torch.device) -> VisionLanguageModel:
    """The model with all its weights on this rank, to embed with: itself, or a copy where it is sharded.

    The ranks embed different numbers of batches in several threads, which a sharded model, whose every forward pass
    all ranks make together, does not allow. The copy takes the weights' size of memory once more, and nothing else.
    All ranks call this together.
    """
    if not isinstance(model, Sharded):
        return built.model
    whole = rebuild(config, built.bert_json)
    whole.load_state_dict(in_full(built.model.state_dict()))
    return whole.to(device).train(built.model.training)
