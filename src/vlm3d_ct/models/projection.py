"""Projection into the shared embedding space."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class NormalizedLinear(nn.Linear):
    """A linear map whose result has unit length; normalised in fp32 (similarities need the precision)."""

    def forward(self, features: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Project and divide by the Euclidean norm."""
        return F.normalize(super().forward(features).float(), dim=-1)
