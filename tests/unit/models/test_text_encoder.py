"""The text encoder: loaded from a folder, refused without one, and pooled by region."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel, DistilBertConfig, DistilBertModel

from tiny import WORDS, tiny_config
from vlm3d_ct.config import TextConfig
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.models import TextEncoder, build, rebuild
from vlm3d_ct.models.text_encoder import bert_from_json, pretrained_bert, small_bert
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.text.report import Report
from vlm3d_ct.text.tokenize import ReportTokenizer, train_small_tokenizer


def test_a_bert_from_a_folder_keeps_its_weights_and_its_vocabulary(bert_folder: Path):
    bert, tokenizer_json = pretrained_bert(TextConfig(name_or_path=str(bert_folder)))
    original = BertModel.from_pretrained(bert_folder)
    assert bert.state_dict().keys() == original.state_dict().keys()
    for name, value in original.state_dict().items():
        assert torch.equal(bert.state_dict()[name], value)
    tokenizer = ReportTokenizer(tokenizer_json, 32)
    encoded = tokenizer.encode(Report(question="lungs", answer="The heart is normal."), load_region_table())
    words = ["[CLS]", "lung", "##s", "[SEP]", "the", "heart", "is", "normal", ".", "[SEP]"]
    assert encoded.input_ids.tolist() == [WORDS.index(word) for word in words]


def test_the_dual_encoder_is_built_around_a_bert_of_any_width(bert_folder: Path):
    config = tiny_config("text.source=pretrained", f"text.name_or_path={bert_folder}")
    built = build(config, small_tokenizer_json=None)
    text_encoder = built.model.text_encoder
    read = text_encoder(torch.tensor([[2, 5, 3]]), torch.ones(1, 3, dtype=torch.long))
    assert read.pooler_output.shape == (1, 16)
    assert read.last_hidden_state.shape == (1, 3, 16)
    assert text_encoder.projection(read.pooler_output).shape == (1, 32)
    again = TextEncoder(bert_from_json(built.bert_json), 32)
    again.load_state_dict(text_encoder.state_dict())


def test_a_folder_without_a_bert_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"text\.name_or_path = .*no BERT could be loaded from the folder"):
        pretrained_bert(TextConfig(name_or_path=str(tmp_path)))


def test_without_a_network_the_message_says_what_to_do_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        pretrained_bert(TextConfig())
    assert time.monotonic() - start < 20
    message = str(caught.value)
    assert "text.name_or_path = 'dmis-lab/biobert-v1.1'" in message
    assert "the hub (revision 551ca18efd7f)" in message
    assert "--set text.name_or_path=FOLDER" in message
    assert "--set text.source=small" in message


def test_another_architecture_than_bert_is_refused(bert_folder: Path):
    config = DistilBertConfig(vocab_size=len(WORDS), dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    DistilBertModel(config).save_pretrained(bert_folder)
    with pytest.raises(ConfigError, match="is a distilbert, not a BERT"):
        pretrained_bert(TextConfig(name_or_path=str(bert_folder)))


def test_a_bert_that_lacks_weights_is_refused(bert_folder: Path):
    weights = load_file(bert_folder / "model.safetensors")
    del weights["embeddings.LayerNorm.bias"]
    save_file(weights, bert_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks 1 of a BERT's weights, such as embeddings\.LayerNorm\.bias"):
        pretrained_bert(TextConfig(name_or_path=str(bert_folder)))


def test_a_bert_without_a_pooler_is_taken_with_a_warning(bert_folder: Path, capsys: pytest.CaptureFixture[str]):
    BertModel.from_pretrained(bert_folder, add_pooling_layer=False).save_pretrained(bert_folder)
    bert, _ = pretrained_bert(TextConfig(name_or_path=str(bert_folder)))
    assert bert.pooler is not None
    assert "has no pooler; its pooler starts from random weights" in capsys.readouterr().err


def test_region_features_are_the_projected_mean_of_the_regions_tokens():
    config = tiny_config().text
    torch.manual_seed(0)
    encoder = TextEncoder(small_bert(config, 50, 0), embed_dim=24)
    random = torch.Generator().manual_seed(1)
    tokens = torch.randn(2, 7, config.small_width, generator=random)
    marked = torch.rand(2, 5, 7, generator=random) < 0.4
    marked[1, 3] = False
    result = encoder.region_features(tokens, marked)
    for case in range(2):
        for region in range(5):
            chosen = [tokens[case, t] for t in range(7) if marked[case, region, t]]
            mean = torch.stack(chosen).mean(0) if chosen else torch.zeros(config.small_width)
            projected = encoder.region_projection.weight @ mean + encoder.region_projection.bias
            if projected.norm() > 0:
                projected = projected / projected.norm()
            np.testing.assert_allclose(
                result[case, region].detach().numpy(), projected.detach().numpy(), rtol=1e-5, atol=1e-6
            )
    assert result.isfinite().all()


def test_recomputing_the_layers_changes_nothing_in_the_gradient(bert_folder: Path):
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 8, 3]])
    gradients = []
    for checkpointing in (False, True):
        config = tiny_config(
            "text.source=pretrained",
            f"text.name_or_path={bert_folder}",
            f"text.gradient_checkpointing={checkpointing}",
        )
        torch.manual_seed(0)
        built = build(config, small_tokenizer_json=None)
        again = rebuild(config, built.bert_json).text_encoder
        for encoder in (built.model.text_encoder, again):
            assert encoder.bert.is_activation_checkpointing == checkpointing
        text_encoder = built.model.text_encoder.train()
        assert text_encoder.bert.config.hidden_dropout_prob == 0.1
        torch.manual_seed(1)
        text_encoder.projection(text_encoder(ids, torch.ones_like(ids)).pooler_output)[:, :3].sum().backward()
        gradients.append([p.grad for p in text_encoder.bert.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_padding_changes_nothing(pooling: Literal["cls", "mean"]):
    config = tiny_config().text
    torch.manual_seed(0)
    encoder = TextEncoder(small_bert(config, 50, 0), embed_dim=24, pooling=pooling).eval()
    ids = torch.tensor([[2, 9, 8, 3]])
    padded = torch.tensor([[2, 9, 8, 3, 0, 0]])
    short = encoder(ids, torch.ones_like(ids), torch.zeros_like(ids))
    long = encoder(padded, (padded > 0).long(), torch.zeros_like(padded))
    torch.testing.assert_close(short.pooler_output, long.pooler_output)
    torch.testing.assert_close(short.last_hidden_state, long.last_hidden_state[:, :4])


def test_mean_pooling_is_the_mean_of_the_real_tokens_and_leaves_no_unused_parameter():
    config = tiny_config("text.pooling=mean")
    built = build(config, small_tokenizer_json=train_small_tokenizer(["A nodule. No effusion."], 60))
    encoder = built.model.text_encoder
    ids = torch.tensor([[2, 9, 8, 3, 0, 0], [2, 9, 8, 7, 6, 3]])
    read = encoder(ids, (ids > 0).long())
    for row, length in ((0, 4), (1, 6)):
        mean = sum(read.last_hidden_state[row, t] for t in range(length)) / length
        torch.testing.assert_close(read.pooler_output[row], mean)
    weights = torch.rand(read.pooler_output.shape, generator=torch.Generator().manual_seed(0))
    (read.pooler_output * weights).sum().backward()
    assert all(p.grad is not None for p in encoder.bert.parameters())
    again = rebuild(config, built.bert_json)
    again.load_state_dict(built.model.state_dict())


def read_sentences(attention: Literal["text", "sentence"], *sentences: list[int]) -> list[torch.Tensor]:
    """What becomes of the tokens of each sentence of a text, between [CLS] and [SEP]."""
    torch.manual_seed(0)
    encoder = TextEncoder(small_bert(tiny_config().text, 50, 0), 24, "mean", attention).eval()
    lengths = [len(sentence) for sentence in sentences]
    ids = torch.tensor([[2, *(token for sentence in sentences for token in sentence), 3, 0, 0]])
    steps = torch.tensor([[0, *(n for n, length in enumerate(lengths, 1) for _ in range(length)), 0, 0, 0]])
    with torch.no_grad():
        read = encoder(ids, (ids > 0).long(), None, steps).last_hidden_state[0]
    return list(read[1 : 1 + sum(lengths)].split(lengths))


def test_a_sentence_is_read_alike_alone_and_in_a_report():
    first, second, third = [5, 9, 7], [8, 6, 11, 12, 5], [5, 10]
    whole = read_sentences("sentence", first, second, third)
    for alone, within in zip((first, second, third), whole, strict=True):
        torch.testing.assert_close(read_sentences("sentence", alone)[0], within)
    assert not torch.allclose(read_sentences("text", second)[0], read_sentences("text", first, second)[1], atol=1e-3)


def test_within_its_sentence_a_token_sees_everything():
    for changed in range(5):
        tokens = [8, 6, 11, 12, 5]
        before = read_sentences("sentence", [5, 9], tokens, [7, 7])
        tokens[changed] = 20
        after = read_sentences("sentence", [5, 9], tokens, [7, 7])
        assert torch.equal(before[0], after[0])
        assert torch.equal(before[2], after[2])
        assert ((before[1] - after[1]).abs().amax(1) > 1e-4).all()


def test_the_mean_of_sentences_is_that_of_their_tokens_whatever_else_the_text_holds():
    torch.manual_seed(0)
    encoder = TextEncoder(small_bert(tiny_config().text, 50, 0), 24, "mean", "sentence").eval()
    alone, steps = torch.tensor([[5, 9, 7, 8, 6]]), torch.tensor([[1, 1, 1, 2, 2]])
    within = torch.tensor([[2, 11, 12, 3, 5, 9, 7, 8, 6, 3, 0]])  # after a question, of another token type
    types = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0]])
    within_steps = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 2, 2, 0, 0]])
    one = encoder(alone, torch.ones_like(alone), None, steps).pooler_output
    other = encoder(within, (within > 0).long(), types, within_steps).pooler_output
    torch.testing.assert_close(one, other)
    empty = encoder(torch.tensor([[2, 3]]), torch.ones(1, 2, dtype=torch.long), None, torch.zeros(1, 2).long())
    torch.testing.assert_close(empty.pooler_output, empty.last_hidden_state.mean(1))  # a text without any sentence


def test_sentence_attention_without_sentences_is_refused():
    encoder = TextEncoder(small_bert(tiny_config().text, 50, 0), 24, "mean", "sentence")
    with pytest.raises(ValueError, match="token_steps must say"):
        encoder(torch.tensor([[2, 5, 3]]), torch.ones(1, 3, dtype=torch.long))
