"""What a step takes of a GPU's memory, by estimate, and what to change where that is too much."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import nn

from vlm3d_ct.config import Config, config_from_mapping, config_to_mapping
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.log import format_bytes
from vlm3d_ct.models.build import recomputed_blocks

STATIC_BYTES = 18
"""Of a parameter: weight, gradient and AdamW's two moments in fp32, and autocast's copy in half precision."""
FROZEN_BYTES = 4
"""Of one that does not learn: the weight; autocast keeps no copy of it."""
KINDS = ("false", "cheap", "true")
"""Of recomputation, each taking less memory than the one before."""
USABLE = 0.92
"""Share of a GPU that an estimate may fill: the rest is for kernels' work space and what the allocator cannot use."""


def activation_bytes(config: Config, bert: Mapping[str, Any]) -> int:
    """Kept of one pair until the backward pass has used it, by estimate.

    A block of width d and hidden width r d keeps, of a token, in bytes: the fp32 input of each norm (8 d), in half
    precision both norms' results, queries, keys and values, the latter two again beside the memory tokens for both
    attentions, attention and its output (28 d), GELU's input and result (4 r d), and the masks of the dropouts
    ((2 + r) d). Recomputed it keeps its input (4 d), and while it is at work all the rest; ``cheap``, beside its input,
    the products (10 d + 2 r d) and attention without dropout (2 d). In fp32 what is in half precision takes twice as
    much. Air that is skipped (`ModelConfig.skip_air`) is counted; the pairs of `dense_z_bias` are not.

    Args:
        config: of the stage.
        bert: the text encoder's configuration, as `Built.bert_json` holds it.
    """
    model, kind = config.model, config.training.gradient_checkpointing
    patches = prod(side // part for side, part in zip(config.preprocess.size, model.patch_size, strict=True))
    read = patches * (1 - model.patch_dropout)
    half = 2 if config.training.precision == "fp32" else 1
    whole = _whole_block(model.mlp_ratio, half, dropout=model.dropout > 0)
    products = half * (10 + 2 * model.mlp_ratio + 2 * (model.attn_dropout == 0))
    left = 4 + (products if kind == "cheap" else 0)
    recomputed = len(recomputed_blocks(config))
    of_blocks = recomputed * left + (model.depth - recomputed) * whole + (whole if recomputed else 0)
    around = patches * (20 * model.embed_dim + 16 * (1 + model.num_regions))
    voxels = 4 * len(model.windows) * prod(config.preprocess.size)
    vision = read * model.embed_dim * of_blocks + around + voxels
    width, layers = int(bert["hidden_size"]), int(bert["num_hidden_layers"])
    layer = _whole_block(int(bert["intermediate_size"]) / width, half, dropout=True)
    kept = layers * (4 if config.text.gradient_checkpointing else layer) + layer
    texts = 2 if config.objective.opposites else 1
    return round(vision + texts * config.text.max_len * width * (4 if config.text.frozen else kept))


def static_bytes(parameters: Iterable[nn.Parameter]) -> int:
    """What parameters take of the memory throughout, by estimate."""
    return sum(p.numel() * (STATIC_BYTES if p.requires_grad else FROZEN_BYTES) for p in parameters)


def _whole_block(mlp_ratio: float, half: int, *, dropout: bool) -> float:
    return 8 + half * (28 + 4 * mlp_ratio) + (2 + mlp_ratio if dropout else 0)


def what_fits(config: Config, bert_json: str, held_bytes: int, capacity_bytes: int) -> list[tuple[str, int]]:
    """Settings with which a step with as many pairs fits, by estimate, and the bytes that it then takes.

    For each way to recompute that takes less memory, and the present one, the largest micro-batch that fits. A step
    that is accumulated naively is not split: its negatives would be others.
    """
    training, bert = config.training, json.loads(bert_json)
    pairs = training.batch_size * training.accumulation_steps
    inputs = pairs * prod(config.preprocess.size) * (4 * len(config.model.windows) + 1)
    present = "true" if training.gradient_checkpointing is True else str(training.gradient_checkpointing).lower()
    sizes = [size for size in range(training.batch_size, 0, -1) if pairs % size == 0]
    found: list[tuple[str, int]] = []
    kinds = [kind for kind in KINDS[KINDS.index(present) :] if kind != "cheap" or not training.compile]
    for kind in kinds:
        changes = [f"training.gradient_checkpointing={kind}", "training.checkpointed_blocks=null"]
        said = changes if training.checkpointed_blocks is not None and kind != "false" else changes[:1]
        now = config_from_mapping(config_to_mapping(config), source="this run", overrides=changes)
        same = kind == present and len(recomputed_blocks(now)) == len(recomputed_blocks(config))
        for size in sizes if training.accumulation == "exact" else sizes[:1]:
            taken = held_bytes + inputs + size * activation_bytes(now, bert)
            if taken <= USABLE * capacity_bytes and not (same and size == training.batch_size):
                smaller = [f"training.batch_size={size}", f"training.accumulation_steps={pairs // size}"]
                parts = [*(() if same else said), *(smaller if size != training.batch_size else ())]
                found.append((" ".join(parts), taken))
                break
    return found


@contextmanager
def explain_out_of_memory(config: Config, bert_json: str, held_bytes: int, device: torch.device) -> Iterator[None]:
    """Name settings that fit where a step finds no more memory on the device.

    Args:
        config: of the stage.
        bert_json: the text encoder's configuration.
        held_bytes: what this rank's parameters take, see `static_bytes`.
        device: of this rank.

    Raises:
        ConfigError: there was none.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        free, capacity = torch.cuda.mem_get_info(device) if device.type == "cuda" else (0, 0)
        others = max(0, capacity - free - torch.cuda.memory_reserved(device)) if device.type == "cuda" else 0
        raise ConfigError(out_of_memory(config, bert_json, held_bytes, capacity, others)) from None


def out_of_memory(config: Config, bert_json: str, held_bytes: int, capacity_bytes: int, others_bytes: int = 0) -> str:
    """What to say of it; of the capacity, other processes hold ``others_bytes``."""
    training = config.training
    fits = what_fits(config, bert_json, held_bytes, capacity_bytes - others_bytes)
    listed = "; ".join(f"--set {' --set '.join(s.split())} (about {format_bytes(taken)})" for s, taken in fits)
    advice = (
        f"By estimate these fit, with as many pairs per step: {listed}. With one of them the same command goes on from "
        "what was saved, if anything was."
        if fits
        else "By estimate nothing fits that recomputes more or splits the step: make preprocess.size or the model "
        "smaller, or training.batch_size, for fewer pairs a step."
    )
    shared = f", of which other processes hold {format_bytes(others_bytes)}" if others_bytes > 2**30 else ""
    return (
        f"training.batch_size = {training.batch_size}: a step found no more memory on a GPU of "
        f"{format_bytes(capacity_bytes)}{shared}, with training.gradient_checkpointing = "
        f"{str(training.gradient_checkpointing).lower()}. {advice}"
    )
