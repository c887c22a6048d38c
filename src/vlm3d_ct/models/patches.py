"""From voxels to patches: embedding, positions, and the share of each region in each patch."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn

INTENSITY_MEAN, INTENSITY_SPREAD = 0.4, 0.4
"""About those of chest CTs through the windows."""
POSITION_SPREAD = 0.5
"""Of each axis' positions at the start: their sum is about as large as an embedded patch."""


class Grid(NamedTuple):
    """Number of patches along each axis; patches are numbered with x fastest, z slowest."""

    z: int
    y: int
    x: int

    @property
    def in_slab(self) -> int:
        """Patches of one slab (one step along z)."""
        return self.y * self.x


def patch_grid(size: tuple[int, int, int], patch_size: tuple[int, int, int]) -> Grid:
    """The grid of patches that covers ``size`` voxels.

    Raises:
        ValueError: a side is not a multiple of the patch.
    """
    for axis, length, patch in zip("zyx", size, patch_size, strict=True):
        if length % patch:
            raise ValueError(f"{length} voxels along {axis} are not a multiple of the patch size {patch}.")
    return Grid(*(length // patch for length, patch in zip(size, patch_size, strict=True)))


def split_into_patches(
    volume: Integer[Tensor, "b c z y x"] | Float[Tensor, "b c z y x"], patch_size: tuple[int, int, int]
) -> Integer[Tensor, "b n p"] | Float[Tensor, "b n p"]:
    """Cut a volume into patches, each flattened with its channels slowest."""
    b, c, *size = volume.shape
    grid, (pz, py, px) = patch_grid((size[0], size[1], size[2]), patch_size), patch_size
    cut = volume.view(b, c, grid.z, pz, grid.y, py, grid.x, px).permute(0, 2, 4, 6, 1, 3, 5, 7)
    return cut.reshape(b, grid.z * grid.y * grid.x, c * pz * py * px)


def pool_occupancy(
    mask: Integer[Tensor, "b 1 z y x"], patch_size: tuple[int, int, int], num_labels: int
) -> Float[Tensor, "b n labels"]:
    """Share of each patch's voxels that carry each label 0..num_labels-1; sums to 1 over the labels.

    Counted with one `bincount` over (patch, label): on a CPU ten times as fast as one-hot pooling, and exact.
    """
    labels = split_into_patches(mask, patch_size).int()
    b, n, p = labels.shape
    first_bin = torch.arange(b * n, device=mask.device, dtype=torch.int32).view(b, n, 1) * num_labels
    counts = torch.bincount((labels + first_bin).flatten(), minlength=b * n * num_labels)
    return counts.view(b, n, num_labels).float() / p


def _of_centred(linear: nn.Linear, intensities: Float[Tensor, "*b p"]) -> Float[Tensor, "*b d"]:
    """The map of the centred, scaled intensities.

    The scale goes into the weights, which are far fewer than the voxels. The mean does not: it is taken off before bf16
    rounds, for soft tissue lies within some percent of it.
    """
    return F.linear(intensities - INTENSITY_MEAN, linear.weight / INTENSITY_SPREAD, linear.bias)


class PatchEmbedding(nn.Module):
    """Linear embedding of patches (a reshape and a product: `Conv3d` with stride = kernel is many times slower).

    Intensities are centred and scaled before: all patches share most of their brightness, and a fresh encoder would see
    hardly anything else (docs/decisions/0027).
    """

    def __init__(self, patch_size: tuple[int, int, int], num_channels: int, embed_dim: int):
        super().__init__()
        self.patch_size = patch_size
        pz, py, px = patch_size
        self.linear = nn.Linear(num_channels * pz * py * px, embed_dim)

    def forward(self, volume: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b n d"]:
        """Embed every patch of a volume of intensities in [0, 1]."""
        patches = split_into_patches(volume, self.patch_size)
        return _of_centred(self.linear, patches)


class SubPatchEmbedding(nn.Module):
    """Embedding of patches in two stages: what is small is looked for all over a patch, by the same few weights.

    Every patch is cut into sub-patches; one linear map and GELU turn each into a few channels, a second map joins those
    of all sub-patches of a patch. It is a stem of two convolutions with stride = kernel (after Xiao et al. 2021, "Early
    convolutions help transformers see better"), which pays where a patch is large beside the lesions.
    """

    def __init__(
        self,
        patch_size: tuple[int, int, int],
        sub_patch_size: tuple[int, int, int],
        num_channels: int,
        sub_patch_channels: int,
        embed_dim: int,
    ):
        super().__init__()
        self.patch_size, self.sub_patch_size = patch_size, sub_patch_size
        inner = patch_grid(patch_size, sub_patch_size)
        self.first = nn.Linear(num_channels * prod(sub_patch_size), sub_patch_channels)
        self.second = nn.Linear(prod(inner) * sub_patch_channels, embed_dim)

    def forward(self, volume: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b n d"]:
        """Embed every patch of a volume of intensities in [0, 1]."""
        grid = patch_grid((volume.shape[2], volume.shape[3], volume.shape[4]), self.sub_patch_size)
        parts = split_into_patches(volume, self.sub_patch_size)
        found = F.gelu(_of_centred(self.first, parts))
        inner = patch_grid(self.patch_size, self.sub_patch_size)
        joined = split_into_patches(found.transpose(1, 2).unflatten(2, grid), (inner.z, inner.y, inner.x))
        embedded: Tensor = self.second(joined)
        return embedded


class Positions(nn.Module):
    """Learned positions, the sum of one vector for z, y and x each; interpolated linearly for other grids.

    A single slab has an unknown z: it gets row 0 of the z table. Keeping that row inside the table means that every
    parameter takes part in every step, whatever the kind of the batch.
    """

    def __init__(self, grid: Grid, embed_dim: int):
        super().__init__()
        self.z = nn.Parameter(torch.empty(1 + grid.z, embed_dim))
        self.y = nn.Parameter(torch.empty(grid.y, embed_dim))
        self.x = nn.Parameter(torch.empty(grid.x, embed_dim))
        for table in (self.z, self.y, self.x):
            nn.init.normal_(table, std=POSITION_SPREAD)

    def forward(self, grid: Grid) -> Float[Tensor, "n d"]:
        """Positions of all patches of the grid."""
        z = self.z[:1] if grid.z == 1 else _interpolate(self.z[1:], grid.z)
        y, x = _interpolate(self.y, grid.y), _interpolate(self.x, grid.x)
        return (z[:, None, None] + y[None, :, None] + x[None, None, :]).flatten(0, 2)


def _interpolate(table: Float[Tensor, "n d"], length: int) -> Float[Tensor, "m d"]:
    if len(table) == length:
        return table
    return F.interpolate(table.T[None], size=length, mode="linear", align_corners=False)[0].T
