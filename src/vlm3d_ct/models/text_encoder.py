"""BERT with the two projections of the text side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from vlm3d_ct.config import TextConfig
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.log import warn
from vlm3d_ct.models.projection import NormalizedLinear
from vlm3d_ct.models.readings import Readings
from vlm3d_ct.models.sentence_rows import sentence_rows

if TYPE_CHECKING:
    from transformers import BertModel


class TextEncoder(nn.Module):
    """A BERT; its pooled output is projected for the volume level, its tokens by region for the region level.

    Args:
        bert: the text model.
        embed_dim: width of the shared space.
        pooling: ``cls`` takes BERT's own pooled output; ``mean`` the mean of the tokens, with ``sentence`` attention of
            those within sentences (of all, where a text has none), and BERT's pooler is left out.
        attention: ``text``, a token sees the whole text; ``sentence``, it sees its sentence only and counts its place
            from the sentence's start, all of one token type, so that a sentence is read alike wherever it stands.
        gradient_checkpointing: recompute the BERT's layers in the backward pass.
        frozen: the BERT keeps its weights and stays in evaluation mode; the projections learn.

    Attributes:
        readings: where a frozen BERT's readings of training texts are kept; None: nowhere.
    """

    def __init__(
        self,
        bert: BertModel,
        embed_dim: int,
        pooling: Literal["cls", "mean"] = "cls",
        attention: Literal["text", "sentence"] = "text",
        gradient_checkpointing: bool = False,
        frozen: bool = False,
    ):
        super().__init__()
        self.bert, self.pooling, self.attention, self.frozen = bert, pooling, attention, frozen
        self.readings: Readings | None = None
        if pooling == "mean":
            bert.pooler = None  # a parameter that takes no part would stop distributed training
        if gradient_checkpointing:
            bert.activation_checkpointing_enable({"use_reentrant": False})
        bert.requires_grad_(not frozen)
        width = int(bert.config.hidden_size)
        self.projection = NormalizedLinear(width, embed_dim)
        self.region_projection = NormalizedLinear(width, embed_dim)
        for projection in (self.projection, self.region_projection):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def train(self, mode: bool = True) -> TextEncoder:
        """A frozen BERT stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.bert.eval()
        return self

    def forward(
        self,
        input_ids: Integer[Tensor, "b t"],
        attention_mask: Integer[Tensor, "b t"],
        token_type_ids: Integer[Tensor, "b t"] | None = None,
        token_steps: Integer[Tensor, "b t"] | None = None,
    ) -> Any:
        """transformers' output: ``pooler_output`` (b, width; see `pooling`), ``last_hidden_state`` (b, t, width).

        Args:
            input_ids: the tokens.
            attention_mask: 1 for tokens, 0 for what fills up after them.
            token_type_ids: 0 and 1 for the two parts of a pair.
            token_steps: the sentence of each token, from 1; 0 for what belongs to none (special tokens, a question),
                which is not read unless a text has nothing else. Only ``sentence`` attention needs it.

        Raises:
            ValueError: ``sentence`` attention without ``token_steps``.
        """
        if self.attention == "sentence" and token_steps is None:
            raise ValueError("text.attention = sentence: token_steps must say which sentence each token is of.")
        texts = (input_ids, attention_mask, token_type_ids, token_steps)
        if not self.frozen:
            return self._read(*texts)
        with torch.no_grad():
            if self.readings is not None and self.training:
                return self.readings.read(self._read, *texts)
            return self._read(*texts)

    def _read(
        self,
        input_ids: Integer[Tensor, "b t"],
        attention_mask: Integer[Tensor, "b t"],
        token_type_ids: Integer[Tensor, "b t"] | None,
        token_steps: Integer[Tensor, "b t"] | None,
    ) -> Any:
        if self.attention == "sentence":
            assert token_steps is not None
            return self._read_sentences(input_ids, attention_mask, token_steps)
        read = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        if self.pooling == "mean":
            read.pooler_output = _mean_of_text(read.last_hidden_state, attention_mask > 0)
        return read

    def _read_sentences(
        self,
        input_ids: Integer[Tensor, "b t"],
        attention_mask: Integer[Tensor, "b t"],
        token_steps: Integer[Tensor, "b t"],
    ) -> Any:
        """Read what plays a part, the sentences, or all tokens of a text that has none; others have features of 0."""
        numbers = token_steps * attention_mask
        numbers = torch.where(numbers.any(1, keepdim=True), numbers, attention_mask)
        rows = sentence_rows(numbers)
        # in short rows a CPU's fused kernel is slower (docs/log.md)
        self.bert.set_attn_implementation("eager" if input_ids.device.type == "cpu" else "sdpa")
        read = self.bert(
            input_ids=rows.gather(input_ids), attention_mask=rows.attention_bias(), position_ids=rows.place
        )
        read.last_hidden_state = rows.spread(read.last_hidden_state)
        read.pooler_output = _mean_of_text(read.last_hidden_state, numbers > 0)
        return read

    def region_features(
        self, tokens: Float[Tensor, "b t width"], region_tokens: Bool[Tensor, "b r t"]
    ) -> Float[Tensor, "b r d"]:
        """Mean of the tokens that speak of each region, projected (of zero for a region without tokens)."""
        projected: Tensor = self.region_projection(_mean_of(tokens, region_tokens))
        return projected

    def sentence_features(
        self, tokens: Float[Tensor, "b t width"], sentence_tokens: Bool[Tensor, "b s t"]
    ) -> Float[Tensor, "b s d"]:
        """Mean of the tokens of each sentence, projected as whole texts are (of zero for one without tokens)."""
        projected: Tensor = self.projection(_mean_of(tokens, sentence_tokens))
        return projected


