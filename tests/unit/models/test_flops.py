"""The formulas count what torch's own counter counts."""

from __future__ import annotations

import json

import pytest
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tiny import NO_DROPOUT, random_pairs, tiny_config, tiny_tokenizer
from vlm3d_ct.config import Config
from vlm3d_ct.models import build
from vlm3d_ct.models.flops import step_flops, text_flops, vision_flops


def counted(model: nn.Module, *inputs: object) -> int:
    """Products of matrices of a forward pass; attention without a fused kernel, which the counter does not know."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.requires_grad_(False)(*inputs)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("slices", [False, True])
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("model.depth=6", "model.mlp_ratio=3"),
        ("model.attention=dense", "model.pooling=mean"),
        ("model.attention=dense_z_bias",),
        ("model.sub_patch_size=[2, 4, 8]", "model.sub_patch_channels=5"),
        ("model.windows=[plan, lung]", "text.pooling=mean", "text.small_depth=2"),
    ],
)
def test_a_forward_pass_takes_the_flops_of_the_formulas(overrides: tuple[str, ...], slices: bool):
    config = tiny_config(*overrides)
    built = build(config, tiny_tokenizer())
    pairs = random_pairs(config, 3, slices=slices, tokens=12).model_input
    size = config.preprocess.slice_size if slices else config.preprocess.size
    expected = vision_flops(config.model, size) + text_flops(config, json.loads(built.bert_json), 12)
    assert counted(built.model.eval(), pairs) == 3 * expected


def test_the_plans_encoder_takes_what_its_design_says():
    config = Config()
    assert vision_flops(config.model, config.preprocess.size) == pytest.approx(3.4e12, rel=0.05)


def test_recomputing_and_accumulating_cost_a_forward_pass_each():
    bert = build(tiny_config(), tiny_tokenizer()).bert_json

    def passes(*overrides: str) -> float:
        config = tiny_config("text.small_depth=1", *overrides)
        forward = vision_flops(config.model, config.preprocess.size) + text_flops(config, json.loads(bert), 12)
        return step_flops(config, bert, 4, config.preprocess.size, 12) / (4 * forward)

    plain = "training.gradient_checkpointing=false"
    both = ("training.gradient_checkpointing=true", "text.gradient_checkpointing=true")
    assert passes(plain) == 3.0
    assert passes(plain, "training.accumulation_steps=2") == 4.0
    assert passes(plain, "training.accumulation_steps=2", "training.accumulation=naive") == 3.0
    assert passes(*both) == 4.0
    assert 3.4 < passes("training.checkpointed_blocks=2") < 3.5  # of the vision encoder's four
    assert passes(*both, "training.accumulation_steps=4") == 5.0


def test_the_opposites_of_a_texts_sentences_cost_another_text():
    bert = build(tiny_config(), tiny_tokenizer()).bert_json
    sentences = ("objective.sentence_region_weight=1", "text.attention=sentence", "text.pooling=mean")
    plain, both = tiny_config(*sentences[1:]), tiny_config(*sentences)
    steps = [step_flops(config, bert, 4, config.preprocess.size, 12) for config in (plain, both)]
    assert steps[1] - steps[0] == 4 * 3 * text_flops(plain, json.loads(bert), 12)


def test_dropped_columns_cost_no_more_than_their_embedding():
    config = tiny_config("model.patch_dropout=0.5", *NO_DROPOUT)
    model, pairs = build(config, tiny_tokenizer()).model.vision_encoder.train(), random_pairs(config, 3).model_input
    assert pairs.segmentation_mask is not None
    expected = vision_flops(config.model, config.preprocess.size, read=0.5) - 2 * 32 * 32 * 21  # no projections
    assert counted(model, pairs.ct_volume, pairs.segmentation_mask) == 3 * expected
