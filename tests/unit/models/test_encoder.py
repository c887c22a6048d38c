"""The vision encoder: its outputs, what each part of it can see, and what its gradient reaches."""

from __future__ import annotations

from itertools import product
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor

from tiny import NO_DROPOUT, random_pairs, tiny_config
from vlm3d_ct.config import Config
from vlm3d_ct.models import VisionEncoder, block, build_vision_encoder
from vlm3d_ct.models.encoder import ATTENTION, PRODUCTS
from vlm3d_ct.models.patches import Grid, pool_occupancy

NUM_PATCHES, IN_SLAB = 32, 16
OUTPUTS = {
    "global_features": (2, 32),
    "local_features": (2, NUM_PATCHES, 32),
    "region_features": (2, 20, 32),
    "region_present": (2, 20),
    "occupancy": (2, NUM_PATCHES, 21),
    "occupancy_logits": (2, NUM_PATCHES, 21),
}


def tiny_encoder(*overrides: str) -> VisionEncoder:
    torch.manual_seed(0)
    return build_vision_encoder(tiny_config("training.gradient_checkpointing=false", *overrides)).eval()


def volume_and_mask(count: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    inputs = random_pairs(tiny_config(), count, seed).model_input
    assert inputs.segmentation_mask is not None
    return inputs.ct_volume, inputs.segmentation_mask


def test_the_mean_of_the_patches_can_stand_for_the_volume():
    volume, mask = volume_and_mask()
    out = tiny_encoder("model.pooling=mean")(volume, mask)
    torch.testing.assert_close(out.global_features, out.local_features.mean(1))
    torch.testing.assert_close(out.local_features, tiny_encoder()(volume, mask).local_features)


def test_in_a_dense_encoder_one_block_carries_a_voxel_to_every_patch():
    changed_in = {}
    for attention in ("dense", "slice_region"):
        encoder = tiny_encoder(f"model.attention={attention}", "model.depth=4")
        with torch.no_grad():
            volume, _ = volume_and_mask(1)
            changed = volume.clone()
            changed[..., 0, 0, 0] += 0.5
            patches = [encoder.patch_embedding(v) + encoder.positions(Grid(2, 4, 4)) for v in (volume, changed)]
            memory = encoder.memory.expand(1, -1, -1)
            one, other = (encoder.blocks[0](p, memory, Grid(2, 4, 4), None)[0] for p in patches)
        changed_in[attention] = int(((one - other).abs().amax(-1) > 0).sum())
    assert changed_in == {"dense": NUM_PATCHES, "slice_region": IN_SLAB}


def test_outputs_have_the_plans_names_as_attributes_and_as_keys():
    volume, mask = volume_and_mask()
    out = tiny_encoder()(ct_volume=volume, segmentation_mask=mask)
    for name, shape in OUTPUTS.items():
        assert out[name] is getattr(out, name)
        assert tuple(out[name].shape) == shape
    with pytest.raises(KeyError):
        out["features"]
    encoder = tiny_encoder()
    for projected in (encoder.global_proj(out.global_features), encoder.region_proj(out.region_features)):
        assert projected.shape[-1] == 32
        torch.testing.assert_close(projected.norm(dim=-1), torch.ones(projected.shape[:-1]))


def test_the_default_encoder_has_the_plans_size():
    with torch.device("meta"):
        encoder = build_vision_encoder(Config())
        volume = torch.empty(1, 1, 64, 512, 512)
    assert 86e6 <= sum(parameter.numel() for parameter in encoder.parameters()) <= 90e6
    assert encoder.patch_embedding(volume).shape == (1, 16_384, 768)
    assert len(encoder.blocks) == 12
    assert [block.axis for block in encoder.blocks] == ["slab", "slab", "z"] * 4


def test_slices_go_through_the_same_weights_as_one_slab():
    encoder = tiny_encoder()
    slices = random_pairs(tiny_config(), 2, slices=True).model_input.ct_volume
    out = encoder(slices)
    assert out.local_features.shape == (2, IN_SLAB, 32)
    assert out.region_features.shape == (2, 20, 32)
    assert out.global_features.isfinite().all()


@pytest.mark.parametrize("size", [(16, 32, 32), (8, 16, 48), (12, 32, 32)])
def test_other_sizes_are_encoded_with_interpolated_positions(size: tuple[int, int, int]):
    out = tiny_encoder()(torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0)))
    assert out.local_features.shape == (1, size[0] * size[1] * size[2] // 256, 32)
    assert out.local_features.isfinite().all()


def test_several_windows_are_channels():
    encoder = tiny_encoder("model.windows=[plan, lung]")
    out = encoder(torch.rand(1, 2, 8, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert out.global_features.shape == (1, 32)


def test_a_mask_guides_the_encoder_and_without_one_its_own_prediction_does():
    encoder, (volume, mask) = tiny_encoder(), volume_and_mask()
    guided, blind = encoder(volume, mask), encoder(volume)
    torch.testing.assert_close(guided.occupancy, pool_occupancy(mask, (4, 8, 8), 21))
    torch.testing.assert_close(blind.occupancy, blind.occupancy_logits.softmax(-1))
    assert torch.equal(guided.occupancy_logits, blind.occupancy_logits)  # predicted before the mask comes in
    assert not torch.equal(guided.global_features, blind.global_features)


def test_a_given_occupancy_and_the_same_prediction_take_the_same_path():
    encoder, (volume, mask) = tiny_encoder(), volume_and_mask()
    mixed = encoder(volume, mask, torch.tensor([True, False]))
    guided, blind = encoder(volume, mask), encoder(volume)
    for name in ("global_features", "region_features", "occupancy", "region_present"):
        torch.testing.assert_close(mixed[name][0], guided[name][0])
        torch.testing.assert_close(mixed[name][1], blind[name][1])


@pytest.mark.parametrize(("share", "withheld"), [(0, 0), (1, 16)])
def test_training_withholds_the_wanted_share_of_the_masks(share: int, withheld: int):
    encoder = tiny_encoder(f"model.mask_dropout={share}").train()
    volume, mask = volume_and_mask(16)
    used = (encoder(volume, mask).occupancy == pool_occupancy(mask, (4, 8, 8), 21)).flatten(1).all(1)
    assert int((~used).sum()) == withheld
    assert (encoder.eval()(volume, mask).occupancy == pool_occupancy(mask, (4, 8, 8), 21)).all()


def test_an_absent_region_is_flagged_and_finite():
    encoder, (volume, _) = tiny_encoder(), volume_and_mask()
    mask = torch.zeros(2, 1, 8, 32, 32, dtype=torch.uint8)
    mask[0, 0, :4] = 3
    mask[0, 0, 7, 31, 31] = 20  # one voxel is enough
    mask[1] = 7  # nothing but one region: no patch is background
    out = encoder(volume, mask)
    assert (torch.nonzero(out.region_present[0]).flatten() + 1).tolist() == [3, 20]
    assert (torch.nonzero(out.region_present[1]).flatten() + 1).tolist() == [7]
    for name in OUTPUTS:
        assert out[name].isfinite().all(), name


def test_a_mask_of_another_size_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # else the tests' own shape check is the first
    volume, mask = volume_and_mask()
    with pytest.raises(ValueError, match=r"segmentation_mask has \[4, 32, 32\] voxels, ct_volume \[8, 32, 32\]"):
        tiny_encoder()(volume, mask[:, :, :4])


def arguments_of_block(encoder: VisionEncoder, number: int, volume: Tensor, mask: Tensor) -> tuple[Any, ...]:
    """What a block of the encoder is called with."""
    seen: list[tuple[Any, ...]] = []
    handle = encoder.blocks[number].register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    encoder(volume, mask)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("number", [3, 4, 5])  # the two in-slab blocks and the z block after the guidance
def test_a_region_token_sees_nothing_of_the_patches_outside_its_region(number: int):
    encoder = tiny_encoder("model.depth=6")
    volume, _ = volume_and_mask(1)
    mask = torch.zeros(1, 1, 8, 32, 32, dtype=torch.uint8)
    mask[:, :, :4, :8] = 5  # the first row of patches of the first slab
    mask[:, :, 4:, 8:] = 6
    patches, memory, grid, bias = arguments_of_block(encoder, number, volume, mask)
    block = encoder.blocks[number]
    inside = pool_occupancy(mask, (4, 8, 8), 21)[0, :, 5] > 0
    assert inside.tolist() == [True] * 4 + [False] * 28
    noise = torch.randn(patches.shape, generator=torch.Generator().manual_seed(0))
    before = block(patches, memory, grid, bias)[1]
    outside_changed = block(patches + noise * ~inside[:, None], memory, grid, bias)[1]
    inside_changed = block(patches + noise * inside[:, None], memory, grid, bias)[1]
    assert torch.equal(outside_changed[:, 5], before[:, 5])
    assert not torch.equal(inside_changed[:, 5], before[:, 5])
    torch.testing.assert_close(inside_changed[:, 6], before[:, 6])
    for changed in (outside_changed, inside_changed):
        assert not torch.equal(changed[:, 0], before[:, 0])  # the global token sees all


def test_a_region_token_weighs_patches_by_their_share_of_the_region():
    encoder, (volume, _) = tiny_encoder(), volume_and_mask(1)
    mask = torch.zeros(1, 1, 8, 32, 32, dtype=torch.uint8)
    mask[0, 0, :4, :8, :8] = 9
    mask[0, 0, :2, :8, 8:16] = 9  # half of the second patch
    bias = arguments_of_block(encoder, 3, volume, mask)[3]
    assert bias[0, 9, :3].exp().tolist() == [1.0, 0.5, 0.0]
    assert bias[0, 9, 3:].isneginf().all()
    assert not bias[0, 0].any()
    assert arguments_of_block(encoder, 2, volume, mask)[3] is None


def test_information_crosses_slabs():
    encoder, (volume, mask) = tiny_encoder(), volume_and_mask(1)
    changed = volume.clone()
    changed[:, :, :4, :8, :8] = 0.0
    before, after = encoder(volume, mask), encoder(changed, mask)
    last_slab = after.local_features[0, IN_SLAB:] != before.local_features[0, IN_SLAB:]
    assert last_slab.any(-1).all()
    assert (after.region_features != before.region_features).any(-1).all()


def test_cases_of_a_batch_do_not_see_each_other():
    encoder, (volume, mask) = tiny_encoder(), volume_and_mask(3)
    together, alone = encoder(volume, mask), encoder(volume[1:2], mask[1:2])
    for name in OUTPUTS:
        torch.testing.assert_close(together[name][1:2], alone[name])


def gradients(encoder: VisionEncoder, volume: Tensor, mask: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(11)
    out = encoder.train()(volume, mask)
    weights = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    loss = (out.global_features * weights).sum() + (out.region_features * weights[:, None]).sum()
    (loss + out.occupancy_logits.square().mean() + out.local_features.square().mean()).backward()
    return {name: parameter.grad for name, parameter in encoder.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("dropout", [(), NO_DROPOUT])
def test_checkpointing_changes_nothing_in_the_gradient(dropout: tuple[str, ...]):
    volume, mask = volume_and_mask()
    plain = gradients(tiny_encoder(*dropout), volume, mask)
    for kind, blocks in product(("true", "cheap"), ("null", "2")):
        settings = (f"training.gradient_checkpointing={kind}", f"training.checkpointed_blocks={blocks}")
        recomputed = gradients(tiny_encoder(*dropout, *settings), volume, mask)
        assert plain.keys() == recomputed.keys()
        for name, gradient in plain.items():
            assert torch.equal(gradient, recomputed[name]), (name, settings)


def test_cheap_recomputation_keeps_no_operation_that_draws():
    # what is kept is not computed again, and would leave the random numbers of what follows where they were before it
    def kept(attn_dropout: float) -> list[object]:
        config = tiny_config("training.gradient_checkpointing=cheap", f"model.attn_dropout={attn_dropout}")
        (found,) = build_vision_encoder(config).block_contexts.args  # type: ignore[attr-defined]
        return list(found)

    assert kept(0.1) == PRODUCTS
    assert kept(0.0) == PRODUCTS + ATTENTION


def test_a_choice_of_blocks_is_recomputed_and_spread_over_the_depth():
    def blocks(*overrides: str) -> list[int]:
        config = tiny_config("model.depth=12", "training.gradient_checkpointing=true", *overrides)
        return sorted(build_vision_encoder(config).recomputed_blocks)

    assert blocks() == list(range(12))
    assert blocks("training.gradient_checkpointing=false") == []
    assert blocks("training.checkpointed_blocks=4") == [2, 5, 8, 11]
    assert [len(blocks(f"training.checkpointed_blocks={count}")) for count in range(1, 13)] == list(range(1, 13))


@torch.no_grad()
def test_the_weights_of_one_kind_of_attention_fit_another():
    volume, mask = volume_and_mask()
    outputs = []
    for kind in ("slice_region", "dense", "dense_z_bias"):
        encoder = tiny_encoder(f"model.attention={kind}")
        encoder.load_state_dict(tiny_encoder().state_dict())
        outputs.append(encoder(volume, mask).global_features)
    torch.testing.assert_close(outputs[1], outputs[2])  # a fresh bias is 0
    assert not torch.allclose(outputs[0], outputs[1])


@pytest.mark.parametrize("at_a_time", [1, 5, 31])
def test_tokens_in_parts_are_tokens_at_once(at_a_time: int, monkeypatch: pytest.MonkeyPatch):
    encoder, (volume, mask) = tiny_encoder(), volume_and_mask()
    at_once = encoder(volume, mask)  # a gradient could be wanted
    monkeypatch.setattr(block, "TOKENS_AT_A_TIME", at_a_time)
    with torch.no_grad():
        in_parts = encoder(volume, mask)
    for name in OUTPUTS:
        torch.testing.assert_close(in_parts[name], at_once[name].detach(), rtol=1e-4, atol=1e-5)