def _mean_of(tokens: Float[Tensor, "b t width"], chosen: Bool[Tensor, "b k t"]) -> Float[Tensor, "b k width"]:
    weights = chosen.to(tokens.dtype)
    return weights @ tokens / weights.sum(-1, keepdim=True).clamp(min=1)


def _mean_of_text(tokens: Float[Tensor, "b t width"], chosen: Bool[Tensor, "b t"]) -> Float[Tensor, "b width"]:
    weights = chosen[..., None].to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1)


def small_bert(config: TextConfig, vocabulary_size: int, pad_id: int) -> BertModel:
    """A small BERT with random weights, for the demo and the tests; dropout-free, as its runs are short."""
    from transformers import BertConfig, BertModel  # slow import

    return BertModel(
        BertConfig(
            vocab_size=vocabulary_size,
            hidden_size=config.small_width,
            num_hidden_layers=config.small_depth,
            num_attention_heads=config.small_heads,
            intermediate_size=4 * config.small_width,
            max_position_embeddings=config.max_len,
            pad_token_id=pad_id,
            initializer_range=config.small_width**-0.5,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


def bert_from_json(bert_config: str) -> BertModel:
    """An untrained BERT of a saved configuration (its weights come from a checkpoint)."""
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig.from_dict(json.loads(bert_config)))


def pretrained_bert(config: TextConfig) -> tuple[BertModel, str]:
    """BioBERT, or another BERT, with its tokenizer as JSON: from a folder, or from the hub at the pinned revision.

    Raises:
        ConfigError: neither the folder nor the hub has it, it is no BERT, or it is incomplete.
    """
    from transformers import AutoTokenizer, BertModel, PreTrainedConfig

    local = Path(config.name_or_path).is_dir()
    revision = {} if local else {"revision": config.revision}
    try:
        model_type = PreTrainedConfig.get_config_dict(config.name_or_path, **revision)[0].get("model_type", "bert")
        if model_type != "bert":
            raise ConfigError(f"text.name_or_path = {config.name_or_path!r}: is a {model_type}, not a BERT.")
        tokenizer = AutoTokenizer.from_pretrained(config.name_or_path, **revision)
        bert, loaded = BertModel.from_pretrained(
            config.name_or_path, dtype=torch.float32, output_loading_info=True, **revision
        )
    except (OSError, ValueError) as error:
        where = "the folder" if local else f"the hub (revision {config.revision[:12]})"
        raise ConfigError(
            f"text.name_or_path = {config.name_or_path!r}: no BERT could be loaded from {where}: "
            f"{str(error).splitlines()[0]} Download it once where there is a network "
            f"(`hf download dmis-lab/biobert-v1.1 --revision {TextConfig().revision} --local-dir FOLDER`) "
            "and give its folder with --set text.name_or_path=FOLDER; for a trial without it use "
            "--set text.source=small."
        ) from None
    _check_complete(config, sorted(loaded["missing_keys"]))
    return bert, tokenizer.backend_tokenizer.to_str()


def _check_complete(config: TextConfig, absent: list[str]) -> None:
    """transformers fills absent weights with random numbers; only a pooler may be one of them."""
    name = config.name_or_path
    if rest := [weight for weight in absent if not weight.startswith("pooler.")]:
        raise ConfigError(
            f"text.name_or_path = {name!r}: lacks {len(rest)} of a BERT's weights, such as {rest[0]}. "
            "Give a complete BERT."
        )
    if absent and config.pooling == "cls":
        warn(f"text.name_or_path = {name!r}: has no pooler; its pooler starts from random weights")
