"""Columns of patches that are left out: which, and what becomes of the rest."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tiny import NO_DROPOUT, random_pairs, tiny_config, tiny_model
from vlm3d_ct.models import VisionEncoder, build_vision_encoder
from vlm3d_ct.models.columns import MARGIN, Columns, choose_columns, tissue_contrasts
from vlm3d_ct.models.patches import Grid
from vlm3d_ct.training.step import embed

GRID = Grid(2, 4, 4)
AIR = [0, 1, 2, 3, 4, 7, 8, 12]
"""Columns of the first case that are black all along z."""


def encoder(*overrides: str) -> VisionEncoder:
    torch.manual_seed(0)
    return build_vision_encoder(tiny_config("training.gradient_checkpointing=false", *overrides)).eval()


def scans(count: int = 1, air: list[int] = AIR) -> tuple[Tensor, Tensor]:
    """Noise with black columns in the first case, and one fewer in each other; one patch alone is black everywhere."""
    inputs = random_pairs(tiny_config(), count).model_input
    assert inputs.segmentation_mask is not None
    volume = 0.5 + 0.5 * inputs.ct_volume
    for case in range(count):
        for column in air[case:]:
            y, x = divmod(column, GRID.x)
            volume[case, :, :, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = 0.0
        volume[case, :, :4, 24:, 24:] = 0.0
    return volume, inputs.segmentation_mask


def test_columns_of_air_are_left_out_and_as_many_stay_as_the_fullest_case_needs():
    volume, _ = scans(2)
    chosen = choose_columns(volume, GRID, (MARGIN,), 0.0)
    assert chosen is not None
    body = [i for i in range(16) if i not in AIR]
    assert chosen.chosen[1].tolist() == sorted([*body, AIR[0]])
    assert set(body) < set(chosen.chosen[0].tolist())
    assert chosen.grid == (2, 1, 9)


def test_a_shift_of_the_intensities_moves_no_border():
    volume, _ = scans()
    one, other = (choose_columns(v, GRID, (MARGIN,), 0.0) for v in (volume, volume + 0.1))
    assert one is not None
    assert other is not None
    assert torch.equal(one.chosen, other.chosen)


def test_tissue_is_told_from_air_by_whatever_window_shows_it():
    plan, lung, dark = tissue_contrasts([(40.0, 400.0), (-600.0, 1500.0), (-900.0, 200.0)])
    assert plan == MARGIN  # all air is black
    assert lung == pytest.approx((1024 - 400) / 1500 + MARGIN)  # air is grey, and noisy
    assert dark > 1  # tissue and lung are both white
    air, tissue = -1000 + 30 * torch.randn(8, 32, 32), -50.0
    scan = torch.where(torch.arange(32) < 8, torch.tensor(tissue), air)
    seen = torch.stack(
        [((scan - low) / width).clamp(0, 1) for low, width in ((-160, 400), (-1350, 1500), (-1000, 200))]
    )
    for contrasts, channels in (((plan,), seen[:1]), ((lung, dark), seen[1:]), ((plan, lung, dark), seen)):
        chosen = choose_columns(channels[None], GRID, contrasts, 0.0)
        assert chosen is not None
        assert chosen.chosen.tolist() == [[0, 4, 8, 12]]


@torch.no_grad()
def test_a_slice_is_read_whole():
    volume, _ = scans(2)
    assert encoder("model.skip_air=true")(volume[:, :, :4]).read.all()


def test_a_volume_of_one_grey_keeps_a_column():
    chosen = choose_columns(torch.full((1, 1, 8, 32, 32), 0.3), GRID, (MARGIN,), 0.0)
    assert chosen is not None
    assert chosen.chosen.tolist() == [[0]]


def test_what_is_taken_comes_back_to_its_place():
    chosen = Columns(torch.tensor([[1, 6], [0, 15]]), GRID)
    numbers = torch.arange(64.0).view(2, 32, 1) + 1
    taken = chosen.take(numbers)
    assert taken[:, :, 0].tolist() == [[2, 7, 18, 23], [33, 48, 49, 64]]
    spread = chosen.spread(taken)
    assert torch.equal(spread, numbers * chosen.read()[..., None])


def test_without_air_nothing_changes():
    volume, mask = scans(air=[])
    with torch.no_grad():
        skipped, whole = encoder("model.skip_air=true")(volume, mask), encoder()(volume, mask)
    for name in ("global_features", "local_features", "region_features", "occupancy", "read"):
        assert torch.equal(skipped[name], whole[name]), name


@torch.no_grad()
def test_what_stays_is_encoded_as_if_there_were_nothing_else():
    model, (volume, mask) = encoder("model.skip_air=true"), scans()
    seen = model(volume, mask)
    stay = [16 * z + i for z in range(2) for i in range(16) if i not in AIR]
    patches = (model.patch_embedding(volume) + model.positions(GRID))[:, stay]
    memory, small = model.memory.expand(1, -1, -1), Grid(2, 1, 8)
    for block in model.blocks[:3]:
        patches, memory = block(patches, memory, small, None)
    torch.testing.assert_close(seen.occupancy_logits[:, stay], model.occupancy_head(model.occupancy_norm(patches)))
    share = seen.occupancy[:, stay]
    torch.testing.assert_close(share, encoder()(volume, mask).occupancy[:, stay])
    bias = torch.zeros(1, 21, 16)
    bias[:, 1:] = share[..., 1:].transpose(1, 2).log()
    patches, memory = model.blocks[3](patches + share @ model.region_embedding, memory, small, bias)
    torch.testing.assert_close(seen.local_features[:, stay], model.norm(patches))
    torch.testing.assert_close(seen.region_features, model.norm(memory)[:, 1:])
    rest = [i for i in range(32) if i not in stay]
    assert not any(seen[name][:, rest].any() for name in ("local_features", "occupancy", "occupancy_logits", "read"))
    assert seen.read[:, stay].all()


@torch.no_grad()
def test_what_is_left_out_has_no_influence():
    model, (volume, mask) = encoder("model.skip_air=true"), scans()
    changed = volume.clone()
    changed[..., :8, :] += 0.9 * MARGIN * torch.rand(8, 32)  # the first row of columns
    assert torch.equal(model(volume, mask).global_features, model(changed, mask).global_features)
    assert not torch.equal(encoder()(volume, mask).global_features, encoder()(changed, mask).global_features)


@torch.no_grad()
def test_a_scan_is_embedded_alike_in_any_company():
    model, (volume, mask) = encoder("model.skip_air=true"), scans(3)
    together = model(volume, mask)
    for case in range(3):
        alone = model(volume[case : case + 1], mask[case : case + 1])
        for name in ("global_features", "local_features", "region_features", "read"):
            assert torch.equal(together[name][case : case + 1], alone[name]), name


@pytest.mark.parametrize(("settings", "count"), [((), 12), (("model.skip_air=true",), 6)])
def test_a_share_of_the_columns_is_dropped_in_training_only(settings: tuple[str, ...], count: int):
    model, (volume, mask) = encoder("model.patch_dropout=0.25", *settings), scans()
    torch.manual_seed(1)
    read = [model.train()(volume, mask).read.view(2, 16) for _ in range(20)]
    assert {int(slab.sum()) for case in read for slab in case} == {count}
    assert all(torch.equal(case[0], case[1]) for case in read)  # whole columns
    ever = torch.stack(read).any(0)[0]
    assert ever.nonzero().flatten().tolist() == [i for i in range(16) if not settings or i not in AIR]
    assert int(model.eval()(volume, mask).read.sum()) == 2 * (8 if settings else 16)


def test_both_passes_of_a_step_drop_the_same_columns():
    config = tiny_config(*NO_DROPOUT, "model.patch_dropout=0.5", "model.skip_air=true")
    model, micro = tiny_model(config).train(), random_pairs(config, 3)
    (one, one_loss), (other, other_loss) = (embed(model, micro, "fp32") for _ in range(2))
    assert torch.equal(one.volume, other.volume)
    assert torch.equal(one_loss, other_loss)


def test_the_occupancy_loss_is_the_mean_over_what_was_read():
    config = tiny_config(*NO_DROPOUT, "model.skip_air=true")
    volume, mask = scans()
    model, inputs = tiny_model(config), random_pairs(config, 1).model_input
    inputs.ct_volume, inputs.segmentation_mask = volume, mask
    _, loss = model(inputs)
    seen = model.vision_encoder(volume, mask)
    stay = [16 * z + i for z in range(2) for i in range(16) if i not in AIR]
    target = encoder()(volume, mask).mask_occupancy
    assert target is not None
    expected = -(seen.occupancy_logits.log_softmax(-1) * target)[:, stay].sum(-1).mean()
    torch.testing.assert_close(loss, expected)


def test_gradients_reach_every_weight():
    config = tiny_config(*NO_DROPOUT, "model.patch_dropout=0.5", "model.skip_air=true")
    model = tiny_model(config).train()
    embedded, occupancy = model(random_pairs(config, 3).model_input)
    (sum(part.sum() for part in embedded.tensors()) + occupancy).backward()
    assert all(weight.grad is not None for weight in model.vision_encoder.parameters())
