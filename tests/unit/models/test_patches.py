"""Patches, positions and occupancy against naive versions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vlm3d_ct.models.patches import (
    INTENSITY_MEAN,
    Grid,
    PatchEmbedding,
    Positions,
    SubPatchEmbedding,
    patch_grid,
    pool_occupancy,
    split_into_patches,
)

PATCH = (2, 3, 4)
GRID = Grid(3, 2, 2)


def numbered_volume(channels: int = 2) -> torch.Tensor:
    size = tuple(g * p for g, p in zip(GRID, PATCH, strict=True))
    return torch.arange(2 * channels * np.prod(size), dtype=torch.float32).reshape(2, channels, *size)


def test_the_grid_covers_the_volume():
    assert patch_grid((64, 512, 512), (4, 16, 16)) == Grid(16, 32, 32)
    assert Grid(16, 32, 32).in_slab == 1024


@pytest.mark.parametrize(("size", "axis"), [((5, 6, 8), "z"), ((6, 7, 8), "y"), ((6, 6, 9), "x")])
def test_a_side_that_is_no_multiple_of_the_patch_is_refused(size: tuple[int, int, int], axis: str):
    with pytest.raises(ValueError, match=f"along {axis} are not a multiple"):
        patch_grid(size, PATCH)


def test_patches_are_numbered_with_x_fastest_and_hold_their_own_voxels():
    volume = numbered_volume()
    patches = split_into_patches(volume, PATCH)
    assert patches.shape == (2, 12, 48)
    for number, (z, y, x) in enumerate(itertools.product(*(range(g) for g in GRID))):
        block = volume[:, :, 2 * z : 2 * z + 2, 3 * y : 3 * y + 3, 4 * x : 4 * x + 4]
        assert torch.equal(patches[:, number], block.flatten(1))


def test_soft_tissue_is_embedded_in_bf16_as_exactly_as_bf16_is():
    torch.manual_seed(0)
    embedding = PatchEmbedding((2, 4, 4), 1, 16)
    volume = INTENSITY_MEAN + 0.02 * torch.randn(2, 1, 4, 8, 8)  # 8 HU about water through the plan's window
    with torch.no_grad():
        expected = embedding(volume)
        with torch.autocast("cpu", torch.bfloat16):
            found = embedding(volume)
    assert float((found.float() - expected).norm() / expected.norm()) < 2**-7  # the spacing of bf16


def test_the_embedding_is_a_strided_convolution_of_centred_intensities():
    embedding = PatchEmbedding(PATCH, num_channels=2, embed_dim=5)
    volume = torch.randn(2, 2, 6, 6, 8, generator=torch.Generator().manual_seed(0))
    kernel = embedding.linear.weight.view(5, 2, *PATCH)
    expected = F.conv3d((volume - 0.4) / 0.4, kernel, embedding.linear.bias, stride=PATCH).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embedding(volume), expected)


def test_the_embedding_by_sub_patches_is_two_strided_convolutions():
    inner = (2, 1, 2)
    embedding = SubPatchEmbedding(PATCH, (1, 3, 2), num_channels=2, sub_patch_channels=7, embed_dim=5)
    volume = torch.randn(2, 2, 6, 6, 8, generator=torch.Generator().manual_seed(0))
    first, second = embedding.first, embedding.second
    found = F.conv3d((volume - 0.4) / 0.4, first.weight.view(7, 2, 1, 3, 2), first.bias, stride=(1, 3, 2))
    expected = F.conv3d(F.gelu(found), second.weight.view(5, 7, *inner), second.bias, stride=inner)
    torch.testing.assert_close(embedding(volume), expected.flatten(2).transpose(1, 2))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_occupancy_is_the_share_of_voxels_of_each_label(dtype: torch.dtype):
    mask = torch.randint(0, 7, (2, 1, 6, 6, 8), generator=torch.Generator().manual_seed(1)).to(dtype)
    occupancy = pool_occupancy(mask, PATCH, 8)
    for case, (number, (z, y, x)) in itertools.product(
        range(2), enumerate(itertools.product(*(range(g) for g in GRID)))
    ):
        voxels = [
            int(mask[case, 0, 2 * z + dz, 3 * y + dy, 4 * x + dx])
            for dz, dy, dx in itertools.product(*(range(p) for p in PATCH))
        ]
        for label in range(8):
            assert float(occupancy[case, number, label]) == pytest.approx(voxels.count(label) / 24)
    torch.testing.assert_close(occupancy.sum(-1), torch.ones(2, 12))


def test_positions_of_the_native_grid_are_the_tables_themselves():
    positions = Positions(GRID, 6)
    expected = torch.stack(
        [
            positions.z[1 + z] + positions.y[y] + positions.x[x]
            for z, y, x in itertools.product(*(range(g) for g in GRID))
        ]
    )
    assert torch.equal(positions(GRID), expected)


def test_positions_of_other_grids_are_interpolated_and_keep_a_constant_and_a_slope():
    positions = Positions(Grid(4, 4, 4), 2)
    with torch.no_grad():
        for table in (positions.y, positions.x, positions.z):
            table.zero_()
        positions.y[:, 0] = 2.0
        positions.z[1:, 1] = torch.arange(4.0)
    finer = positions(Grid(8, 8, 8)).view(8, 8, 8, 2)
    assert torch.equal(finer[..., 0], torch.full((8, 8, 8), 2.0))
    # centres of 8 cells in the coordinates of 4, clamped at the ends
    expected = ((torch.arange(8) + 0.5) / 2 - 0.5).clamp(0, 3)
    torch.testing.assert_close(finer[:, 3, 5, 1], expected)


def test_a_single_slab_has_a_z_of_its_own():
    positions = Positions(GRID, 6)
    slab = positions(Grid(1, 2, 2))
    torch.testing.assert_close(slab[0], positions.z[0] + positions.y[0] + positions.x[0])
    slab.sum().backward()
    assert positions.z.grad is not None
    assert not positions.z.grad[1:].any()
    volume_rows = Positions(GRID, 6)
    volume_rows(GRID).sum().backward()
    assert volume_rows.z.grad is not None
    assert not volume_rows.z.grad[0].any()
