"""A configuration, a model and made-up pairs, all small enough for a test."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlm3d_ct.checkpoint import save_checkpoint
from vlm3d_ct.config import Config, config_from_mapping, config_to_mapping
from vlm3d_ct.models import ModelInput, VisionLanguageModel, build
from vlm3d_ct.models.dual import tokens_of
from vlm3d_ct.objectives import Targets
from vlm3d_ct.objectives.reasoning import NO_STEP
from vlm3d_ct.text.tokenize import train_small_tokenizer
from vlm3d_ct.training.step import MicroBatch
from vlm3d_ct.volumes.preprocess import Preprocess

OVERRIDES = (
    "preprocess.size=[8, 32, 32]",
    "preprocess.slice_size=[4, 32, 32]",
    "model.embed_dim=32",
    "model.depth=4",
    "model.num_heads=4",
    "model.patch_size=[4, 8, 8]",
    "text.source=small",
    "text.small_width=32",
    "text.small_depth=1",
    "text.small_heads=2",
    "text.small_vocabulary=600",
    "text.max_len=96",
    "data.num_workers=0",
)
"""Settings that shrink the model, as a command line takes them after ``--set``."""
NO_DROPOUT = ("model.dropout=0", "model.attn_dropout=0", "model.mask_dropout=0")

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "lung", "heart", "normal", "no", "##s", "the", "is", ".", "left")
"""The vocabulary of the BERT that `bert_folder` holds."""


def tiny_config(*overrides: str, **settings: Any) -> Config:
    """The small configuration with changes, in fp32 and without accumulation unless they say otherwise."""
    plain = ("training.precision=fp32", "training.accumulation_steps=1", "training.batch_size=4")
    return config_from_mapping(settings, source="tests", overrides=(*OVERRIDES, *plain, *overrides))


@cache
def tiny_tokenizer() -> str:
    return train_small_tokenizer(["The right lung is clear.", "A nodule in the left lower lobe.", "No effusion."], 200)


def tiny_model(config: Config, seed: int = 0) -> VisionLanguageModel:
    """The dual encoder with random weights; its biases, too, are random, so that no gradient hides behind a zero."""
    torch.manual_seed(seed)
    model = build(config, tiny_tokenizer()).model
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1 or not parameter.any():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def random_pairs(config: Config, count: int, seed: int = 0, *, slices: bool = False, tokens: int = 12) -> MicroBatch:
    """Pairs of noise, blocks of labels and random tokens; every case has a mask unless they are slices."""
    random = torch.Generator().manual_seed(seed)
    size = config.preprocess.slice_size if slices else config.preprocess.size
    num_regions = config.model.num_regions
    coarse = torch.randint(0, num_regions + 1, (count, 1, 2, 4, 4), generator=random, dtype=torch.uint8)
    labels = torch.nn.functional.interpolate(coarse.float(), size=size, mode="nearest").to(torch.uint8)
    region_tokens = torch.rand((count, num_regions, tokens), generator=random) < 0.2
    region_tokens[:, ::4] = False
    lengths = torch.randint(tokens // 2, tokens + 1, (count, 1), generator=random)
    attention_mask = (torch.arange(tokens) < lengths).long()
    region_tokens &= attention_mask[:, None].bool()
    num_steps = 3 if config.objective.reasoning_weight > 0 else 0
    token_steps = torch.arange(tokens) // 4 + 1  # the last place stays empty for the short texts
    num_opposite = 8 if config.objective.opposites else 0
    opposite_steps = torch.randint(0, 4, (count, num_opposite), generator=random)  # some sentences have no opposite
    inputs = ModelInput(
        tissue=None,
        ct_volume=torch.rand((count, len(config.model.windows), *size), generator=random),
        segmentation_mask=None if slices else labels,
        mask_given=torch.full((count,), not slices),
        input_ids=torch.randint(5, 60, (count, tokens), generator=random),
        attention_mask=attention_mask,
        token_type_ids=torch.zeros((count, tokens), dtype=torch.long),
        region_tokens=region_tokens,
        token_steps=token_steps * attention_mask,
        step_regions=torch.rand((count, num_steps, num_regions), generator=random) < 0.2,
        opposite_ids=torch.randint(5, 60, (count, num_opposite), generator=random),
        opposite_mask=torch.ones((count, num_opposite), dtype=torch.long),
        opposite_steps=opposite_steps.sort(1).values,
    )
    num_sentences = inputs.num_sentences
    read = tokens_of(inputs.token_steps, num_sentences).any(-1)
    step_groups = torch.randint(-3, 8, (count, num_steps), generator=random)
    there = (inputs.token_steps[:, None] == torch.arange(1, num_steps + 1)[:, None]).any(-1)
    targets = Targets(
        mentions=region_tokens.any(-1),
        groups=torch.randint(-3, 8, (count, num_regions), generator=random),
        step_groups=torch.where(there, step_groups, NO_STEP),
        step_places=torch.randint(1, 4, (count, num_steps), generator=random),
        sentence_groups=torch.where(read, torch.randint(1, 20, (count, num_sentences), generator=random), NO_STEP),
        turned=read & tokens_of(inputs.opposite_steps, num_sentences).any(-1),
        sentence_regions=torch.rand((count, num_sentences, num_regions), generator=random) < 0.1,
    )
    return MicroBatch(model_input=inputs, targets=targets, seed=seed)


def write_checkpoint(path: Path, config: Config, /, **changes: Any) -> VisionLanguageModel:
    """A checkpoint of a model with random weights, as training leaves it but without an optimiser."""
    torch.manual_seed(0)
    built = build(config, tiny_tokenizer())
    content = {
        "stage": config.stage,
        "step": 5,
        "step_batch": 4,
        "config": config_to_mapping(config),
        "model": built.model.state_dict(),
        "tokenizer_json": built.tokenizer_json,
        "bert_json": built.bert_json,
        "fingerprint": Preprocess.from_config(config.preprocess).fingerprint,
        "cohort_identity": "made up",
        "training_patients": [],
        "validation_patients": [],
        "kept": [{"step": 5, "score": 0.5}],
    }
    save_checkpoint(path, content | changes)
    return built.model


def rows_of(pairs: MicroBatch, start: int, end: int, seed: int) -> MicroBatch:
    """The pairs ``start``..``end - 1`` as a micro-batch of their own."""
    return chosen_of(pairs, list(range(start, end)), seed)


def chosen_of(pairs: MicroBatch, rows: list[int], seed: int) -> MicroBatch:
    """These pairs as a micro-batch of their own."""
    inputs = pairs.model_input
    values = {field.name: getattr(inputs, field.name) for field in fields(inputs)}
    cut = {name: value[rows] for name, value in values.items() if isinstance(value, Tensor)}
    return MicroBatch(
        model_input=replace(inputs, **cut),
        targets=Targets(*(tensor[rows] for tensor in pairs.targets.tensors())),
        seed=seed,
    )
