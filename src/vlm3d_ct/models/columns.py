"""Which patches an encoder reads: whole columns along z stay or go, so that every slab keeps the same places.

A regular grid is left over, whatever goes, and no attention needs a mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from vlm3d_ct.models.patches import Grid

TISSUE_HU = -400.0
"""A column of patches is air where no voxel is denser: no lung fills a column from one end of a chest to the other
without a vessel."""


@dataclass
class Columns:
    """Columns of patches that are read.

    Attributes:
        chosen: their numbers within a slab, in order.
        whole: the grid that they are taken from.
    """

    chosen: Integer[Tensor, "b k"]
    whole: Grid

    @property
    def grid(self) -> Grid:
        """Of the patches that are read."""
        return Grid(self.whole.z, 1, self.chosen.shape[1])

    def take(self, patches: Float[Tensor, "b n width"]) -> Float[Tensor, "b kept width"]:
        """The patches that are read."""
        return patches.gather(1, self._numbers()[..., None].expand(-1, -1, patches.shape[-1]))

    def spread(self, patches: Float[Tensor, "b kept width"]) -> Float[Tensor, "b n width"]:
        """At their places among all patches; 0 for those that are not read."""
        everywhere = patches.new_zeros(len(patches), self.whole.z * self.whole.in_slab, patches.shape[-1])
        return everywhere.scatter(1, self._numbers()[..., None].expand(-1, -1, patches.shape[-1]), patches)

    def read(self) -> Bool[Tensor, "b n"]:
        """Which patches are read."""
        nothing = torch.zeros(len(self.chosen), self.whole.in_slab, dtype=torch.bool, device=self.chosen.device)
        return nothing.scatter(1, self.chosen, True).repeat(1, self.whole.z)

    def _numbers(self) -> Integer[Tensor, "b kept"]:
        slabs = torch.arange(self.whole.z, device=self.chosen.device) * self.whole.in_slab
        return (slabs[None, :, None] + self.chosen[:, None, :]).flatten(1)


def tissue_columns(voxels_hu: Float[Tensor, "b z y x"], patch_size: tuple[int, int, int]) -> Bool[Tensor, "b columns"]:
    """Which columns of patches hold tissue somewhere along z; all, where a case holds none."""
    b, _, y, x = voxels_hu.shape
    _, py, px = patch_size
    densest = voxels_hu.amax(1).view(b, y // py, py, x // px, px).amax((2, 4)).flatten(1)
    tissue = densest > TISSUE_HU
    return tissue | ~tissue.any(1, keepdim=True)


def choose_columns(tissue: Bool[Tensor, "b columns"], whole: Grid, dropout: float) -> Columns | None:
    """The columns to read of every case, as many of each; None where that is all of them.

    Args:
        tissue: those that are wanted, see `tissue_columns`. As many are read as the case with the most of them needs,
            so that the other cases of a batch keep some air.
        whole: grid of all patches.
        dropout: share of the columns that are left out at random, drawn by the CPU's generator.
    """
    b, columns = tissue.shape
    count = max(1, ceil((1 - dropout) * int(tissue.sum(1).max())))
    if count == columns:
        return None
    # tissue goes first; among equals chance decides, or the place
    order = torch.rand(b, columns) if dropout > 0 else torch.linspace(1, 0, columns).expand(b, -1)
    ranks = tissue + 0.5 * order.to(tissue.device)
    return Columns(ranks.topk(count, dim=1).indices.sort(1).values, whole)
