"""Tokens, the regions that they speak of, groups of texts, batches, and the trained WordPiece."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from vlm3d_ct.errors import ConfigError
from vlm3d_ct.text.mentions import find_mentions
from vlm3d_ct.text.opposite import opposite
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.text.report import Report
from vlm3d_ct.text.tokenize import ReportTokenizer, collate_reports, train_small_tokenizer

SENTENCES = (
    "A 1.2 cm nodule in the right upper lobe.",
    "No pleural effusion.",
    "The heart is normal in size.",
    "Mild cardiomegaly with coronary calcification.",
    "Atelectasis of both lower lobes.",
    "It measures 12 mm.",
    "Hépatomegaly of the LIVER, naïve.",
    "The aorta is unremarkable",
)
QUESTION = "What does the right lung show?"


@cache
def small_json() -> str:
    return train_small_tokenizer([*SENTENCES, QUESTION, "word pieces are lung heart nodules"], 220)


def tokenizer(max_len: int = 128) -> ReportTokenizer:
    return ReportTokenizer(small_json(), max_len)


def report(answer: str, question: str = "") -> Report:
    return Report(question=question, answer=answer)


answers = st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=6).map(" ".join)
questions = st.sampled_from(("", QUESTION, "Why?", "word " * 40))


@given(answers, questions)
def test_ids_are_those_of_the_berts_own_pair_template(answer: str, question: str):
    reference = Tokenizer.from_str(small_json())
    expected = reference.encode(question, answer) if question else reference.encode(answer)
    encoded = tokenizer(512).encode(report(answer, question), load_region_table())
    assert encoded.input_ids.tolist() == expected.ids
    assert encoded.token_type_ids.tolist() == expected.type_ids


@given(answers, questions, st.integers(8, 160))
def test_region_tokens_are_exactly_the_answer_tokens_in_mentioning_sentences(answer: str, question: str, max_len: int):
    table = load_region_table()
    encoded = tokenizer(max_len).encode(report(answer, question), table)
    reference = Tokenizer.from_str(small_json())
    offsets = reference.encode(answer, add_special_tokens=False).offsets
    length = len(encoded.input_ids)
    first = encoded.input_ids.tolist().index(3) + 1 if question else 1  # the answer begins after [SEP] or [CLS]
    expected = np.zeros((20, length), bool)
    for position in range(first, length - 1):
        start, end = offsets[position - first]
        for mention in find_mentions(answer, table):
            for number in mention.regions:
                if mention.span[0] <= start and end <= mention.span[1]:
                    expected[number - 1, position] = True
    np.testing.assert_array_equal(encoded.region_tokens, expected)
    np.testing.assert_array_equal(encoded.region_mentions, expected.any(axis=1))
    np.testing.assert_array_equal(encoded.region_groups != 0, expected.any(axis=1))


@given(answers, questions, st.integers(8, 160))
def test_truncation_keeps_the_specials_and_as_much_text_as_fits(answer: str, question: str, max_len: int):
    whole = tokenizer(512).encode(report(answer, question), load_region_table())
    cut = tokenizer(max_len).encode(report(answer, question), load_region_table())
    assert len(cut.input_ids) == min(max_len, len(whole.input_ids))
    assert cut.input_ids[0] == 2
    assert cut.input_ids[-1] == 3
    assert (cut.input_ids == 3).sum() == (2 if question else 1)
    if question:
        split, split_whole = (ids.input_ids.tolist().index(3) for ids in (cut, whole))
        answer_length = len(whole.input_ids) - split_whole - 2
        room = max_len - 3
        assert split - 1 == min(split_whole - 1, max(room // 2, room - answer_length))
        answer_ids = whole.input_ids[split_whole + 1 : -1]
        assert cut.input_ids[:split].tolist() == whole.input_ids[:split].tolist()
        assert cut.input_ids[split + 1 : -1].tolist() == answer_ids[: max_len - split - 2].tolist()


def test_the_marked_tokens_decode_to_their_sentences():
    answer = f"{SENTENCES[0]} {SENTENCES[1]} {SENTENCES[4]}"
    encoded = tokenizer().encode(report(answer, QUESTION), load_region_table())
    spoken = {
        number: tokenizer().decode(encoded.input_ids[encoded.region_tokens[number - 1]].tolist())
        for number in (np.flatnonzero(encoded.region_mentions) + 1).tolist()
    }
    assert spoken == {
        1: "a 1. 2 cm nodule in the right upper lobe.",
        3: "atelectasis of both lower lobes.",
        5: "atelectasis of both lower lobes.",
        7: "no pleural effusion.",
    }


def test_a_region_whose_sentence_is_cut_off_is_not_mentioned():
    answer = f"{SENTENCES[0]} {SENTENCES[1]}"
    encoded = tokenizer(10).encode(report(answer), load_region_table())
    assert np.flatnonzero(encoded.region_mentions).tolist() == [0]
    assert encoded.region_groups[6] == 0


def test_region_groups_tell_absent_normal_and_equal_texts_apart():
    def groups(answer: str) -> list[int]:
        return tokenizer().encode(report(answer), load_region_table()).region_groups.tolist()

    assert groups("It measures 12 mm.") == [0] * 20
    normal = groups("No pleural effusion.")[6]
    assert normal < 0
    assert normal == groups("no  pleural\neffusion.")[6]
    assert groups("The pleura is normal.")[6] < 0
    assert groups("The pleura is normal.")[6] != normal
    mixed = groups("No pleural effusion. Pleural thickening.")[6]
    assert mixed > 0
    assert mixed == groups("NO pleural  effusion.\nPleural thickening. The heart is normal.")[6]
    assert mixed != groups("Pleural thickening.")[6] > 0
    lobes = groups("Atelectasis of both lower lobes.")
    assert lobes[2] == lobes[4] > 0


def test_region_groups_see_only_what_survives_truncation():
    table = load_region_table()
    shared = len(tokenizer().encode_text("Mild cardiomegaly with mild coronary calcification,").input_ids)
    one, other = (
        tokenizer(shared).encode(report(f"Mild cardiomegaly with mild coronary calcification, {end}"), table)
        for end in ("nodules", "stents")
    )
    assert one.input_ids.tolist() == other.input_ids.tolist()
    assert one.region_groups[7] == other.region_groups[7] > 0


def test_text_groups_are_stable_and_ignore_case_and_white_space():
    def group(text: str) -> int:
        return tokenizer().encode_text(text).text_group

    assert group("No pleural effusion.") == 4769567824020007124  # the same in every process, release and machine
    assert group("no  pleural\neffusion. ") == group("No pleural effusion.")
    assert group("No pleural effusion") != group("No pleural effusion.")


def test_plain_texts_take_the_same_path_as_reports():
    table = load_region_table()
    plain, prompt = tokenizer().encode(report(SENTENCES[0]), table), tokenizer().encode_text(SENTENCES[0], table)
    assert plain.input_ids.tolist() == prompt.input_ids.tolist()
    np.testing.assert_array_equal(plain.region_tokens, prompt.region_tokens)
    assert tokenizer().encode_text(SENTENCES[0]).region_tokens.shape == (0, len(plain.input_ids))
    assert tokenizer().encode_text("").input_ids.tolist() == [2, 3]


@given(st.lists(st.tuples(answers, questions), min_size=1, max_size=5))
def test_a_batch_holds_every_report_and_padding(texts: list[tuple[str, str]]):
    encoded = [tokenizer().encode(report(answer, question), load_region_table()) for answer, question in texts]
    batch = collate_reports(encoded, pad_id=tokenizer().pad_id)
    assert batch.input_ids.shape == (len(texts), max(len(one.input_ids) for one in encoded))
    for row, one in enumerate(encoded):
        length = len(one.input_ids)
        assert batch.attention_mask[row].tolist() == [1] * length + [0] * (batch.input_ids.shape[1] - length)
        assert batch.input_ids[row, :length].tolist() == one.input_ids.tolist()
        assert batch.token_type_ids[row, :length].tolist() == one.token_type_ids.tolist()
        assert not batch.input_ids[row, length:].any()
        assert not batch.token_type_ids[row, length:].any()
        assert not batch.region_tokens[row, :, length:].any()
        np.testing.assert_array_equal(batch.region_tokens[row, :, :length], one.region_tokens)
        np.testing.assert_array_equal(batch.region_mentions[row], one.region_mentions)
        np.testing.assert_array_equal(batch.region_groups[row], one.region_groups)
        assert batch.text_groups[row] == one.text_group


def test_json_round_trip_gives_the_same_tokenizer():
    again = ReportTokenizer(tokenizer().to_json(), 128)
    assert again.to_json() == tokenizer().to_json()
    ids = [one.encode_text(SENTENCES[0]).input_ids.tolist() for one in (again, tokenizer())]
    assert ids[0] == ids[1]
    assert again.vocabulary_size == tokenizer().vocabulary_size


def test_a_tokenizer_survives_the_trip_to_a_worker_process():
    again = copy.deepcopy(tokenizer())  # takes the same way as pickling to a worker process
    assert (
        again.encode_text(SENTENCES[0]).input_ids.tolist() == tokenizer().encode_text(SENTENCES[0]).input_ids.tolist()
    )


def test_truncation_and_padding_inside_the_json_do_not_count():
    padded = Tokenizer.from_str(small_json())
    padded.enable_truncation(4)
    padded.enable_padding(length=64)
    ours = ReportTokenizer(padded.to_str(), 128).encode_text(SENTENCES[0])
    assert ours.input_ids.tolist() == tokenizer().encode_text(SENTENCES[0]).input_ids.tolist()


def test_trained_tokenizer_has_berts_form():
    content = json.loads(small_json())
    vocabulary = content["model"]["vocab"]
    assert content["model"]["type"] == "WordPiece"
    assert content["model"]["continuing_subword_prefix"] == "##"
    assert content["normalizer"]["type"] == "BertNormalizer"
    assert content["normalizer"]["lowercase"] is True
    assert content["pre_tokenizer"]["type"] == "BertPreTokenizer"
    assert [vocabulary[token] for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")] == [0, 1, 2, 3, 4]
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert [token["content"] for token in content["added_tokens"]] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer().vocabulary_size == len(vocabulary) <= 220
    assert tokenizer().pad_id == 0
    assert 1 not in tokenizer().encode_text(" ".join(SENTENCES)).input_ids  # no [UNK] in the texts it was trained on
    assert 1 in tokenizer().encode_text("π").input_ids


def test_training_is_deterministic_across_processes():
    code = (
        "import sys; from vlm3d_ct.text.tokenize import train_small_tokenizer as t;"
        "sys.stdout.write(t(['abc abd bcd dab', 'cab bad dad', 'lung lobe', 'heart 12 mm'], 60))"
    )
    runs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    }
    assert len(runs) == 1
    here = train_small_tokenizer(["abc abd bcd dab", "cab bad dad", "lung lobe", "heart 12 mm"], 60)
    assert runs == {here}


def test_a_vocabulary_without_room_for_the_letters_is_refused():
    with pytest.raises(ConfigError, match=r"text\.small_vocabulary is 20; these texts need at least 25"):
        train_small_tokenizer(["abcdefghij"], 20)
    with pytest.raises(ConfigError, match="no text"):
        train_small_tokenizer(["  "], 100)


@pytest.mark.parametrize(
    "content",
    ["", "{}", "not json", '{"version": "1.0", "model": {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "a"}}'],
)
def test_a_file_that_is_no_bert_tokenizer_is_refused(content: str):
    with pytest.raises(ConfigError, match="okenizer"):
        ReportTokenizer(content, 128)


def test_a_length_without_room_for_text_is_refused():
    with pytest.raises(ConfigError, match="max_len is 3"):
        ReportTokenizer(small_json(), 3)


@given(answers, questions, st.integers(8, 160))
def test_each_opposite_has_the_number_of_the_sentence_it_turns_round(answer: str, question: str, max_len: int):
    asked = ReportTokenizer(small_json(), max_len, opposites=True)
    table = load_region_table()
    encoded, plain = (
        asked.encode(report(answer, question), table),
        tokenizer(max_len).encode(report(answer, question), table),
    )
    assert encoded.input_ids.tolist() == plain.input_ids.tolist()
    assert plain.opposite_ids.shape == plain.opposite_steps.shape == (0,)
    assert 2 <= len(encoded.opposite_ids) == len(encoded.opposite_steps) <= max_len
    assert (encoded.opposite_ids[0], encoded.opposite_ids[-1]) == (2, 3)
    reference = Tokenizer.from_str(small_json())
    for number in np.unique(encoded.opposite_steps[encoded.opposite_steps > 0]).tolist():
        own = encoded.input_ids[encoded.steps.of_token == number].tolist()
        said = [answer[slice(*mention.span)] for mention in find_mentions(answer, table)]
        read = [s for s in said if reference.encode(s, add_special_tokens=False).ids == own]  # none, were it cut off
        turned = {opposite(sentence) for sentence in read}
        ids = encoded.opposite_ids[encoded.opposite_steps == number].tolist()
        assert ids in [reference.encode(text, add_special_tokens=False).ids for text in turned if text is not None]


def test_a_sentence_without_tokens_shifts_no_opposite():
    asked = ReportTokenizer(small_json(), 128, opposites=True)
    texts = ["\u200b", "No pleural effusion.", "\ufeff", "\u0301", "Cardiomegaly."]
    encoded = asked.encode(report("\n\n".join(texts)), load_region_table())
    pairs = {
        int(number): [
            asked.decode(ids[steps == number].tolist())
            for ids, steps in (
                (encoded.input_ids, encoded.steps.of_token),
                (encoded.opposite_ids, encoded.opposite_steps),
            )
        ]
        for number in (1, 2)
    }
    assert pairs == {1: ["no pleural effusion.", "pleural effusion."], 2: ["cardiomegaly.", "no cardiomegaly."]}
    assert encoded.opposite_steps.max() == 2


def test_opposites_are_padded_to_the_longest_of_the_batch():
    asked = ReportTokenizer(small_json(), 128, opposites=True)
    encoded = [asked.encode(report(text), load_region_table()) for text in (SENTENCES[0], "No pleural effusion.", "")]
    batch = collate_reports(encoded, asked.pad_id)
    longest = max(len(one.opposite_ids) for one in encoded)
    assert batch.opposite_ids.shape == batch.opposite_mask.shape == batch.opposite_steps.shape == (3, longest)
    for row, one in enumerate(encoded):
        length = len(one.opposite_ids)
        assert batch.opposite_mask[row].tolist() == [1] * length + [0] * (longest - length)
        assert batch.opposite_ids[row, :length].tolist() == one.opposite_ids.tolist()
        assert batch.opposite_steps[row, :length].tolist() == one.opposite_steps.tolist()
        assert set(batch.opposite_ids[row, length:].tolist()) <= {asked.pad_id}
