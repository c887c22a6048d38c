"""The 3D vision encoder: slice-aware, region-aware, linear in depth."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts, noop_context_fn

from vlm3d_ct.config import ModelConfig
from vlm3d_ct.models.block import Axis, Block, compiled_run_block, run_block
from vlm3d_ct.models.columns import Columns, choose_columns
from vlm3d_ct.models.patches import (
    Grid,
    PatchEmbedding,
    Positions,
    SubPatchEmbedding,
    patch_grid,
    pool_occupancy,
)
from vlm3d_ct.models.projection import NormalizedLinear

AXES: dict[str, tuple[Axis, Axis, Axis]] = {
    "slice_region": ("slab", "slab", "z"),
    "dense": ("all", "all", "all"),
    "dense_z_bias": ("all", "all", "all by distance"),
}
"""The blocks' axes, repeated, by kind of attention; every third has a bias by distance, whether its axis uses it or
not, so that one kind's weights fit another."""
UNGUIDED_BLOCKS = 3
"""Blocks before the regions come in: the occupancy is predicted from what they have seen."""
_aten = torch.ops.aten
PRODUCTS = [_aten.mm.default, _aten.addmm.default]
"""What recomputation can keep of a block: its linear maps."""
ATTENTION = [
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
]
"""And attention, unless it draws a dropout: what comes after it would draw anew from where attention should have."""
LEAST_PATCH_SHARE = 1 / 1024
"""A smaller share of a patch than a voxel of the full-size patch does not count as occupied."""
LEAST_PREDICTED_PATCHES = 0.5
"""A predicted region is present where it fills at least so many patches."""


@dataclass
class EncoderOutput:
    """What the encoder returns; fields are attributes and keys.

    Attributes:
        global_features: one vector a volume, before `VisionEncoder.global_proj`.
        local_features: one vector a patch, x fastest, z slowest.
        region_features: one vector a region, in the order of the region table (id 1 first); finite for absent regions.
        region_present: whether the region occurs, by the mask or, without one, by the prediction.
        occupancy: share of each region (0 = background) in each patch that guided the encoder.
        occupancy_logits: the encoder's own prediction of it.
        mask_occupancy: by the masks alone, 0 for a case without one; None without any mask.
        read: the patches that the encoder read. Features and occupancy of others are 0.
    """

    global_features: Float[Tensor, "b d"]
    local_features: Float[Tensor, "b n d"]
    region_features: Float[Tensor, "b r d"]
    region_present: Bool[Tensor, "b r"]
    occupancy: Float[Tensor, "b n labels"]
    occupancy_logits: Float[Tensor, "b n labels"]
    mask_occupancy: Float[Tensor, "b n labels"] | None
    read: Bool[Tensor, "b n"]

    def __getitem__(self, name: str) -> Tensor:
        if name not in {field.name for field in fields(self)}:
            raise KeyError(name)
        value: Tensor = getattr(self, name)
        return value


