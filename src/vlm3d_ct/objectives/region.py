"""Region-level contrast: the same region across cases, and the regions of one case."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def region_loss(
    region_volume: Float[Tensor, "n r d"],
    region_text: Float[Tensor, "n r d"],
    mentions: Bool[Tensor, "n r"],
    groups: Int64[Tensor, "n r"],
    scale: Float[Tensor, "1"],
) -> Float[Tensor, ""]:
    """Align each mentioned region's features with the text that speaks of it.

    Mean of two contrasts, each symmetric: a region against the same region of the step's other cases, and against the
    other mentioned regions of its own case. Two texts that say the same are not negatives of each other; across cases
    that holds, too, for any two that only state normality (fVLM, Shui et al. 2025). Both are divided by the number of
    mentions of the whole step; without any mention the loss is 0 and still has a gradient of 0.

    Args:
        region_volume: unit vectors of the regions, all ranks.
        region_text: unit vectors of the regions' texts; any value where not mentioned.
        mentions: which regions the report mentions.
        groups: identity of the region's text: equal for equal texts, negative where it only states normality.
        scale: inverse temperature.
    """
    count = mentions.sum().clamp(min=1)
    own_region, own_text = region_volume.transpose(0, 1), region_text.transpose(0, 1)  # r n d
    same = (groups.T[:, :, None] == groups.T[:, None, :]) | ((groups.T < 0)[:, :, None] & (groups.T < 0)[:, None, :])
    across = contrast(own_region, own_text, mentions.T, same, scale)
    within = contrast(region_volume, region_text, mentions, groups[:, :, None] == groups[:, None, :], scale)
    return (across + within) / (2 * count)


def contrast(
    queries: Float[Tensor, "g k d"],
    keys: Float[Tensor, "g k d"],
    valid: Bool[Tensor, "g k"],
    same: Bool[Tensor, "g k k"],
    scale: Float[Tensor, "1"],
) -> Float[Tensor, ""]:
    """Sum over the valid items of the symmetric cross-entropy within each group g; `same` pairs are no negatives."""
    logits = scale * (queries @ keys.transpose(1, 2))
    own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    rival = valid[:, :, None] & valid[:, None, :] & ~same
    # an invalid item keeps its own entry, so that its (unused) softmax is defined
    logits = logits.masked_fill(~(rival | own), -torch.inf)
    own_logit = logits.diagonal(dim1=1, dim2=2)
    loss = (logits.logsumexp(2) + logits.logsumexp(1)) / 2 - own_logit
    return (loss * valid).sum()
