"""The attentions of the encoder: within a slab, along z, and from the memory tokens to everything.

Patches never attend to all patches; what crosses slabs goes through the z blocks and through the memory tokens, so the
cost grows linearly with depth. `attend_by_distance` is what this stands in for, written out, for small grids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vlm3d_ct.models.patches import Grid

QueryKeyValue = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values, each (b, tokens, h, e) with e = d / h."""
SCORES_IN_MEMORY = 2**24
"""With dropout on a CPU so many scores are computed at a time; a slab of the full-size encoder has 12.8 M."""

LARGEST_FUSED_BATCH = 65535
"""CUDA's memory-efficient kernel takes no larger batch with dropout (torch 2.13). Along z every column of patches is an
entry of it: 1024 for a volume or a stack of slices of full size."""
SHORT = 64**2
"""Queries times keys below which plain products replace a CPU's fused kernel in bf16; in fp16 they would overflow."""


def attend(
    query: Float[Tensor, "b h q e"],
    key: Float[Tensor, "b h k e"],
    value: Float[Tensor, "b h k e"],
    *,
    bias: Float[Tensor, "#b #h #q k"] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "b h q e"]:
    """softmax(query key^T / sqrt(e) + bias) value, with dropout on the weights (Vaswani et al. 2017)."""
    bias = None if bias is None else bias.to(query.dtype)
    if (
        dropout == 0.0
        and query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and query.shape[2] * key.shape[2] < SHORT
    ):
        # the fused kernel's backward pass takes 2 to 15 times as long where it fills no tile (docs/log.md)
        return _weights(query, key, bias).to(value.dtype) @ value
    if dropout == 0.0 or query.is_cuda:
        if len(query) <= LARGEST_FUSED_BATCH:
            return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
        mixed = [
            F.scaled_dot_product_attention(q, k, v, attn_mask=part_of_bias, dropout_p=dropout)
            for q, k, v, part_of_bias in _split(query, key, value, bias, LARGEST_FUSED_BATCH)
        ]
        return torch.cat(mixed)
    # No fused CPU kernel drops weights, and PyTorch's own fall-back spends most of its time on drawing them.
    rows = max(1, SCORES_IN_MEMORY // (query.shape[1] * query.shape[2] * key.shape[2]))
    # recomputed in the backward pass, a few rows at a time: no more than their scores are ever in memory
    mixed = [
        checkpoint(_attend_with_dropout, q, k, v, part_of_bias, dropout, use_reentrant=False)
        for q, k, v, part_of_bias in _split(query, key, value, bias, rows)
    ]
    return torch.cat(mixed)


def _split(
    query: Float[Tensor, "b h q e"],
    key: Float[Tensor, "b h k e"],
    value: Float[Tensor, "b h k e"],
    bias: Float[Tensor, "#b #h #q k"] | None,
    rows: int,
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """All of them, so many entries of the batch at a time; a bias that all share goes with each part."""
    parts = (query.split(rows), key.split(rows), value.split(rows))
    biases: Sequence[Tensor | None] = [bias] * len(parts[0]) if bias is None or len(bias) == 1 else bias.split(rows)
    return zip(*parts, biases, strict=True)


def _attend_with_dropout(
    query: Float[Tensor, "b h q e"],
    key: Float[Tensor, "b h k e"],
    value: Float[Tensor, "b h k e"],
    bias: Float[Tensor, "#b #h #q k"] | None,
    dropout: float,
) -> Float[Tensor, "b h q e"]:
    weights = _weights(query, key, bias).to(value.dtype)
    mixed: Tensor = (weights * _keep(weights, dropout)) @ value
    return mixed


def _weights(
    query: Float[Tensor, "b h q e"], key: Float[Tensor, "b h k e"], bias: Float[Tensor, "#b #h #q k"] | None
) -> Float[Tensor, "b h q k"]:
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    weights: Tensor = (scores if bias is None else scores + bias).softmax(-1, dtype=torch.float32)
    return weights


def _keep(weights: Tensor, dropout: float) -> Tensor:
    """0 with probability ``dropout`` (to 1 in 65,536), else 1 / (1 - dropout); four draws from each random integer."""
    draws = torch.randint(-(2**63), 2**63 - 1, ((weights.numel() + 3) // 4,), device=weights.device)
    kept = draws.view(torch.int16)[: weights.numel()].view(weights.shape) >= round(dropout * 65536) - 32768
    return kept.to(weights.dtype) / (1 - dropout)


def attend_in_slab(patches: QueryKeyValue, memory: QueryKeyValue, grid: Grid, dropout: float) -> Float[Tensor, "b n d"]:
    """Every patch attends to its own slab and to the memory tokens."""
    q, k, v = (part.unflatten(1, (grid.z, grid.in_slab)).flatten(0, 1) for part in patches)
    k = torch.cat((k, _repeat(memory[1], grid.z)), dim=1)
    v = torch.cat((v, _repeat(memory[2], grid.z)), dim=1)
    mixed = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), dropout=dropout)
    joined: Tensor = mixed.transpose(1, 2).flatten(2).unflatten(0, (-1, grid.z)).flatten(1, 2)
    return joined


def attend_along_z(
    patches: QueryKeyValue,
    memory: QueryKeyValue,
    grid: Grid,
    distance_bias: Float[Tensor, "h distances"],
    dropout: float,
) -> Float[Tensor, "b n d"]:
    """Every patch attends to its column along z, biased by the distance in slabs, and to the memory tokens."""
    q, k, v = (part.unflatten(1, (grid.z, grid.in_slab)).transpose(1, 2).flatten(0, 1) for part in patches)
    k = torch.cat((k, _repeat(memory[1], grid.in_slab)), dim=1)
    v = torch.cat((v, _repeat(memory[2], grid.in_slab)), dim=1)
    bias = F.pad(distance_bias[:, _distances(grid, distance_bias)], (0, memory[1].shape[1]))[None]
    mixed = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), bias=bias, dropout=dropout)
    columns: Tensor = mixed.transpose(1, 2).flatten(2).unflatten(0, (-1, grid.in_slab))
    return columns.transpose(1, 2).flatten(1, 2)


