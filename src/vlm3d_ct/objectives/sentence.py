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
    own = torch.arange(len(groups), device=groups.device)[:, None].expand_as(groups)[valid]
    says = (groups[valid][:, None, None] == groups[None]).any(-1)  # which volumes' reports have the sentence
    says[torch.arange(len(own), device=own.device), own] = False
    logits = (scale * ((sentences - opposites)[valid] @ volume.T)).masked_fill(says, -torch.inf)
    loss = (logits.logsumexp(1) - logits.gather(1, own[:, None])[:, 0]).sum()
    # an empty selection has no graph of its own
    return loss / valid.sum().clamp(min=1) + 0.0 * (volume.sum() + sentences.sum() + opposites.sum())