class VisionEncoder(nn.Module):
    """Encodes windowed CT volumes and, through the same weights, single-slab slices.

    One global and `num_regions` region tokens (the memory) run through all blocks beside the patches. After the first
    group of blocks a linear head predicts the occupancy of every patch; from there on the region tokens attend to
    their region only (additive log-occupancy) and every patch is told its regions. Where a mask is given its occupancy
    is used, elsewhere the prediction: both take the same path.

    Args:
        config: the model's settings.
        size: voxels (z, y, x) that the position tables are made for; other sizes are interpolated.
        recomputed_blocks: blocks whose activations are computed again in the backward pass instead of being kept.
        keep_products: keep products of matrices of those blocks after all, and attention without dropout.
        compiled: run the blocks compiled in training.
    """

    def __init__(
        self,
        config: ModelConfig,
        size: tuple[int, int, int],
        recomputed_blocks: Collection[int] = (),
        keep_products: bool = False,
        compiled: bool = False,
    ):
        super().__init__()
        d, grid = config.embed_dim, patch_grid(size, config.patch_size)
        self.config, self.recomputed_blocks = config, frozenset(recomputed_blocks)
        kept = PRODUCTS + (ATTENTION if config.attn_dropout == 0 else [])
        self.block_contexts = partial(create_selective_checkpoint_contexts, kept) if keep_products else noop_context_fn
        self.compiled = compiled
        self.patch_embedding = _patch_embedding(config)
        self.positions = Positions(grid, d)
        self.memory = nn.Parameter(torch.empty(1 + config.num_regions, d))
        self.region_embedding = nn.Parameter(torch.empty(1 + config.num_regions, d))
        self.blocks = nn.ModuleList(
            Block(
                axis=axes_of(config)[i],
                embed_dim=d,
                num_heads=config.num_heads,
                mlp_ratio=config.mlp_ratio,
                dropout=config.dropout,
                attn_dropout=config.attn_dropout,
                num_slabs=grid.z if i % 3 == 2 else None,
            )
            for i in range(config.depth)
        )
        self.occupancy_norm = nn.LayerNorm(d)
        self.occupancy_head = nn.Linear(d, 1 + config.num_regions)
        self.norm = nn.LayerNorm(d)
        self.global_proj = NormalizedLinear(d, d)
        self.region_proj = NormalizedLinear(d, d)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)  # keeps signals alive at any width, unlike a fixed 0.02
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.memory, std=0.02)
        nn.init.trunc_normal_(self.region_embedding, std=0.02)

    def forward(
        self,
        ct_volume: Float[Tensor, "b c z y x"],
        segmentation_mask: Integer[Tensor, "b 1 z y x"] | None = None,
        mask_given: Bool[Tensor, " b"] | None = None,
        tissue: Bool[Tensor, "b columns"] | None = None,
    ) -> EncoderOutput:
        """Encode a batch.

        Args:
            ct_volume: intensities in [0, 1], one channel per window.
            segmentation_mask: region ids 0..num_regions; None encodes without masks.
            mask_given: which cases of the batch have a mask at all (None: all of them). In training
                `config.mask_dropout` of those is withheld too.
            tissue: the columns of patches to read, see `columns.tissue_columns`; None: all. An encoder that was trained
                with `config.skip_air` has met no others.

        Raises:
            ValueError: a side is not a multiple of the patch size, or the mask has another size.
        """
        if mask_given is None and segmentation_mask is not None:
            mask_given = torch.ones(len(ct_volume), dtype=torch.bool, device=ct_volume.device)
        b, _, *size = ct_volume.shape
        whole = patch_grid((size[0], size[1], size[2]), self.config.patch_size)
        if tissue is not None and b > 1 and not self.training:
            return self._one_by_one(ct_volume, segmentation_mask, mask_given, tissue)
        patches = self.patch_embedding(ct_volume) + self.positions(whole)
        dropped = self.config.patch_dropout if self.training else 0.0
        wanted = ct_volume.new_ones(b, whole.in_slab, dtype=torch.bool) if tissue is None else tissue
        columns = choose_columns(wanted, whole, dropped) if dropped or tissue is not None else None
        grid = whole if columns is None else columns.grid
        patches = patches if columns is None else columns.take(patches)
        patches = F.dropout(patches, self.config.dropout, self.training)
        memory = self.memory.expand(b, -1, -1)
        for i in range(UNGUIDED_BLOCKS):
            patches, memory = self._run(i, patches, memory, grid, None)
        logits = self.occupancy_head(self.occupancy_norm(patches)).float()
        of_mask = self._of_mask(segmentation_mask, mask_given, size, columns)
        occupancy, present = self._guidance(logits, of_mask, mask_given)
        patches = patches + (occupancy.to(patches.dtype) @ self.region_embedding.to(patches.dtype))
        region_bias = log_occupancy(occupancy)
        for i in range(UNGUIDED_BLOCKS, len(self.blocks)):
            patches, memory = self._run(i, patches, memory, grid, region_bias)
        memory, local = self.norm(memory), self.norm(patches)
        out = EncoderOutput(
            global_features=memory[:, 0] if self.config.pooling == "token" else local.mean(1),
            local_features=local,
            region_features=memory[:, 1:],
            region_present=present,
            occupancy=occupancy,
            occupancy_logits=logits,
            mask_occupancy=of_mask,
            read=torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device),
        )
        return out if columns is None else _spread(out, columns)

    def _one_by_one(
        self,
        ct_volume: Float[Tensor, "b c z y x"],
        segmentation_mask: Integer[Tensor, "b 1 z y x"] | None,
        mask_given: Bool[Tensor, " b"] | None,
        tissue: Bool[Tensor, "b columns"],
    ) -> EncoderOutput:
        """What is read of a case must not depend on the others of its batch where results are compared."""
        parts = [None if part is None else part.split(1) for part in (ct_volume, segmentation_mask, mask_given, tissue)]
        cases = [self(*(None if part is None else part[i] for part in parts)) for i in range(len(ct_volume))]
        found = {field.name: [getattr(case, field.name) for case in cases] for field in fields(EncoderOutput)}
        joined: dict[str, Any] = {name: None if of[0] is None else torch.cat(of) for name, of in found.items()}
        return EncoderOutput(**joined)

    def seen_by_patches_only(self) -> list[nn.Parameter]:
        """Parameters that reach `local_features` alone, or nothing: an objective that leaves these out gives them no
        gradient."""
        last = len(self.blocks) - 1
        blocks = [block for block in self.blocks if isinstance(block, Block)]
        return [
            block.distance_bias
            for i, block in enumerate(blocks)
            if block.distance_bias is not None and (i == last or not block.uses_distance)
        ]

    def _run(
        self, number: int, patches: Tensor, memory: Tensor, grid: Grid, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        given = (self.blocks[number], patches, memory, grid, bias)
        if not self.training:
            return run_block(*given)
        run = compiled_run_block(varying=self.config.skip_air) if self.compiled else run_block
        if number not in self.recomputed_blocks:
            return run(*given)
        result: tuple[Tensor, Tensor] = checkpoint(run, *given, use_reentrant=False, context_fn=self.block_contexts)
        return result

    @torch.no_grad()
    def _of_mask(
        self,
        mask: Integer[Tensor, "b 1 z y x"] | None,
        mask_given: Bool[Tensor, " b"] | None,
        size: list[int],
        columns: Columns | None,
    ) -> Float[Tensor, "b n labels"] | None:
        if mask is None or mask_given is None:
            return None
        if list(mask.shape[2:]) != size:
            raise ValueError(f"segmentation_mask has {list(mask.shape[2:])} voxels, ct_volume {size}.")
        pooled = pool_occupancy(mask, self.config.patch_size, 1 + self.config.num_regions)
        return (pooled if columns is None else columns.take(pooled)) * mask_given[:, None, None]

    @torch.no_grad()
    def _guidance(
        self,
        logits: Float[Tensor, "b n labels"],
        of_mask: Float[Tensor, "b n labels"] | None,
        mask_given: Bool[Tensor, " b"] | None,
    ) -> tuple[Float[Tensor, "b n labels"], Bool[Tensor, "b r"]]:
        """Given occupancy where there is a mask, predicted elsewhere; a constant either way."""
        predicted = logits.softmax(-1)
        present = predicted[..., 1:].sum(1) >= LEAST_PREDICTED_PATCHES
        if of_mask is None or mask_given is None:
            return predicted, present
        used = mask_given
        if self.training and self.config.mask_dropout > 0:
            withheld = torch.rand(len(used)) < self.config.mask_dropout
            used = used & ~withheld.to(used.device)
        occupancy = torch.where(used[:, None, None], of_mask, predicted)
        return occupancy, torch.where(used[:, None], of_mask[..., 1:].sum(1) > 0, present)


def _spread(out: EncoderOutput, columns: Columns) -> EncoderOutput:
    """All patches, those that were not read with zeros."""
    return replace(
        out,
        local_features=columns.spread(out.local_features),
        occupancy=columns.spread(out.occupancy),
        occupancy_logits=columns.spread(out.occupancy_logits),
        mask_occupancy=None if out.mask_occupancy is None else columns.spread(out.mask_occupancy),
        read=columns.read(),
    )


def _patch_embedding(config: ModelConfig) -> nn.Module:
    channels, d = len(config.windows), config.embed_dim
    if config.sub_patch_size is None:
        return PatchEmbedding(config.patch_size, channels, d)
    return SubPatchEmbedding(config.patch_size, config.sub_patch_size, channels, config.sub_patch_channels, d)


def axes_of(config: ModelConfig) -> tuple[Axis, ...]:
    """The axis of every block."""
    axes = AXES[config.attention]
    return tuple(axes[i % len(axes)] for i in range(config.depth))


def log_occupancy(occupancy: Float[Tensor, "b n labels"]) -> Float[Tensor, "b m n"]:
    """Log-occupancy for the region tokens, 0 for the global token; -inf where a region is not.

    A region token of an absent region is left with the memory tokens, so its softmax stays defined.
    """
    regions = occupancy[..., 1:].transpose(1, 2)
    bias = regions.log().masked_fill(regions < LEAST_PATCH_SHARE, -torch.inf)
    return F.pad(bias, (0, 0, 1, 0))
