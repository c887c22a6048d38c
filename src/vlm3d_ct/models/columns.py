"""Which patches an encoder reads: whole columns along z stay or go, so that every slab keeps the same places.

A regular grid is left over, whatever goes, and no attention needs a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from vlm3d_ct.config.schema import TISSUE_HU
from vlm3d_ct.models.patches import Grid

AIR_HU = -1024.0
MARGIN = 0.05
"""Of intensity, above what noise makes of black: five times the planned noise."""


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


def tissue_contrasts(windows_hu: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    """How much brighter than the air of its scan tissue is in each window, at least; over 1 where none can be."""
    floors = [(centre - width / 2, width) for centre, width in windows_hu]
    return tuple(max(0.0, TISSUE_HU - max(floor, AIR_HU)) / width + MARGIN for floor, width in floors)


def choose_columns(
    volume: Float[Tensor, "b c z y x"], grid: Grid, contrasts: Sequence[float] | None, dropout: float
) -> Columns | None:
    """The columns to read of every case, as many of each; None where that is all of them.

    Args:
        volume: intensities in [0, 1].
        grid: of its patches.
        contrasts: leave columns of air out, see `tissue_contrasts`. As many stay as the case with the fewest of them
            needs, so that the other cases of a batch keep some. None: all are wanted.
        dropout: share of the columns that are left out at random, drawn by the CPU's generator.
    """
    b = len(volume)
    wanted = torch.ones(b, grid.in_slab, dtype=torch.bool, device=volume.device)
    if contrasts is not None:
        wanted = _tissue(volume, grid, contrasts)
    needed = grid.in_slab if contrasts is None else int(wanted.sum(1).max())
    count = max(1, ceil((1 - dropout) * needed))
    if count == grid.in_slab:
        return None
    # what is wanted goes first; among equals chance decides, or the place
    order = torch.rand(b, grid.in_slab) if dropout > 0 else torch.linspace(1, 0, grid.in_slab).expand(b, -1)
    ranks = wanted + 0.5 * order.to(volume.device)
    return Columns(ranks.topk(count, dim=1).indices.sort(1).values, grid)


def _tissue(volume: Float[Tensor, "b c z y x"], grid: Grid, contrasts: Sequence[float]) -> Bool[Tensor, "b columns"]:
    """Which columns hold tissue in some window."""
    b, c, _, y, x = volume.shape
    brightest = volume.amax(2).view(b, c, grid.y, y // grid.y, grid.x, x // grid.x).amax((3, 5)).flatten(2)
    darkest = volume.amin((2, 3, 4))[..., None]
    return (brightest - darkest > torch.tensor(contrasts, device=volume.device)[:, None]).any(1)
