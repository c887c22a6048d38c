"""Pairs of noise of any size, for what is timed without data."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vlm3d_ct.config import Config
from vlm3d_ct.models import ModelInput
from vlm3d_ct.models.columns import tissue_columns
from vlm3d_ct.objectives import Targets
from vlm3d_ct.training.step import MicroBatch

BODY = (0.72, 0.95)
"""Of the field of view that an elliptic body takes along y and x: with it 41 % of the columns of 32 x 32 patches are
air, and 38 % of those of eight phantoms (docs/log.md)."""


def made_up_pairs(config: Config, count: int, device: torch.device | str = "cpu", seed: int = 0) -> MicroBatch:
    """A noisy cylinder in air with solid blocks of regions, half of which a text of noise mentions."""
    torch.manual_seed(seed)
    size = config.preprocess.size
    tokens, regions = config.text.max_len, config.model.num_regions
    mentions = torch.rand(count, regions) < 0.5
    nothing = torch.zeros(count, 0, dtype=torch.long)
    inside = body(size)
    tissue = tissue_columns(torch.where(inside > 0, 0.0, -1000.0).expand(count, 1, -1, -1), config.model.patch_size)
    inputs = ModelInput(
        ct_volume=torch.rand(count, len(config.model.windows), *size) * inside,
        tissue=tissue if config.model.skip_air else None,
        segmentation_mask=blocks_of_regions(config, count),
        mask_given=torch.ones(count, dtype=torch.bool),
        input_ids=torch.randint(5, 20, (count, tokens)),
        attention_mask=torch.ones(count, tokens, dtype=torch.long),
        token_type_ids=torch.zeros(count, tokens, dtype=torch.long),
        region_tokens=mentions[:, :, None] & (torch.rand(count, regions, tokens) < 0.1),
        token_steps=torch.zeros(count, tokens, dtype=torch.long),
        step_regions=torch.zeros(count, 0, regions, dtype=torch.bool),
        opposite_ids=nothing,
        opposite_mask=nothing,
        opposite_steps=nothing,
    )
    groups = torch.randint(0, 50, (count, regions))
    targets = Targets(mentions, groups, nothing, nothing, nothing, nothing.bool(), mentions[:, None][:, :0])
    for part in (inputs, targets):
        for name, value in vars(part).items():
            if isinstance(value, Tensor):
                setattr(part, name, value.to(device))
    return MicroBatch(inputs, targets, seed=seed)


def body(size: tuple[int, int, int]) -> Tensor:
    """1 within an ellipse about the middle of every slice, 0 outside."""
    y, x = (torch.linspace(-1, 1, side) / share for side, share in zip(size[1:], BODY, strict=True))
    return ((y[:, None] ** 2 + x[None, :] ** 2) <= 1).float()


def blocks_of_regions(config: Config, count: int) -> Tensor:
    """A mask of solid blocks, each one region, as in an anatomy; noise would put every region into every patch."""
    coarse = torch.randint(0, 1 + config.model.num_regions, (count, 1, 4, 4, 4)).float()
    return F.interpolate(coarse, size=config.preprocess.size, mode="nearest").to(torch.uint8)
