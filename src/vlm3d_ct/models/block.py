"""One pre-norm transformer block over two streams, patches and memory tokens, that share its weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vlm3d_ct.models.attention import (
    QueryKeyValue,
    attend_along_z,
    attend_by_distance,
    attend_from_memory,
    attend_in_slab,
)
from vlm3d_ct.models.patches import Grid

Axis = Literal["slab", "z", "all", "all by distance"]
"""What a patch attends to beside the memory: its slab, its column along z, or every patch; along z and in the last kind
with a learned bias by the distance in slabs."""

TOKENS_AT_A_TIME = 2048
"""Behind the attention, where a CPU computes no gradient: what passes between the linear maps stays in its cache."""
MOST_COMPILED = 128
"""Variants of a block: by axis, with and without guidance and gradient, for volumes and slices, and all of them or some
columns. Ten for each size of input, and as many for what is left of it."""


class Block(nn.Module):
    """Attention (along one `Axis`) and a GELU feed-forward net, each behind a norm and added to its input.

    ``num_slabs`` is the length of the learned bias by distance along z; None for a block without one.
    """

    def __init__(
        self,
        axis: Axis,
        embed_dim: int,
        num_heads: int,
        mlp_ratio: float,
        dropout: float,
        attn_dropout: float,
        num_slabs: int | None,
    ):
        super().__init__()
        self.axis, self.num_heads, self.dropout, self.attn_dropout = axis, num_heads, dropout, attn_dropout
        hidden = round(embed_dim * mlp_ratio)
        self.attention_norm = nn.LayerNorm(embed_dim)
        self.query_key_value = nn.Linear(embed_dim, 3 * embed_dim)
        self.attention_out = nn.Linear(embed_dim, embed_dim)
        self.mlp_norm = nn.LayerNorm(embed_dim)
        self.mlp_in = nn.Linear(embed_dim, hidden)
        self.mlp_out = nn.Linear(hidden, embed_dim)
        self.distance_bias = None if num_slabs is None else nn.Parameter(torch.zeros(num_heads, num_slabs))
        if self.uses_distance and self.distance_bias is None:
            raise ValueError(f"axis = {axis!r}: needs num_slabs, the length of its bias by distance.")

    @property
    def uses_distance(self) -> bool:
        """Whether the attention has a bias by distance."""
        return self.axis in ("z", "all by distance")

    def forward(
        self,
        patches: Float[Tensor, "b n d"],
        memory: Float[Tensor, "b m d"],
        grid: Grid,
        region_bias: Float[Tensor, "b m n"] | None,
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b m d"]]:
        """Mix and transform both streams.

        Args:
            patches: patch tokens, x fastest.
            memory: the global token and the region tokens.
            grid: the patches' grid.
            region_bias: added to the memory tokens' scores for the patches (log-occupancy); None before guidance.
        """
        of_patches, of_memory = self._project(patches), self._project(memory)
        dropout = self.attn_dropout if self.training else 0.0
        if self.axis == "slab":
            mixed = attend_in_slab(of_patches, of_memory, grid, dropout)
        elif self.axis == "all":
            mixed = attend_in_slab(of_patches, of_memory, Grid(1, grid.z * grid.y, grid.x), dropout)  # one thick slab
        else:
            assert self.distance_bias is not None
            attend = attend_along_z if self.axis == "z" else attend_by_distance
            mixed = attend(of_patches, of_memory, grid, self.distance_bias, dropout)
        mixed_memory = attend_from_memory(of_patches, of_memory, region_bias, dropout)
        return self._finish(patches, mixed), self._finish(memory, mixed_memory)

    def _project(self, tokens: Float[Tensor, "b k d"]) -> QueryKeyValue:
        projected = self.query_key_value(self.attention_norm(tokens))
        q, k, v = projected.unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        return q, k, v

    def _finish(self, tokens: Float[Tensor, "b k d"], mixed: Float[Tensor, "b k d"]) -> Float[Tensor, "b k d"]:
        if self.training or torch.is_grad_enabled() or tokens.is_cuda or tokens.shape[1] <= TOKENS_AT_A_TIME:
            return self._feed_forward(tokens, mixed)
        parts = zip(tokens.split(TOKENS_AT_A_TIME, 1), mixed.split(TOKENS_AT_A_TIME, 1), strict=True)
        return torch.cat([self._feed_forward(some, mixed_some) for some, mixed_some in parts], dim=1)

    def _feed_forward(self, tokens: Float[Tensor, "b k d"], mixed: Float[Tensor, "b k d"]) -> Float[Tensor, "b k d"]:
        tokens = tokens + self._drop(self.attention_out(mixed))
        hidden = self._drop(F.gelu(self.mlp_in(self.mlp_norm(tokens))))
        return tokens + self._drop(self.mlp_out(hidden))

    def _drop(self, features: Tensor) -> Tensor:
        return F.dropout(features, self.dropout, self.training)


def run_block(
    block: nn.Module, patches: Tensor, memory: Tensor, grid: Grid, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """A block's forward pass, as a function of the block."""
    result: tuple[Tensor, Tensor] = block(patches, memory, grid, bias)
    return result


@cache
def compiled_run_block(*, varying: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    """`run_block` for all blocks: what they share is compiled once. Whole, or an error: no part runs as before.

    What is compiled depends on the sizes at hand and not on those that came before, and dropout draws what it draws
    without: a step that is computed again, or in two passes, is the same step.

    Args:
        varying: whether the number of patches changes from step to step.
    """
    compiled: Callable[..., tuple[Tensor, Tensor]] = torch.compile(  # type: ignore[call-overload]
        run_block,
        fullgraph=True,
        dynamic=varying,
        recompile_limit=MOST_COMPILED,
        options={"fallback_random": True},
    )
    return compiled
