"""Volume-level contrast: every volume against every report of the step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def global_loss(
    volume: Float[Tensor, "n d"], text: Float[Tensor, "n d"], scale: Float[Tensor, "1"]
) -> Float[Tensor, ""]:
    """Symmetric cross-entropy over the cosine similarities times ``scale`` (Radford et al. 2021, CLIP).

    Args:
        volume: unit vectors of the volumes of the whole step, all ranks.
        text: unit vectors of their reports, in the same order.
        scale: inverse temperature.
    """
    logits = scale * (volume @ text.T)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
