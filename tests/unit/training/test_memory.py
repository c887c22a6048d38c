"""The estimate of a step's memory, and what is said where a GPU has too little."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tiny import random_pairs, tiny_config, tiny_tokenizer
from vlm3d_ct.config import Config, config_from_mapping
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.models import build
from vlm3d_ct.training.memory import activation_bytes, explain_out_of_memory, out_of_memory, static_bytes, what_fits
from vlm3d_ct.training.step import embed

BIOBERT = json.dumps({"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072})
GIGABYTE = 10**9
HELD = 18 * 200_000_000
"""Of as many parameters that learn."""


def kept_bytes(config: Config, pairs: int) -> int:
    """What a forward pass leaves in memory for the backward pass, of everything that torch allocated."""
    model = build(config, tiny_tokenizer()).model.train()
    micro = random_pairs(config, pairs, tokens=config.text.max_len)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        kept = embed(model, micro, config.training.precision)
    del kept
    return sum(event.self_cpu_memory_usage for event in found.key_averages())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["false", "cheap"])
def test_the_estimate_is_about_what_a_pair_keeps(kind: str, precision: str):
    # attention dropout on a CPU keeps what no GPU keeps, and what is recomputed is not there yet
    large = ("preprocess.size=[16,128,128]", "model.embed_dim=192", "model.num_heads=3", "model.depth=6")
    rest = ("model.dropout=0", "model.attn_dropout=0", "training.checkpointed_blocks=null")
    config = tiny_config(*large, *rest, f"training.gradient_checkpointing={kind}", f"training.precision={precision}")
    bert = json.loads(build(config, tiny_tokenizer()).bert_json)
    measured = kept_bytes(config, 3) - kept_bytes(config, 2)
    at_work = 0 if kind == "false" else 1024 * 192 * (8 + (2 if precision == "fp32" else 1) * 44)
    assert activation_bytes(config, bert) - at_work == pytest.approx(measured, rel=0.2)


def test_recomputing_takes_less_and_some_lies_between():
    def taken(*overrides: str) -> int:
        return activation_bytes(tiny_config("model.depth=12", *overrides), json.loads(BIOBERT))

    steps = [
        taken("training.gradient_checkpointing=false"),
        taken("training.gradient_checkpointing=cheap", "training.checkpointed_blocks=6"),
        taken("training.gradient_checkpointing=cheap"),
        taken("training.gradient_checkpointing=true"),
    ]
    assert steps == sorted(steps, reverse=True)
    assert len(set(steps)) == 4


def test_what_fits_keeps_the_pairs_of_a_step_and_takes_what_there_is():
    config = Config()  # 8 pairs twice, everything recomputed
    one = activation_bytes(config, json.loads(BIOBERT))
    (settings, taken), *more = what_fits(config, BIOBERT, HELD, 16 * GIGABYTE)
    assert not more
    assert settings == "training.batch_size=4 training.accumulation_steps=4"
    inputs = 16 * 5 * 64 * 512 * 512  # of all micro-batches: fp32 intensities and labels
    assert taken == HELD + inputs + 4 * one < 16 * GIGABYTE


def test_the_message_names_the_batch_the_memory_and_what_would_fit():
    said = out_of_memory(Config(), BIOBERT, HELD, 16 * GIGABYTE)
    assert said.startswith("training.batch_size = 8: a step found no more memory on a GPU of 16 GB")
    assert "--set training.batch_size=4 --set training.accumulation_steps=4" in said
    small = out_of_memory(Config(), BIOBERT, HELD, 2 * GIGABYTE)
    assert "By estimate nothing fits" in small


def offered(capacity: int, **training: Any) -> list[str]:
    config = config_from_mapping({"training": training}, source="test")
    return [said for said, _ in what_fits(config, BIOBERT, HELD, capacity)]


def test_recomputing_and_splitting_are_offered_side_by_side():
    assert offered(52 * GIGABYTE, gradient_checkpointing=False) == [
        "training.batch_size=4 training.accumulation_steps=4",
        "training.gradient_checkpointing=cheap",
        "training.gradient_checkpointing=true",
    ]


def test_compiled_blocks_are_offered_no_cheap_recomputation():
    assert offered(52 * GIGABYTE, gradient_checkpointing=False, compile=True) == [
        "training.batch_size=4 training.accumulation_steps=4",
        "training.gradient_checkpointing=true",
    ]


def test_what_has_just_failed_is_not_offered_again():
    assert offered(1000 * GIGABYTE, gradient_checkpointing=False, checkpointed_blocks=6)[:1] == [
        "training.batch_size=4 training.accumulation_steps=4"
    ]
    assert offered(1000 * GIGABYTE, checkpointed_blocks=6)[0] == (
        "training.gradient_checkpointing=true training.checkpointed_blocks=null"
    )


def test_naive_accumulation_is_not_split_for_its_negatives_would_change():
    assert offered(16 * GIGABYTE, accumulation="naive") == []


def test_dropped_patches_need_no_memory():
    whole, half = (
        activation_bytes(config_from_mapping({"model": {"patch_dropout": share}}, source="test"), json.loads(BIOBERT))
        for share in (0, 0.5)
    )
    assert half < 0.7 * whole


def test_a_frozen_bert_takes_its_weights_and_little_more():
    learning, frozen = (build(tiny_config(f"text.frozen={on}"), tiny_tokenizer()).model for on in (False, True))
    of_bert = sum(p.numel() for p in learning.text_encoder.bert.parameters())
    assert static_bytes(learning.parameters()) - static_bytes(frozen.parameters()) == (18 - 4) * of_bert
    whole, less = (
        activation_bytes(config_from_mapping({"text": {"frozen": on}}, source="test"), json.loads(BIOBERT))
        for on in (False, True)
    )
    assert whole - less > 12 * 512 * 768 * 50  # some dozens of bytes a token, a feature and a layer


def test_an_error_of_the_device_becomes_one_of_the_configuration():
    with (
        pytest.raises(ConfigError, match=r"training\.batch_size = 8: a step found no more memory"),
        explain_out_of_memory(Config(), BIOBERT, HELD, torch.device("cpu")),
    ):
        raise torch.OutOfMemoryError


def test_what_other_processes_hold_is_said_and_left_to_them():
    said = out_of_memory(Config(), BIOBERT, HELD, 80 * GIGABYTE, 70 * GIGABYTE)
    assert "of which other processes hold 70 GB" in said
    assert "--set training.batch_size=2 --set training.accumulation_steps=8" in said
