"""The phrase tables are complete, well formed, and keep the hard set's wording apart."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import fields

import pytest
from some_findings import all_forms

from vlm3d_ct.phantom.draw import Draw, polish
from vlm3d_ct.phantom.phrasebook import FindingPhrases, Variants, Wordings, phrasebook
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.text.findings import ABNORMALITIES

NAMES = """place place_is shows contains size sizes largest items side form noun is thing list plane a_plane window
entity stated looks brief level short"""
SLOTS = dict.fromkeys(NAMES.split(), "x")


def parts(phrases: FindingPhrases, hard: bool) -> Iterator[tuple[str, str]]:
    wordings = phrases.of(hard)
    for part in fields(Wordings):
        yield from ((part.name, template) for template in getattr(wordings, part.name))


def variants() -> Iterator[Variants]:
    book = phrasebook()
    yield from (*book.frames.values(), *book.words.values(), book.lobe, book.negatives, book.clear, book.questions)
    yield from (*book.steps.values(), book.headings)
    yield from (by for word in book.severities.values() for by in word.values())
    yield from (entry.said for entry in book.normal)
    yield from (said for _, said in book.traits.values())


def test_every_abnormality_and_form_has_many_templates() -> None:
    book = phrasebook()
    assert {abnormality for abnormality, _ in book.findings} == set(ABNORMALITIES)
    total = 0
    for abnormality, form in all_forms():
        phrases = book.of(abnormality, form)
        assert len(set(phrases.usual.stating)) >= 12, (abnormality, form)
        assert len(set(phrases.hard.stating)) >= 3, (abnormality, form)
        for wordings in (phrases.usual, phrases.hard):
            assert wordings.one
            assert wordings.several
            assert wordings.brief
            assert wordings.looks
    for phrases in book.findings.values():
        total += len(phrases.usual.stating)
    assert total >= 350


def test_a_form_without_phrases_is_refused() -> None:
    with pytest.raises(KeyError, match="round"):
        phrasebook().of("Atelectasis", "round")


def test_the_hard_set_shares_no_template_with_training() -> None:
    for phrases in phrasebook().findings.values():
        usual = {template for name, template in parts(phrases, False)}
        assert usual.isdisjoint(template for name, template in parts(phrases, True))
    for one in variants():
        assert one.usual
        assert one.hard
        if one not in (phrasebook().words.get("scan"), phrasebook().words.get("exam"), phrasebook().steps["seen"]):
            assert set(one.usual).isdisjoint(one.hard)


def test_sentences_end_with_a_stop_and_nouns_do_not() -> None:
    for phrases, hard in itertools.product(phrasebook().findings.values(), (False, True)):
        for name, template in parts(phrases, hard):
            assert template.count("(") == template.count(")")
            if name == "whole":
                assert template.endswith(".")
                assert re.match(r"[A-Z{(]", template), template
            elif name != "several":
                assert not template.endswith("."), template
                assert re.match(r"[a-z{(]", template), template
    for entry in phrasebook().normal:
        for text in (*entry.said.usual, *entry.said.hard):
            assert text.endswith(".") != entry.negated, text


def test_all_slots_are_known() -> None:
    templates = [text for one in variants() for text in (*one.usual, *one.hard)]
    for phrases, hard in itertools.product(phrasebook().findings.values(), (False, True)):
        templates += [template for _, template in parts(phrases, hard)]
    for hard in (False, True):
        draw = Draw(random_stream("slots"), hard)
        for template in templates:
            assert not re.search(r"[{}()|]", draw.fill(template, SLOTS)), template


def test_every_alternative_is_drawn_and_words_follow_the_severity() -> None:
    draw = Draw(random_stream("fill"), False)
    assert {draw.fill("(a|b|) c{d}", {"d": "1"}) for _ in range(60)} == {"a c1", "b c1", " c1"}
    assert {draw.fill("{amount}", {}, "severe") for _ in range(60)} == {"large", "massive"}
    assert {Draw(random_stream("h"), True).fill("{amount}", {}, "severe") for _ in range(3)} <= {
        "sizable",
        "voluminous",
    }


@pytest.mark.parametrize(
    ("rough", "polished"),
    [
        ("a  8 mm nodule , seen.", "An 8 mm nodule, seen."),
        ("a 18 mm and a 1.8 cm nodule", "An 18 mm and a 1.8 cm nodule"),
        ("there is a extensive opacity, 2 cm across,.", "There is an extensive opacity, 2 cm across."),
        ("a 11 mm, a 11.2 cm and a 110 mm one", "An 11 mm, an 11.2 cm and a 110 mm one"),
    ],
)
def test_polishing(rough: str, polished: str) -> None:
    assert polish(rough) == polished
