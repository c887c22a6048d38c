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

DARKEST = 0.05
"""A column of patches is air where no voxel is brighter than the darkest of its case by more: five times the planned
noise. What a window shows black all along z tells nothing but that it is there."""


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


def choose_columns(volume: Float[Tensor, "b c z y x"], grid: Grid, *, skip_air: bool, dropout: float) -> Columns | None:
    """The columns to read of every case, as many of each; None where that is all of them.

    Args:
        volume: intensities in [0, 1].
        grid: of its patches.
        skip_air: leave columns of air out. As many stay as the case with the fewest of them needs, so that the other
            cases of a batch keep some.
        dropout: share of the columns that are left out at random, drawn by the CPU's generator.
    """
    b = len(volume)
    bright = torch.ones(b, grid.in_slab, dtype=torch.bool, device=volume.device)
    if skip_air:
        bright = _brightest(volume, grid) - volume.flatten(1).amin(1, keepdim=True) > DARKEST
    needed = int(bright.sum(1).max()) if skip_air else grid.in_slab
    count = max(1, ceil((1 - dropout) * needed))
    if count == grid.in_slab:
        return None
    # what is bright goes first; among equals chance decides, or the place
    order = torch.rand(b, grid.in_slab) if dropout > 0 else torch.linspace(1, 0, grid.in_slab).expand(b, -1)
    ranks = bright + 0.5 * order.to(volume.device)
    return Columns(ranks.topk(count, dim=1).indices.sort(1).values, grid)


def _brightest(volume: Float[Tensor, "b c z y x"], grid: Grid) -> Float[Tensor, "b columns"]:
    b, _, _, y, x = volume.shape
    flat = volume.amax((1, 2)).view(b, grid.y, y // grid.y, grid.x, x // grid.x)
    return flat.amax((2, 4)).flatten(1)
