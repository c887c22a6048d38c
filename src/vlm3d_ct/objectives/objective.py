"""The weighted sum of the objectives, and the learned temperature."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from vlm3d_ct.config import ObjectiveConfig
from vlm3d_ct.objectives.contrastive import global_loss
from vlm3d_ct.objectives.reasoning import NO_STEP, reasoning_loss
from vlm3d_ct.objectives.region import region_loss
from vlm3d_ct.objectives.sentence import sentence_loss, sentence_region_loss

LARGEST_LOGIT_SCALE = math.log(100.0)


@dataclass
class Losses:
    """The losses of one step, each a scalar; ``total`` is what is minimised, apart from the occupancy loss."""

    total: Float[Tensor, ""]
    global_loss: Float[Tensor, ""]
    region_loss: Float[Tensor, ""]
    reasoning_loss: Float[Tensor, ""]
    sentence_loss: Float[Tensor, ""]
    sentence_region_loss: Float[Tensor, ""]


@dataclass
class Targets:
    """What the texts of a batch say, beside their representations.

    Attributes:
        mentions: the regions that each report mentions.
        groups: identity of each region's text (see `region_loss`).
        step_groups: identity of each step's sentence (see `reasoning_loss`).
        step_places: identity of the regions that each step speaks of.
        sentence_groups: identity of each sentence that is read by itself (see `sentence_loss`).
        turned: which of these have an opposite.
        sentence_regions: the regions that each of these speaks of.
    """

    mentions: Bool[Tensor, "n r"]
    groups: Int64[Tensor, "n r"]
    step_groups: Int64[Tensor, "n s"]
    step_places: Int64[Tensor, "n s"]
    sentence_groups: Int64[Tensor, "n k"]
    turned: Bool[Tensor, "n k"]
    sentence_regions: Bool[Tensor, "n k r"]

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors in the order of the fields."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def told_apart(self) -> Targets:
        """The same with an identity of its own for every text and place: all of them are negatives of each other."""
        own = _numbers(self.step_groups)
        return Targets(
            mentions=self.mentions,
            groups=_numbers(self.groups),
            step_groups=torch.where(self.step_groups == NO_STEP, NO_STEP, own),
            step_places=own,
            sentence_groups=torch.where(self.sentence_groups == NO_STEP, NO_STEP, _numbers(self.sentence_groups)),
            turned=self.turned,
            sentence_regions=self.sentence_regions,
        )


def _numbers(like: Tensor) -> Tensor:
    """A number of its own for every entry, from 1."""
    return torch.arange(1, 1 + like.numel(), device=like.device).view_as(like)


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
        step_volume: Float[Tensor, "n s d"],
        step_text: Float[Tensor, "n s d"],
        sentence_text: Float[Tensor, "n k d"],
        opposite_text: Float[Tensor, "n k d"],
        sentence_region_text: Float[Tensor, "n k d"],
        opposite_region_text: Float[Tensor, "n k d"],
        targets: Targets,
    ) -> Losses:
        """The losses, in fp32 whatever the autocast; the arguments are those of `global_loss` and its siblings."""
        if not self.config.soft_targets:
            targets = targets.told_apart()
        with torch.autocast(volume.device.type, enabled=False):
            of_volumes = global_loss(volume.float(), text.float(), self.scale)
            of_regions = region_loss(
                region_volume.float(), region_text.float(), targets.mentions, targets.groups, self.scale
            )
            of_steps = reasoning_loss(
                step_volume.float(), step_text.float(), targets.step_groups, targets.step_places, self.scale
            )
            of_sentences = sentence_loss(
                volume.float(),
                sentence_text.float(),
                opposite_text.float(),
                targets.sentence_groups,
                targets.turned,
                self.scale,
            )
            of_sentence_regions = sentence_region_loss(
                region_volume.float(),
                sentence_region_text.float(),
                opposite_region_text.float(),
                targets.sentence_regions,
                targets.sentence_groups,
                targets.turned,
                self.scale,
            )
        weights = self.config
        total = weights.global_weight * of_volumes + weights.region_weight * of_regions
        total = total + weights.reasoning_weight * of_steps + weights.sentence_weight * of_sentences
        total = total + weights.sentence_region_weight * of_sentence_regions
        return Losses(
            total=total,
            global_loss=of_volumes,
            region_loss=of_regions,
            reasoning_loss=of_steps,
            sentence_loss=of_sentences,
            sentence_region_loss=of_sentence_regions,
        )
