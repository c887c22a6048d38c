"""What a forward pass costs: products of matrices, two operations for each multiply-add; the rest is small."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import ceil, prod
from typing import Any

from vlm3d_ct.config import Config, ModelConfig
from vlm3d_ct.models.build import recomputed_blocks
from vlm3d_ct.models.encoder import axes_of
from vlm3d_ct.models.patches import patch_grid


def vision_flops(config: ModelConfig, size: tuple[int, int, int], read: float = 1.0) -> int:
    """Of the vision encoder and its projections for one case of ``size`` voxels, a share ``read`` of whose patches is
    read.

    With n patches, s of them in a slab, z slabs, m memory tokens, width d and hidden width h, a block's linear maps
    cost 2 (n + m) (4 d^2 + 2 d h), attention within slabs 4 n (s + m) d, along z 4 n (z + m) d, over all patches
    4 n (n + m) d, and that of the memory 4 m (n + m) d.
    """
    grid = patch_grid(size, config.patch_size)
    m, d = 1 + config.num_regions, config.embed_dim
    in_slab = ceil(read * grid.in_slab)
    n, hidden = grid.z * in_slab, round(d * config.mlp_ratio)
    total = 2 * grid.z * grid.in_slab * _embedding_macs(config)
    keys_of = {"slab": in_slab, "z": grid.z, "all": n, "all by distance": n}
    for keys in (keys_of[axis] for axis in axes_of(config)):
        total += 2 * (n + m) * (4 * d * d + 2 * d * hidden) + 4 * n * (keys + m) * d + 4 * m * (n + m) * d
    total += 2 * (2 * n * d * (1 + config.num_regions))  # the occupancy is predicted, then told to the patches
    return total + 2 * d * d * m  # a projection for each memory token


def _embedding_macs(config: ModelConfig) -> int:
    """Of one patch: one map of its voxels, or two with the channels of its sub-patches between them."""
    voxels, d = prod(config.patch_size), config.embed_dim
    if config.sub_patch_size is None:
        return voxels * len(config.windows) * d
    parts = voxels // prod(config.sub_patch_size)
    return config.sub_patch_channels * (voxels * len(config.windows) + parts * d)


def text_flops(config: Config, bert: Mapping[str, Any], tokens: int) -> int:
    """Of the text encoder and its projections for one text of so many tokens.

    A layer of width w and hidden width h costs 2 t (4 w^2 + 2 w h) in its linear maps and 4 t^2 w in its attention.
    That is too much for ``sentence`` attention, which reads no padding and keeps rows short (`sentence_rows`).

    Args:
        config: of the model around it.
        bert: its configuration, as `Built.bert_json` holds it.
        tokens: with padding.
    """
    w, d, regions = int(bert["hidden_size"]), config.model.embed_dim, config.model.num_regions
    layer = 2 * tokens * (4 * w * w + 2 * w * int(bert["intermediate_size"])) + 4 * tokens * tokens * w
    pooler = 2 * w * w if config.text.pooling == "cls" else 0
    return int(bert["num_hidden_layers"]) * layer + pooler + 2 * regions * tokens * w + 2 * w * d * (1 + regions)


def step_flops(
    config: Config, bert_json: str, pairs: int, size: tuple[int, int, int], tokens: int, read: float | None = None
) -> int:
    """Of a training step over ``pairs`` on all ranks together.

    A forward pass counts once and its backward pass twice; activation checkpointing makes one more forward pass of
    its blocks, and exact accumulation of everything, which it embeds without a graph first. A frozen BERT has no
    backward pass; that its readings may be kept is not counted. The opposites of a text's sentences are taken for
    another text as long.

    Args:
        config: of the stage.
        bert_json: the configuration of its BERT.
        pairs: of the step.
        size: voxels of a case.
        tokens: of a text, with padding.
        read: share of the patches that the encoder reads. None: what `ModelConfig.patch_dropout` leaves of all; how
            much of it is air that is skipped only the scans know.
    """
    training = config.training
    passes = 3 + (training.accumulation_steps > 1 and training.accumulation == "exact")
    recomputed = len(recomputed_blocks(config)) / config.model.depth * (training.gradient_checkpointing is True)
    share = 1 - config.model.patch_dropout if read is None else read
    vision = round(vision_flops(config.model, size, share) * (passes + recomputed))
    of_text = passes - 2 if config.text.frozen else passes + config.text.gradient_checkpointing
    text = text_flops(config, json.loads(bert_json), tokens) * of_text
    texts = 2 if config.objective.opposites else 1
    return pairs * (vision + texts * text)
