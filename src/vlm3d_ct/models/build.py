"""Encoders from a configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlm3d_ct.config import Config
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.models.dual import VisionLanguageModel
from vlm3d_ct.models.encoder import VisionEncoder
from vlm3d_ct.models.text_encoder import TextEncoder, bert_from_json, pretrained_bert, small_bert
from vlm3d_ct.text.tokenize import ReportTokenizer

if TYPE_CHECKING:
    from transformers import BertModel


@dataclass(frozen=True)
class Built:
    """A model with what is needed to rebuild it without any download.

    Attributes:
        model: the dual encoder.
        tokenizer_json: the tokenizer of its text encoder.
        bert_json: the configuration of its BERT.
    """

    model: VisionLanguageModel
    tokenizer_json: str
    bert_json: str


def build_vision_encoder(config: Config) -> VisionEncoder:
    """The vision encoder of a configuration with random weights; needs no text weights."""
    return VisionEncoder(
        config.model,
        config.preprocess.size,
        recomputed_blocks(config),
        keep_products=config.training.gradient_checkpointing == "cheap",
        compiled=config.training.compile,
    )


def recomputed_blocks(config: Config) -> list[int]:
    """The blocks of the vision encoder whose activations are not (all) kept, spread evenly over its depth."""
    depth, training = config.model.depth, config.training
    if not training.gradient_checkpointing:
        return []
    count = depth if training.checkpointed_blocks is None else training.checkpointed_blocks
    return [i for i in range(depth) if (i + 1) * count // depth > i * count // depth]


def build_model(config: Config) -> VisionLanguageModel:
    """The dual encoder with its pre-trained text encoder (BioBERT).

    Raises:
        ConfigError: the text encoder's weights are not there, or `text.source` is ``small``, which needs a vocabulary
            from a cohort (training makes it).
    """
    return build(config, small_tokenizer_json=None).model


def build(config: Config, small_tokenizer_json: str | None) -> Built:
    """The dual encoder for training.

    Args:
        config: `text.source` decides between pre-trained and small text encoder.
        small_tokenizer_json: the tokenizer for the small one; ignored by the pre-trained one, which brings its own.

    Raises:
        ConfigError: see `build_model`.
    """
    if config.text.source == "pretrained":
        bert, tokenizer_json = pretrained_bert(config.text)
    elif small_tokenizer_json is None:
        raise ConfigError(
            "text.source = 'small': this text encoder takes its vocabulary from a cohort; train with it, or load a "
            "checkpoint with load_encoder. With the pre-trained one use --set text.source=pretrained."
        )
    else:
        tokenizer = ReportTokenizer(small_tokenizer_json, config.text.max_len)
        bert = small_bert(config.text, tokenizer.vocabulary_size, tokenizer.pad_id)
        tokenizer_json = small_tokenizer_json
    bert_json = json.dumps(bert.config.to_dict())
    return Built(_dual(config, bert), tokenizer_json, bert_json)


def rebuild(config: Config, bert_json: str) -> VisionLanguageModel:
    """The dual encoder of a checkpoint, weights still random."""
    return _dual(config, bert_from_json(bert_json))


def _dual(config: Config, bert: BertModel) -> VisionLanguageModel:
    text, width = config.text, config.model.embed_dim
    text_encoder = TextEncoder(bert, width, text.pooling, text.attention, text.gradient_checkpointing, text.frozen)
    return VisionLanguageModel(build_vision_encoder(config), text_encoder)
