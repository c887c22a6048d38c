"""The dual encoder: representations, the occupancy loss, and a gradient for everything in every kind of step."""

from __future__ import annotations

import math

import pytest
import torch

from tiny import NO_DROPOUT, random_pairs, tiny_config, tiny_model
from vlm3d_ct.config import Config
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.models import build_model
from vlm3d_ct.models.dual import select_patches
from vlm3d_ct.models.patches import pool_occupancy
from vlm3d_ct.objectives import ContrastiveObjective
from vlm3d_ct.text.steps import MOST_STEPS
from vlm3d_ct.training.step import backward

CONFIG = tiny_config(*NO_DROPOUT)
REASONING = tiny_config(*NO_DROPOUT, "objective.reasoning_weight=0.5")
SENTENCE = ("objective.sentence_region_weight=1", "text.attention=sentence", "text.pooling=mean")


@pytest.mark.parametrize("slices", [False, True])
def test_every_representation_has_unit_length(slices: bool):
    pairs = random_pairs(REASONING, 3, slices=slices)
    embedded, _ = tiny_model(REASONING)(pairs.model_input)
    shapes = [(3, 32), (3, 32), (3, 20, 32), (3, 20, 32), (3, 3, 32), (3, 3, 32), *[(3, 0, 32)] * 4]
    assert [tuple(part.shape) for part in embedded.tensors()] == shapes
    for part in embedded.tensors():
        torch.testing.assert_close(part.norm(dim=-1), torch.ones(part.shape[:-1]))


def test_sentences_and_their_opposites_are_read_as_whole_texts_are():
    config = tiny_config(*NO_DROPOUT, *SENTENCE)
    pairs, model = random_pairs(config, 3), tiny_model(config)
    given, text_encoder = pairs.model_input, model.text_encoder
    embedded, _ = model(given)
    assert embedded.sentence_text.shape == embedded.opposite_text.shape == (3, MOST_STEPS, 32)
    whole, at_regions = text_encoder.projection, text_encoder.region_projection
    for found, ids, steps, projection in (
        (embedded.sentence_text, given.input_ids, given.token_steps, whole),
        (embedded.opposite_text, given.opposite_ids, given.opposite_steps, whole),
        (embedded.sentence_region_text, given.input_ids, given.token_steps, at_regions),
        (embedded.opposite_region_text, given.opposite_ids, given.opposite_steps, at_regions),
    ):
        for row in range(3):
            for number in range(1, 4):
                alone = ids[row, steps[row] == number][None]
                if alone.shape[1]:
                    one = torch.ones_like(alone)
                    read = projection(text_encoder(alone, one, None, one).pooler_output)
                    torch.testing.assert_close(found[row, number - 1], read[0])


def test_a_step_selects_the_patches_of_its_regions_by_their_share():
    pairs = random_pairs(CONFIG, 2)
    seen = tiny_model(CONFIG).vision_encoder(pairs.model_input.ct_volume, pairs.model_input.segmentation_mask)
    absent = int((~seen.region_present[0]).nonzero()[0]) if not seen.region_present[0].all() else None
    chosen = torch.zeros(2, 4, 20, dtype=torch.bool)
    here = seen.region_present.nonzero()[seen.region_present.nonzero()[:, 0] == 0][:2, 1].tolist()
    chosen[0, 0, here[0]] = True
    chosen[0, 1, here] = True
    if absent is not None:
        chosen[0, 2, absent] = True  # and step 3 names nothing
    found = select_patches(seen, chosen)[0]
    for step, regions in enumerate((here[:1], here)):
        total, weight = torch.zeros(32), 0.0
        for patch, features in enumerate(seen.local_features[0]):
            share = sum(float(seen.occupancy[0, patch, 1 + region]) for region in regions)
            total, weight = total + share * features, weight + share
        torch.testing.assert_close(found[step], total / weight)
    for step in (2, 3):
        torch.testing.assert_close(found[step], seen.local_features[0].mean(0))


def test_the_occupancy_loss_is_the_cross_entropy_of_the_cases_with_a_mask():
    pairs = random_pairs(CONFIG, 3)
    inputs, model = pairs.model_input, tiny_model(CONFIG)
    inputs.mask_given = torch.tensor([True, False, True])
    assert inputs.segmentation_mask is not None
    _, loss = model(inputs)
    logits = model.vision_encoder(inputs.ct_volume).occupancy_logits.detach()
    target = pool_occupancy(inputs.segmentation_mask, (4, 8, 8), 21)
    expected = 0.0
    for case in (0, 2):
        for patch in range(32):
            norm = math.log(sum(math.exp(float(x)) for x in logits[case, patch]))
            expected -= sum(
                float(share) * (float(logit) - norm)
                for share, logit in zip(target[case, patch], logits[case, patch], strict=True)
            )
    assert float(loss.detach()) == pytest.approx(expected / 32, rel=1e-5)


def test_slices_have_no_occupancy_loss():
    _, loss = tiny_model(CONFIG)(random_pairs(CONFIG, 3, slices=True).model_input)
    assert float(loss.detach()) == 0.0


@pytest.mark.parametrize("slices", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        *(("model.depth=4",), ("model.depth=5",), ("model.depth=6",)),  # the last block is in-slab, in-slab, or along z
        ("model.attention=dense", "model.pooling=mean"),
        ("model.attention=dense_z_bias",),
        ("model.patch_dropout=0.5", "model.skip_air=true"),
        ("model.pooling=mean", "model.depth=6", "objective.reasoning_weight=1"),
        SENTENCE,
    ],
)
def test_every_parameter_takes_part_in_every_kind_of_step(slices: bool, changes: tuple[str, ...]):
    # a parameter without a gradient stops distributed training
    config = tiny_config(*NO_DROPOUT, *changes)
    model, objective = tiny_model(config), ContrastiveObjective(config.objective)
    backward(model, objective, [random_pairs(config, 4, slices=slices)])
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert objective.logit_scale.grad is not None
    idle = {name for name, gradient in gradients.items() if gradient is not None and not gradient.any()}
    expected = set()
    if changes == ("model.depth=6",):  # local features only
        expected = {"vision_encoder.blocks.5.distance_bias"}
    if "model.attention=dense" in changes:  # kept so that one kind's weights fit another
        expected = {"vision_encoder.blocks.2.distance_bias"}
    if slices:  # no mask teaches the occupancy
        head = ("occupancy_norm.weight", "occupancy_norm.bias", "occupancy_head.weight", "occupancy_head.bias")
        expected |= {f"vision_encoder.{name}" for name in head}
    assert idle == expected


def test_parameters_are_counted_by_encoder():
    counts = tiny_model(CONFIG).num_parameters()
    assert set(counts) == {"vision_encoder", "text_encoder"}
    assert sum(counts.values()) == sum(p.numel() for p in tiny_model(CONFIG).parameters())


def test_a_small_text_encoder_without_a_cohort_is_refused():
    with pytest.raises(ConfigError, match=r"text\.source = 'small'.*load_encoder"):
        build_model(tiny_config())
    assert Config().text.source == "pretrained"