def attend_by_distance(
    patches: QueryKeyValue,
    memory: QueryKeyValue,
    grid: Grid,
    distance_bias: Float[Tensor, "h distances"],
    dropout: float,
) -> Float[Tensor, "b n d"]:
    """Every patch attends to every patch, biased by the distance in slabs, and to the memory tokens.

    The bias of all pairs is in memory (h n^2 numbers): a reference for small grids, not for volumes of full size.
    """
    q = patches[0]
    k = torch.cat((patches[1], memory[1]), dim=1)
    v = torch.cat((patches[2], memory[2]), dim=1)
    distance = _distances(grid, distance_bias).repeat_interleave(grid.in_slab, 0).repeat_interleave(grid.in_slab, 1)
    bias = F.pad(distance_bias[:, distance], (0, memory[1].shape[1]))[None]
    mixed = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), bias=bias, dropout=dropout)
    return mixed.transpose(1, 2).flatten(2)


def _distances(grid: Grid, distance_bias: Float[Tensor, "h distances"]) -> Integer[Tensor, "z z"]:
    """Between all slabs; what is further apart than the table is long counts as its end."""
    slab = torch.arange(grid.z, device=distance_bias.device)
    return (slab[:, None] - slab[None, :]).abs().clamp(max=distance_bias.shape[1] - 1)


def attend_from_memory(
    patches: QueryKeyValue, memory: QueryKeyValue, bias: Float[Tensor, "b m n"] | None, dropout: float
) -> Float[Tensor, "b m d"]:
    """Every memory token attends to the memory tokens and to all patches; ``bias`` narrows a token to its region."""
    k = torch.cat((memory[1], patches[1]), dim=1)
    v = torch.cat((memory[2], patches[2]), dim=1)
    padded = None if bias is None else F.pad(bias, (memory[1].shape[1], 0))[:, None]
    mixed = attend(memory[0].transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), bias=padded, dropout=dropout)
    return mixed.transpose(1, 2).flatten(2)


def _repeat(tokens: Float[Tensor, "b m h e"], count: int) -> Float[Tensor, "repeated m h e"]:
    return tokens[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1)
