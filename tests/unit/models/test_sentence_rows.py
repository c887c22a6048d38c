"""Sentences in rows: none is lost, cut or seen by another, and a BERT reads them as it reads each by itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tiny import tiny_config
from vlm3d_ct.models import TextEncoder
from vlm3d_ct.models.sentence_rows import ROW, sentence_rows
from vlm3d_ct.models.text_encoder import small_bert

TEXT = st.lists(st.integers(0, 3), min_size=7, max_size=7)


@given(st.lists(TEXT, min_size=1, max_size=30))
def test_every_token_of_a_sentence_stands_in_one_row_with_its_sentence_and_in_its_place(texts: list[list[int]]):
    numbers = torch.tensor(texts)
    rows = sentence_rows(numbers)
    places = {}
    for source, sentence, place in zip(rows.source, rows.sentence, rows.place, strict=True):
        for name in range(1, 1 + int(sentence.max())):
            slots = (sentence == name).nonzero()[:, 0]
            assert place[slots].tolist() == list(range(len(slots)))
            places[int(source[slots[0]])] = source[slots].tolist()
    expected = {}
    for text, row in enumerate(texts):
        for start in range(7):
            if row[start] and (start == 0 or row[start - 1] != row[start]):
                end = next((e for e in range(start, 7) if row[e] != row[start]), 7)
                expected[7 * text + start] = [7 * text + i for i in range(start, end)]
    assert places == expected
    bias = rows.attention_bias()[:, 0]
    assert torch.equal(bias == 0, rows.sentence[:, :, None] == rows.sentence[:, None, :])
    weights = (bias + 100 * torch.rand(bias.shape)).softmax(-1)
    assert torch.equal(weights > 0, bias == 0)


@given(st.lists(TEXT, min_size=1, max_size=9))
def test_what_is_spread_stands_where_it_was_gathered(texts: list[list[int]]):
    numbers = torch.tensor(texts)
    rows = sentence_rows(numbers)
    tokens = torch.arange(1, 1 + numbers.numel()).view_as(numbers)
    assert torch.equal(rows.spread(rows.gather(tokens)[..., None].float())[..., 0].long(), tokens * (numbers > 0))


def test_a_sentence_longer_than_a_row_makes_all_rows_as_long():
    numbers = torch.ones(3, ROW + 5, dtype=torch.long)
    numbers[:, -4:] = 2
    rows = sentence_rows(numbers)
    assert rows.source.shape == (4, ROW + 1)  # the three short ones share a row
    assert rows.place[:3].max() == ROW


def test_few_slots_stay_free():
    torch.manual_seed(0)
    lengths = torch.randint(3, 30, (32, 10)).tolist()
    texts = [[n for n, length in enumerate(row, 1) for _ in range(length)] for row in lengths]
    numbers = torch.tensor([text + [0] * (300 - len(text)) for text in texts])
    assert (sentence_rows(numbers).sentence > 0).float().mean() > 0.9


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_those_of_each_sentence_read_by_itself(precision: torch.dtype):
    torch.manual_seed(0)
    encoder = TextEncoder(small_bert(tiny_config().text, 50, 0), 24, "mean", "sentence")
    lengths = [[4, 7], [3], [5, 2]]
    texts = [torch.randint(5, 50, (sum(row),)) for row in lengths]
    ids = torch.stack([torch.cat((torch.tensor([2]), t, torch.zeros(12 - len(t), dtype=torch.long))) for t in texts])
    numbers = torch.zeros_like(ids)
    for row, counts in enumerate(lengths):
        of_token = torch.tensor([n for n, count in enumerate(counts, 1) for _ in range(count)])
        numbers[row, 1 : 1 + len(of_token)] = of_token
    weights = torch.rand(3, encoder.bert.config.hidden_size)
    with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        together = encoder(ids, (ids > 0).long(), None, numbers).pooler_output
        alone = torch.stack(
            [
                torch.cat([encoder.bert(sentence[None]).last_hidden_state[0] for sentence in text.split(row)]).mean(0)
                for text, row in zip(texts, lengths, strict=True)
            ]
        )
    parameters = list(encoder.bert.parameters())
    ours, expected = (torch.autograd.grad((v.float() * weights).sum(), parameters) for v in (together, alone))
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if precision == torch.float32 else {"rtol": 0.05, "atol": 0.05}
    torch.testing.assert_close(together.float(), alone.float(), **tolerance)
    for mine, naive in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, naive, **tolerance)
