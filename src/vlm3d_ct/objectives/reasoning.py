"""Step-level contrast: every sentence or reasoning step against the patches of the regions that it speaks of."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vlm3d_ct.objectives.region import contrast

NO_STEP = 0
"""Group of a place in the table of steps that no step takes."""

ALIKE = 1 - 1e-5
"""Cosine of features that are one up to the rounding of fp32 sums over some thousand patches."""


def reasoning_loss(
    step_volume: Float[Tensor, "n s d"],
    step_text: Float[Tensor, "n s d"],
    groups: Int64[Tensor, "n s"],
    places: Int64[Tensor, "n s"],
    scale: Float[Tensor, "1"],
) -> Float[Tensor, ""]:
    """Align each step's sentence with the local features that its regions select.

    Symmetric cross-entropy among all steps of the whole step batch, divided by their number; without any it is 0 and
    still has a gradient of 0. No negatives of each other are two steps that say the same; two that state only
    normality of the same place (fVLM, Shui et al. 2025); and two of one case that are held against the very same
    features, be it that they speak of the same regions or that the scan shows none of them.

    Args:
        step_volume: unit vectors of the patches that each step selects, all ranks.
        step_text: unit vectors of the steps' sentences; any value where there is no step.
        groups: identity of the sentence: equal for equal sentences, negative where it only states normality,
            `NO_STEP` where there is none.
        places: identity of the set of regions that the step speaks of.
        scale: inverse temperature.
    """
    valid = groups != NO_STEP
    case = torch.arange(len(groups), device=groups.device)[:, None].expand_as(groups)[valid]
    group, place = groups[valid], places[valid]
    volume, text = step_volume[valid], step_text[valid]
    with torch.no_grad():
        alike = (case[:, None] == case[None]) & (volume @ volume.T > ALIKE)
    same_place = place[:, None] == place[None]
    normal = (group < 0)[:, None] & (group < 0)[None]
    same = (group[:, None] == group[None]) | (same_place & normal) | alike
    everyone = torch.ones_like(group, dtype=torch.bool)[None]
    total = contrast(volume[None], text[None], everyone, same[None], scale)
    # an empty selection has no graph of its own
    return total / valid.sum().clamp(min=1) + 0.0 * (step_volume.sum() + step_text.sum())
