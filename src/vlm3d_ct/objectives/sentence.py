"""Sentence-level contrast: every sentence of a report, less its opposite, against the whole volumes of the step."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vlm3d_ct.objectives.reasoning import NO_STEP


def sentence_loss(
    volume: Float[Tensor, "n d"],
    sentences: Float[Tensor, "n k d"],
    opposites: Float[Tensor, "n k d"],
    groups: Int64[Tensor, "n k"],
    turned: Bool[Tensor, "n k"],
    scale: Float[Tensor, "1"],
) -> Float[Tensor, ""]:
    """Let what a sentence says, and its opposite does not, find the volume of its report.

    Cross-entropy over the volumes of the step of their similarity with the sentence less that with its opposite, the
    mean over the sentences; without any it is 0 and still has a gradient of 0. A volume whose report has the same
    sentence is no rival (unless `ObjectiveConfig.soft_targets` is off). It is zero-shot classification, which ranks
    volumes by a prompt less its opposite (Tiu et al. 2022, CheXzero; Hamamci et al. 2024, CT-CLIP), with the report's
    own sentences for prompts. Only this way round: a volume makes no choice among sentences, of which many are true.

    Args:
        volume: unit vectors of the volumes, all ranks.
        sentences: unit vectors of the sentences of their reports; any value where there is none.
        opposites: unit vectors of the sentences' opposites.
        groups: identity of each sentence; `NO_STEP` where there is none.
        turned: which of them have an opposite; the others only say that their volume is no rival.
        scale: inverse temperature.
    """
    valid = turned & (groups != NO_STEP)
    scores = (sentences - opposites)[valid] @ volume.T
    # an empty selection has no graph of its own
    return _find_own(scores, valid, groups, scale) + 0.0 * (volume.sum() + sentences.sum() + opposites.sum())


def sentence_region_loss(
    region_volume: Float[Tensor, "n r d"],
    sentences: Float[Tensor, "n k d"],
    opposites: Float[Tensor, "n k d"],
    regions: Bool[Tensor, "n k r"],
    groups: Int64[Tensor, "n k"],
    turned: Bool[Tensor, "n k"],
    scale: Float[Tensor, "1"],
) -> Float[Tensor, ""]:
    """The same against the regions that a sentence speaks of, in every volume: the mean of its cosines with them.

    Args:
        region_volume: unit vectors of the volumes' regions, all ranks.
        sentences: unit vectors of the sentences of their reports as the region level projects them.
        opposites: of the sentences' opposites.
        regions: that each sentence speaks of; one that speaks of none takes no part.
        groups: identity of each sentence; `NO_STEP` where there is none.
        turned: which of them have an opposite.
        scale: inverse temperature.
    """
    valid = turned & (groups != NO_STEP) & regions.any(-1)
    weights = regions[valid] / regions[valid].sum(-1, keepdim=True)
    of_regions = torch.einsum("sd,nrd->snr", (sentences - opposites)[valid], region_volume)
    scores = (of_regions * weights[:, None]).sum(-1)
    return _find_own(scores, valid, groups, scale) + 0.0 * (region_volume.sum() + sentences.sum() + opposites.sum())


def _find_own(
    scores: Float[Tensor, "s n"], valid: Bool[Tensor, "n k"], groups: Int64[Tensor, "n k"], scale: Float[Tensor, "1"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy over the volumes of the valid sentences' scores; volumes that say the same are no rivals."""
    own = torch.arange(len(groups), device=groups.device)[:, None].expand_as(groups)[valid]
    says = (groups[valid][:, None, None] == groups[None]).any(-1)
    says[torch.arange(len(own), device=own.device), own] = False
    logits = (scale * scores).masked_fill(says, -torch.inf)
    loss = (logits.logsumexp(1) - logits.gather(1, own[:, None])[:, 0]).sum()
    return loss / valid.sum().clamp(min=1)
