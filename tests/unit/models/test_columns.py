"""Columns of patches that are left out: which, and what becomes of the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tiny import NO_DROPOUT, random_pairs, tiny_config, tiny_model, tiny_tokenizer
from vlm3d_ct.data.batch import Change, Sample, collate
from vlm3d_ct.inference import model_input
from vlm3d_ct.models import VisionEncoder, build_vision_encoder
from vlm3d_ct.models.columns import Columns, choose_columns, tissue_columns
from vlm3d_ct.models.patches import Grid
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.text.tokenize import ReportTokenizer
from vlm3d_ct.training.step import embed
from vlm3d_ct.volumes.preprocess import Prepared

GRID = Grid(2, 4, 4)
AIR = [0, 1, 2, 3, 4, 7, 8, 12]
"""Columns of the first case that are air all along z."""


def encoder(*overrides: str) -> VisionEncoder:
    torch.manual_seed(0)
    return build_vision_encoder(tiny_config("training.gradient_checkpointing=false", *overrides)).eval()


def scans(count: int = 1, air: list[int] = AIR) -> tuple[Tensor, Tensor, Tensor]:
    """Volumes, masks and where tissue is: noise, air in some columns of the first case, one fewer in each other."""
    inputs = random_pairs(tiny_config(), count).model_input
    assert inputs.segmentation_mask is not None
    tissue = torch.ones(count, GRID.in_slab, dtype=torch.bool)
    for case in range(count):
        tissue[case, air[case:]] = False
    return inputs.ct_volume, inputs.segmentation_mask, tissue


def test_a_column_with_a_voxel_of_tissue_holds_tissue():
    scan = -1000 + 60 * torch.randn(2, 8, 32, 32)  # noisy air
    scan[0, 5, 9, 3] = -390
    scan[0, :, 16:, 16:] = 40
    scan[1, :, :, :8] = -850  # lung, and nothing else: all of the case counts
    tissue = tissue_columns(scan, (4, 8, 8))
    assert tissue[0].nonzero().flatten().tolist() == [4, 10, 11, 14, 15]
    assert tissue[1].all()


def test_columns_of_air_are_left_out_and_as_many_stay_as_the_fullest_case_needs():
    chosen = choose_columns(scans(2)[2], GRID, 0.0)
    assert chosen is not None
    body = [i for i in range(16) if i not in AIR]
    assert chosen.chosen[1].tolist() == sorted([*body, AIR[0]])
    assert set(body) < set(chosen.chosen[0].tolist())
    assert chosen.grid == (2, 1, 9)


@pytest.mark.parametrize("changes", [{}, {"shift": 0.1, "noise_sigma": 0.04}, {"shift": -0.1}])
def test_augmentation_of_the_intensities_moves_no_border(changes: dict[str, float]):
    config = tiny_config("model.skip_air=true", "model.windows=[plan, lung]")
    voxels = np.full(config.preprocess.size, -1000, np.int16)
    voxels[:, 8:24, 8:24] = -150  # fat
    prepared = Prepared(voxels_hu=voxels, labels=None, spacing_mm=(5.0, 1.0, 1.0), kind="volume")
    table = load_region_table()
    report = ReportTokenizer(tiny_tokenizer(), 32).encode_text("", table)
    batch = collate([Sample("case", prepared, report, Change(**changes))], 0)
    tissue = model_input(batch, config, table).tissue
    assert tissue is not None
    assert tissue[0].nonzero().flatten().tolist() == [5, 6, 9, 10]


def test_what_is_taken_comes_back_to_its_place():
    chosen = Columns(torch.tensor([[1, 6], [0, 15]]), GRID)
    numbers = torch.arange(64.0).view(2, 32, 1) + 1
    taken = chosen.take(numbers)
    assert taken[:, :, 0].tolist() == [[2, 7, 18, 23], [33, 48, 49, 64]]
    spread = chosen.spread(taken)
    assert torch.equal(spread, numbers * chosen.read()[..., None])


def test_without_air_nothing_changes():
    volume, mask, tissue = scans(air=[])
    with torch.no_grad():
        skipped, whole = encoder()(volume, mask, tissue=tissue), encoder()(volume, mask)
    for name in ("global_features", "local_features", "region_features", "occupancy", "read"):
        assert torch.equal(skipped[name], whole[name]), name


@torch.no_grad()
def test_what_stays_is_encoded_as_if_there_were_nothing_else():
    model, (volume, mask, tissue) = encoder(), scans()
    seen = model(volume, mask, tissue=tissue)
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
    model, (volume, mask, tissue) = encoder(), scans()
    changed = volume.clone()
    changed[..., :8, :] = torch.rand(8, 32)  # the first row of columns
    one, other = (model(v, mask, tissue=tissue).global_features for v in (volume, changed))
    assert torch.equal(one, other)
    assert not torch.equal(model(volume, mask).global_features, model(changed, mask).global_features)


@torch.no_grad()
def test_a_scan_is_embedded_alike_in_any_company():
    model, (volume, mask, tissue) = encoder(), scans(3)
    together = model(volume, mask, tissue=tissue)
    for case in range(3):
        alone = model(volume[case : case + 1], mask[case : case + 1], tissue=tissue[case : case + 1])
        for name in ("global_features", "local_features", "region_features", "read"):
            assert torch.equal(together[name][case : case + 1], alone[name]), name


@pytest.mark.parametrize(("skips", "count"), [(False, 12), (True, 6)])
def test_a_share_of_the_columns_is_dropped_in_training_only(skips: bool, count: int):
    model, (volume, mask, wanted) = encoder("model.patch_dropout=0.25"), scans()
    tissue = wanted if skips else None
    torch.manual_seed(1)
    read = [model.train()(volume, mask, tissue=tissue).read.view(2, 16) for _ in range(20)]
    assert {int(slab.sum()) for case in read for slab in case} == {count}
    assert all(torch.equal(case[0], case[1]) for case in read)  # whole columns
    ever = torch.stack(read).any(0)[0]
    assert ever.nonzero().flatten().tolist() == [i for i in range(16) if not skips or i not in AIR]
    assert int(model.eval()(volume, mask, tissue=tissue).read.sum()) == 2 * (8 if skips else 16)


def test_both_passes_of_a_step_drop_the_same_columns():
    config = tiny_config(*NO_DROPOUT, "model.patch_dropout=0.5")
    model, micro = tiny_model(config).train(), random_pairs(config, 3)
    micro.model_input.tissue = scans(3)[2]
    (one, one_loss), (other, other_loss) = (embed(model, micro, "fp32") for _ in range(2))
    assert torch.equal(one.volume, other.volume)
    assert torch.equal(one_loss, other_loss)


def test_the_occupancy_loss_is_the_mean_over_what_was_read():
    config = tiny_config(*NO_DROPOUT)
    volume, mask, tissue = scans()
    model, inputs = tiny_model(config), random_pairs(config, 1).model_input
    inputs.tissue = tissue
    _, loss = model(inputs)
    seen = model.see(inputs)
    stay = [16 * z + i for z in range(2) for i in range(16) if i not in AIR]
    target = encoder()(volume, mask).mask_occupancy
    assert target is not None
    expected = -(seen.occupancy_logits.log_softmax(-1) * target)[:, stay].sum(-1).mean()
    torch.testing.assert_close(loss, expected)


def test_gradients_reach_every_weight():
    config = tiny_config(*NO_DROPOUT, "model.patch_dropout=0.5")
    model, inputs = tiny_model(config).train(), random_pairs(config, 3).model_input
    inputs.tissue = scans(3)[2]
    embedded, occupancy = model(inputs)
    (sum(part.sum() for part in embedded.tensors()) + occupancy).backward()
    assert all(weight.grad is not None for weight in model.vision_encoder.parameters())
