"""A frozen BERT: its weights stay, and what it reads of a text is kept and found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tiny import random_pairs, tiny_config, tiny_model
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.models import VisionLanguageModel
from vlm3d_ct.models.readings import Readings, kept_bytes

FROZEN = ("text.frozen=true",)
BY_SENTENCES = (*FROZEN, "text.attention=sentence", "text.pooling=mean")
HALF = 2**-11
"""Largest relative error of rounding to fp16."""
PLENTY = 10**9

Texts = tuple[Tensor, Tensor, Tensor, Tensor]


def texts_of(count: int = 4, tokens: int = 12, seed: int = 0) -> Texts:
    inputs = random_pairs(tiny_config(*FROZEN), count, seed=seed, tokens=tokens).model_input
    return inputs.input_ids, inputs.attention_mask, inputs.token_type_ids, inputs.token_steps


def frozen_model(*overrides: str) -> VisionLanguageModel:
    return tiny_model(tiny_config(*(overrides or FROZEN))).train()


def with_readings(folder: Path, model: VisionLanguageModel, most_bytes: int = PLENTY) -> VisionLanguageModel:
    model.text_encoder.readings = Readings(folder, model.text_encoder.bert, "test", most_bytes)
    return model


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_frozen_bert_is_never_in_training_mode_and_takes_no_gradient():
    model = frozen_model()
    assert not any(module.training for module in model.text_encoder.bert.modules())
    assert model.text_encoder.projection.training
    representations, occupancy = model(random_pairs(tiny_config(*FROZEN), 3).model_input)
    (sum(part.sum() for part in representations.tensors()) + occupancy).backward()
    assert {name for name, p in model.text_encoder.named_parameters() if p.grad is not None} == {
        f"{name}.{part}" for name in ("projection", "region_projection") for part in ("weight", "bias")
    }


@pytest.mark.parametrize("overrides", [FROZEN, BY_SENTENCES])
def test_what_is_kept_is_what_the_bert_reads(tmp_path: Path, overrides: tuple[str, ...]):
    model = frozen_model(*overrides)
    texts = texts_of()
    direct = model.text_encoder(*texts)
    with_readings(tmp_path, model)
    kept = model.text_encoder(*texts)
    there = texts[1].bool()
    # beside the rounding, products over fewer tokens are summed in another order: some hundred roundings of fp32
    torch.testing.assert_close(kept.last_hidden_state[there], direct.last_hidden_state[there], rtol=HALF, atol=1e-5)
    torch.testing.assert_close(kept.pooler_output, direct.pooler_output, rtol=HALF, atol=1e-5)
    assert not kept.last_hidden_state[~there].any()
    assert len(files(tmp_path)) == len(texts[0])


@pytest.mark.parametrize("overrides", [FROZEN, BY_SENTENCES])
def test_a_reading_depends_neither_on_its_batch_nor_on_whether_it_was_kept(tmp_path: Path, overrides: tuple[str, ...]):
    model = frozen_model(*overrides)
    ids, mask, types, steps = texts_of()
    first = with_readings(tmp_path / "a", model).text_encoder(ids, mask, types, steps)
    again = model.text_encoder(ids, mask, types, steps)
    assert torch.equal(first.last_hidden_state, again.last_hidden_state)
    longer = [torch.nn.functional.pad(part, (0, 5)) for part in (ids, mask, types, steps)]
    with_readings(tmp_path / "b", model)
    for i in reversed(range(len(ids))):
        alone = model.text_encoder(*(part[i : i + 1] for part in longer))
        assert torch.equal(alone.last_hidden_state[0, :-5], first.last_hidden_state[i])
        assert torch.equal(alone.pooler_output[0], first.pooler_output[i])


def test_what_is_there_is_not_read_again(tmp_path: Path):
    model = with_readings(tmp_path, frozen_model())
    texts = texts_of()
    first = model.text_encoder(*texts)
    for parameter in model.text_encoder.bert.parameters():
        parameter.fill_(torch.nan)
    assert torch.equal(model.text_encoder(*texts).last_hidden_state, first.last_hidden_state)


def test_other_weights_types_or_sentences_are_another_reading(tmp_path: Path):
    ids, mask, types, steps = texts_of(count=1)
    model = with_readings(tmp_path, frozen_model(*BY_SENTENCES))
    found = [model.text_encoder(ids, mask, types, steps)]
    found.append(model.text_encoder(ids, mask, types, torch.ones_like(steps) * mask))
    assert len(files(tmp_path)) == 2
    other = tiny_model(tiny_config(*BY_SENTENCES), seed=1).train()
    found.append(with_readings(tmp_path, other).text_encoder(ids, mask, types, steps))
    assert len(files(tmp_path)) == 3
    by_type = with_readings(tmp_path, frozen_model())
    found.append(by_type.text_encoder(ids, mask, types, steps))
    found.append(by_type.text_encoder(ids, mask, 1 - types, steps))
    for i, one in enumerate(found):
        for another in found[:i]:
            assert not torch.equal(one.last_hidden_state, another.last_hidden_state)


def cut(content: bytes) -> bytes:
    return content[:-7]


def flip_a_bit(content: bytes) -> bytes:
    return content[:60] + bytes([content[60] ^ 4]) + content[61:]


def empty(_content: bytes) -> bytes:
    return b""


def claim_to_be_huge(content: bytes) -> bytes:
    return content[:8] + b"\xff" * 8 + content[16:]


@pytest.mark.parametrize("damage", [cut, flip_a_bit, empty, claim_to_be_huge])
def test_a_damaged_reading_is_replaced(tmp_path: Path, damage: Any, capsys: pytest.CaptureFixture[str]):
    model = with_readings(tmp_path, frozen_model())
    texts = texts_of(count=1)
    first = model.text_encoder(*texts)
    (path,) = files(tmp_path)
    good = path.read_bytes()
    path.write_bytes(damage(good))
    assert torch.equal(model.text_encoder(*texts).last_hidden_state, first.last_hidden_state)
    assert f"{path}: is damaged; the text is read anew" in capsys.readouterr().err
    assert path.read_bytes() == good


def test_no_more_is_kept_than_may_be(tmp_path: Path):
    model = with_readings(tmp_path / "one", frozen_model())
    texts = texts_of()
    first = model.text_encoder(*texts)
    sizes = [path.stat().st_size for path in files(tmp_path / "one")]
    with_readings(tmp_path / "limited", model, most_bytes=sum(sizes) - 1)
    assert torch.equal(model.text_encoder(*texts).last_hidden_state, first.last_hidden_state)
    count, taken = kept_bytes(tmp_path / "limited")
    assert (count, taken < sum(sizes)) == (3, True)
    assert kept_bytes(tmp_path / "nowhere") == (0, 0)


def test_a_disk_that_refuses_ends_the_keeping_not_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = with_readings(tmp_path, frozen_model())
    (folder,) = tmp_path.iterdir()
    for number in range(256):
        (folder / f"{number:02x}").write_text("in the way")
    before = files(tmp_path)
    read = model.text_encoder(*texts_of())
    assert read.last_hidden_state.isfinite().all()
    assert capsys.readouterr().err.count("no further readings of texts are kept") == 1
    assert files(tmp_path) == before


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"text\.cache_dir = .*cannot be used"):
        Readings(tmp_path / "file", frozen_model().text_encoder.bert, "test", PLENTY)


def test_what_is_not_finite_is_not_kept(tmp_path: Path):
    model = frozen_model()
    model.text_encoder.bert.embeddings.word_embeddings.weight.fill_(torch.nan)
    assert with_readings(tmp_path, model).text_encoder(*texts_of()).last_hidden_state.isnan().any()
    assert files(tmp_path) == []


def test_a_text_without_tokens_reads_as_nothing(tmp_path: Path):
    model = with_readings(tmp_path, frozen_model(*BY_SENTENCES))
    ids, mask, _, steps = texts_of(count=3)
    mask[1] = 0
    read = model.text_encoder(ids, mask, None, steps * mask)
    assert not read.last_hidden_state[1].any()
    nothing = model.text_encoder(ids, torch.zeros_like(mask), None, torch.zeros_like(steps))
    assert nothing.last_hidden_state.shape == read.last_hidden_state.shape
    assert not nothing.last_hidden_state.any()


def test_evaluation_reads_anew(tmp_path: Path):
    model = with_readings(tmp_path, frozen_model()).eval()
    model.text_encoder(*texts_of())
    assert files(tmp_path) == []
