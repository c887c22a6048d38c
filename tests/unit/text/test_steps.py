"""The sentences of a text as steps: their tokens, their regions, and which of them say the same."""

from __future__ import annotations

import numpy as np

from vlm3d_ct.text.mirror import mirror_report
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.text.report import Report, Step
from vlm3d_ct.text.steps import MOST_STEPS
from vlm3d_ct.text.tokenize import EncodedReport, ReportTokenizer, train_small_tokenizer

RIGHT_UPPER, LEFT_UPPER, LEFT_LOWER, HEART = 1, 4, 5, 8
SENTENCES = (
    "A nodule in the right upper lobe.",
    "It measures 12 mm.",
    "The heart is normal.",
    "No consolidation in the left lower lobe.",
)
TOKENIZER = ReportTokenizer(train_small_tokenizer(SENTENCES, 200), 96)
TABLE = load_region_table()


def encode(answer: str, *steps: Step, question: str = "", tokenizer: ReportTokenizer = TOKENIZER) -> EncodedReport:
    return tokenizer.encode(Report(question=question, answer=answer, steps=steps), TABLE)


def regions(encoded: EncodedReport) -> list[list[int]]:
    return [(np.flatnonzero(row) + 1).tolist() for row in encoded.steps.regions[encoded.steps.groups != 0]]


def test_every_sentence_is_a_step_with_its_tokens_and_regions():
    encoded = encode(" ".join(SENTENCES), question="What is there?")
    assert regions(encoded) == [[RIGHT_UPPER], [], [HEART], [LEFT_LOWER]]
    for number, sentence in enumerate(SENTENCES, 1):
        tokens = encoded.input_ids[encoded.steps.of_token == number]
        assert TOKENIZER.decode(tokens.tolist()).replace(" ", "") == sentence.lower().replace(" ", "")
    assert np.sign(encoded.steps.groups[:5]).tolist() == [1, 1, -1, -1, 0]
    assert len(encoded.steps.groups) == MOST_STEPS


def test_equal_sentences_and_equal_places_have_equal_ids_wherever_they_stand():
    one, other = encode(" ".join(SENTENCES)), encode(" ".join(SENTENCES[::-1]).upper())
    assert one.steps.groups[:4].tolist() == other.steps.groups[:4][::-1].tolist()
    assert one.steps.places[:4].tolist() == other.steps.places[:4][::-1].tolist()
    assert len(set(one.steps.groups[:4].tolist())) == len(set(one.steps.places[:4].tolist())) == 4


def test_entities_speak_where_the_sentence_names_no_region():
    steps = (Step(text=" ".join(SENTENCES[:2]), entities=("Left upper lobe",)), Step(text=SENTENCES[2]))
    assert regions(encode(" ".join(SENTENCES[:3]), *steps)) == [[RIGHT_UPPER], [LEFT_UPPER], [HEART]]
    implied = "A nodular lesion is seen."
    assert len(regions(encode(implied))[0]) == 5, "a nodule lies in a lung unless something else is said"
    assert regions(encode(implied, Step(text=implied, entities=("heart",)))) == [[HEART]]
    backwards = (Step(text=SENTENCES[2]), Step(text=SENTENCES[1], entities=("heart",)))
    assert regions(encode(" ".join(SENTENCES[1:3]), *backwards)) == [[HEART], [HEART]], "steps in another order"
    assert regions(encode(SENTENCES[1], Step(text=SENTENCES[1], entities=("the gantry",)))) == [[]]
    elsewhere = Step(text="Not in the answer.", entities=("Heart",))
    assert regions(encode(SENTENCES[1], elsewhere)) == [[]]


def test_what_is_cut_off_is_no_step_and_what_is_too_much_neither():
    short = encode(" ".join(SENTENCES), tokenizer=ReportTokenizer(TOKENIZER.to_json(), 16))
    assert len(regions(short)) < len(SENTENCES)
    assert short.steps.of_token.max() == len(regions(short))
    many = encode("It is. " * (MOST_STEPS + 5))
    assert (many.steps.groups != 0).all()
    assert many.steps.of_token.max() == MOST_STEPS + 5  # numbered, but no steps
    assert (many.steps.groups != 0).all()
    prompt = "No effusion. A nodule of 1.5 mm."
    without_table, with_table = TOKENIZER.encode_text(prompt).steps, encode(prompt).steps
    assert without_table.regions.shape == (MOST_STEPS, 0)
    assert without_table.of_token.tolist() == with_table.of_token.tolist()
    assert without_table.of_token.max() == 2


def test_a_mirrored_report_mirrors_its_steps_and_entities():
    step = Step(text=SENTENCES[0], entities=("right upper lobe",))
    report = Report(question="", answer=SENTENCES[0], steps=(step,))
    mirrored = mirror_report(report, TABLE)
    assert mirrored.steps == (Step(text="A nodule in the left upper lobe.", entities=("left upper lobe",)),)
    assert mirror_report(mirrored, TABLE) == report
    one_sided = Step(text=SENTENCES[1], entities=("right middle lobe", "left upper lobe"))
    (found,) = mirror_report(Report(question="", answer=SENTENCES[1], steps=(one_sided,)), TABLE).steps
    assert found.entities == ("right upper lobe",), "what has no mirror image is not mirrored"
