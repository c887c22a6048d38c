"""Reports say what is there, where it is, and nothing else."""

from __future__ import annotations

import re

import pytest

from vlm3d_ct.phantom.findings.catalogue import KINDS
from vlm3d_ct.phantom.findings.finding import LOBE_NAMES
from vlm3d_ct.phantom.scan import Subject, draw_subject
from vlm3d_ct.phantom.wording import normal_statements, phrases, question, report, sentence, templates, trait_statements
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.text.mentions import find_mentions
from vlm3d_ct.text.regions import load_region_table

WORDS = {
    "Lung nodule": r"nodule",
    "Consolidation": r"consolidat",
    "Lung opacity": r"opaci|ground glass",
    "Atelectasis": r"atelecta",
    "Pulmonary fibrotic sequela": r"fibro|sequela|scar",
    "Emphysema": r"emphysem|bulla",
    "Pleural effusion": r"(pleura|hemithorax|effusion layers)(?!.*pericard)",
    "Pericardial effusion": r"pericardi",
    "Cardiomegaly": r"cardiomegaly|heart (size )?is \w+ (enlarged|increased)|cardiac (silhouette|enlargement)",
    "Lymphadenopathy": r"lymph",
    "Hiatal hernia": r"hernia",
    "Arterial wall calcification": r"(calcif|athero).*aort|aort.*(calcif|athero)",
    "Coronary artery wall calcification": r"coronary",
    "Medical material": r"pacemaker|\bport\b|wires|sternotomy|sternum|valve",
}
"""What a sentence about each abnormality must contain, and no other finding's sentence may."""


@pytest.fixture(scope="module")
def subjects() -> list[Subject]:
    return [draw_subject("wording", index, smallest_mm=18.0) for index in range(120)]


def stated(text: str) -> set[str]:
    """The abnormalities that a text states positively."""
    positive = [text[m.span[0] : m.span[1]] for m in find_mentions(text, load_region_table()) if not m.normal]
    return {name for name, words in WORDS.items() if any(re.search(words, part, re.IGNORECASE) for part in positive)}


def test_a_report_states_exactly_what_is_present(subjects: list[Subject]) -> None:
    for number, subject in enumerate(subjects):
        for variant in range(4):
            text = report(random_stream("report", number, variant), subject.patient, subject.findings)
            assert stated(text) == {finding.abnormality for finding in subject.findings}, text


def test_every_sentence_of_a_finding_names_its_abnormality_and_its_region(subjects: list[Subject]) -> None:
    table = load_region_table()
    for number, subject in enumerate(subjects):
        for finding in subject.findings:
            for variant in range(6):
                text = sentence(random_stream("sentence", number, variant), finding)
                (mention,) = find_mentions(text, table)
                assert set(finding.regions) <= mention.regions, text
                assert not mention.normal, text
                assert re.search(WORDS[finding.abnormality], text, re.IGNORECASE), text
                assert not re.search(r"[{}]|\bnone\b|\ba [aeiou]", text), text
                assert text[0].isupper()
                for region in finding.regions:
                    assert LOBE_NAMES.get(region, "") in text.casefold()


def test_sides_are_the_true_ones(subjects: list[Subject]) -> None:
    for number, subject in enumerate(subjects):
        for finding in subject.findings:
            text = sentence(random_stream("sides", number), finding).casefold()
            if finding.abnormality == "Pleural effusion":
                assert finding.side in text
                assert {"left": "right", "right": "left"}[finding.side] not in text


def test_normal_statements_are_normal_and_on_different_subjects(subjects: list[Subject]) -> None:
    for number, subject in enumerate(subjects):
        statements = normal_statements(random_stream("normal", number), subject.findings)
        assert 2 <= len(statements) <= 5
        assert len(statements) == len(set(statements))
        for text in statements:
            assert all(mention.normal for mention in find_mentions(text, load_region_table())), text


def test_reports_are_short_and_vary(subjects: list[Subject]) -> None:
    texts = [report(random_stream("length", i), s.patient, s.findings) for i, s in enumerate(subjects)]
    assert max(len(text.split()) for text in texts) < 110
    assert sorted(len(text.split()) for text in texts)[len(texts) * 95 // 100] < 100
    assert len(set(texts)) == len(texts)


def test_every_finding_has_at_least_five_phrasings(subjects: list[Subject]) -> None:
    for forms in phrases()["findings"].values():
        for sentences in forms.values():
            assert len(set(sentences)) >= 5
    assert set(phrases()["findings"]) == {kind.abnormality for kind in KINDS}
    for subject in subjects:
        assert all(templates(finding) for finding in subject.findings)


def test_traits_are_true(subjects: list[Subject]) -> None:
    for number, subject in enumerate(subjects):
        text = " ".join(trait_statements(random_stream("traits", number), subject.patient))
        assert ("without contrast" in text) == (not subject.patient.enhanced)
        assert ("breasts" in text) == (subject.patient.sex == "female")


def test_questions_vary_and_do_not_give_the_answer_away() -> None:
    questions = {question(random_stream("question", index)) for index in range(100)}
    assert len(questions) >= 5
    assert not any(stated(text) for text in questions)
