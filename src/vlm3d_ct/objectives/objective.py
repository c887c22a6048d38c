"""The weighted sum of the objectives, and the learned temperature."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from vlm3d_ct.config import ObjectiveConfig
from vlm3d_ct.objectives.contrastive import global_loss
from vlm3d_ct.objectives.region import region_loss

LARGEST_LOGIT_SCALE = math.log(100.0)


@dataclass
class Losses:
    """The losses of one step, each a scalar; ``total`` is what is minimised, apart from the occupancy loss."""

    total: Float[Tensor, ""]
    global_loss: Float[Tensor, ""]
    region_loss: Float[Tensor, ""]


class ContrastiveObjective(nn.Module):
    """Pure function of the representations of the whole step, and the temperature.

    It stays outside of the distributed wrapper: every rank computes it on the gathered representations.
    """

    def __init__(self, config: ObjectiveConfig):
        super().__init__()
        self.config = config
        self.logit_scale = nn.Parameter(torch.tensor([math.log(1 / config.temperature)]))
        """Natural logarithm of the inverse temperature."""

    @property
    def scale(self) -> Float[Tensor, "1"]:
        """Inverse temperature, at most 100 (CLIP)."""
        return self.logit_scale.clamp(max=LARGEST_LOGIT_SCALE).exp()

    @torch.no_grad()
    def limit_scale(self) -> None:
        """Bring the parameter back to the limit after a step: beyond it its gradient is 0 and it would stay there."""
        self.logit_scale.clamp_(max=LARGEST_LOGIT_SCALE)

    def forward(
        self,
        volume: Float[Tensor, "n d"],
        text: Float[Tensor, "n d"],
        region_volume: Float[Tensor, "n r d"],
        region_text: Float[Tensor, "n r d"],
        mentions: Bool[Tensor, "n r"],
        groups: Int64[Tensor, "n r"],
    ) -> Losses:
        """The losses, in fp32 whatever the autocast."""
        with torch.autocast(volume.device.type, enabled=False):
            of_volumes = global_loss(volume.float(), text.float(), self.scale)
            of_regions = region_loss(region_volume.float(), region_text.float(), mentions, groups, self.scale)
        total = self.config.global_weight * of_volumes + self.config.region_weight * of_regions
        return Losses(total=total, global_loss=of_volumes, region_loss=of_regions)
