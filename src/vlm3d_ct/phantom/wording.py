"""Texts of phantom scans: the truth in a radiologist's words, with variety and with normal statements between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlm3d_ct.phantom.clauses import brief, joined, phrases_of, state
from vlm3d_ct.phantom.draw import Draw, polish
from vlm3d_ct.phantom.findings.finding import SEVERITIES, Finding
from vlm3d_ct.phantom.patient import Patient
from vlm3d_ct.phantom.statements import Statement, clear_statement, normal_statements, trait_statements

SPARSE_SHARE = 0.12
"""Share of the reports that have one or two sentences only."""
SECOND_SHARE = 0.6
"""Share of the sparse reports on one thing that have a second sentence, on something else."""
IMPRESSION_SHARE = 0.3
"""Share of the other reports that end with a summary."""
HEADING_SHARE = 0.4
"""Share of the reports with a summary that have a heading before the findings, too."""
TRAIT_SHARE = 0.6
"""Share of the reports that mention a given trait of the patient where it holds."""
TOGETHER_SHARE = 0.6
"""Share of the findings of one kind that are stated in one sentence where that is possible."""
MOST_TOGETHER = 4
WORDS_MEAN, WORDS_SPREAD, WORDS_LEAST = 84.0, 20.0, 40.0
"""Length that is wanted of a report, whatever it reports: normal statements are added up to it."""
HARD_WORDS_MEAN = 44.0
"""The same in the hard set: words that a tokenizer has never seen take several tokens each."""
MOST_IN_IMPRESSION = 3
TECHNIQUE = "technique"
TECHNIQUE_FIRST_SHARE = 0.7


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """A report and where it states what.

    Attributes:
        question: what was asked.
        answer: the report.
        sentences: for each finding the sentence of the answer that states it; None where a sparse report does not.
    """

    question: str
    answer: str
    sentences: tuple[str | None, ...]


def write_report(
    rng: np.random.Generator, patient: Patient, findings: tuple[Finding, ...], *, hard: bool
) -> WrittenReport:
    """A report on the patient's scan: findings by region, normal statements, sometimes an impression.

    Args:
        rng: where the choices come from.
        patient: for the traits that are mentioned.
        findings: all of them are stated, but in sparse reports only the most severe ones.
        hard: whether to use the wording of the hard test set, which is never used otherwise.
    """
    draw = Draw(rng, hard)
    stated = _state_all(draw, findings)
    if rng.random() < SPARSE_SHARE:
        stated = _most_severe(draw, stated, findings)
        answer = _sparse(draw, patient, findings, stated)
    else:
        impression = _impression(draw, findings) if rng.random() < IMPRESSION_SHARE else ""
        answer = _arrange(draw, stated + _fillers(draw, patient, findings, stated, impression), impression)
    sentences: list[str | None] = [None] * len(findings)
    for statement in stated:
        for number in statement.findings:
            sentences[number] = statement.text
    return WrittenReport(question=write_question(rng, hard=hard), answer=answer, sentences=tuple(sentences))


def write_question(rng: np.random.Generator, *, hard: bool) -> str:
    """A random question about a chest CT."""
    draw = Draw(rng, hard)
    return draw.sentence(draw.variant(draw.book.questions), {})


def _state_all(draw: Draw, findings: tuple[Finding, ...]) -> list[Statement]:
    """A statement of each finding, or of several of a kind at once."""
    kinds: dict[int, list[int]] = {}
    for number, finding in enumerate(findings):
        kinds.setdefault(id(phrases_of(draw, finding)), []).append(number)
    batches: list[tuple[int, ...]] = []
    for numbers in kinds.values():
        places = {(findings[n].regions, findings[n].side, findings[n].form) for n in numbers}
        listable = 1 < len(numbers) <= MOST_TOGETHER and len(places) == len(numbers)
        together = listable and draw.rng.random() < TOGETHER_SHARE
        numbers.sort(key=lambda number: (findings[number].regions, findings[number].side != "right"))
        batches += [tuple(numbers)] if together else [(number,) for number in numbers]
    return [
        Statement(phrases_of(draw, findings[batch[0]]).section, state(draw, [findings[n] for n in batch]), batch)
        for batch in batches
    ]


def _most_severe(draw: Draw, stated: list[Statement], findings: tuple[Finding, ...]) -> list[Statement]:
    """The one or two statements of the most severe findings."""
    ranks = [max(_importance(findings[number]) for number in statement.findings) for statement in stated]
    order = sorted(range(len(stated)), key=lambda index: -ranks[index])
    return [stated[index] for index in order[: draw.rng.integers(1, 3)]]


def _sparse(draw: Draw, patient: Patient, findings: tuple[Finding, ...], stated: Sequence[Statement]) -> str:
    """One or two sentences: the statements, or one for a normal scan, and mostly another one where that is all."""
    texts = [statement.text for statement in stated] or [clear_statement(draw)]
    if len(texts) == 1 and (not findings or draw.rng.random() < SECOND_SHARE):
        more = [*trait_statements(draw, patient), next(normal_statements(draw, patient, findings))]
        texts.append(draw.one([statement.text for statement in more]))
    return " ".join(texts)


def _importance(finding: Finding) -> int:
    """Rank of a finding: by severity, those that came with another one below all others."""
    return SEVERITIES.index(finding.severity) - (len(SEVERITIES) if finding.companion else 0)


def _impression(draw: Draw, findings: tuple[Finding, ...]) -> str:
    """A sentence that summarises the most severe findings, one of each abnormality."""
    first = {finding.abnormality: finding for finding in sorted(findings, key=_importance)}
    main = sorted(first.values(), key=_importance, reverse=True)[:MOST_IN_IMPRESSION]
    if main:
        named = [brief(draw, finding) for finding in main]
        listed = joined(named) if draw.rng.random() < 0.5 else "; ".join(named)
    else:
        said = clear_statement(draw).removesuffix(".")
        listed = said[0].lower() + said[1:]
    heading, rest = draw.variant(draw.book.headings).split("{list}")
    if heading.rstrip().endswith(":"):
        listed = polish(listed)
    return polish(heading + listed + rest)


def _fillers(
    draw: Draw, patient: Patient, findings: tuple[Finding, ...], stated: Sequence[Statement], impression: str
) -> list[Statement]:
    """Traits and normal statements, at least one of these, up to a length that does not depend on the findings."""
    added = [statement for statement in trait_statements(draw, patient) if draw.rng.random() < TRAIT_SHARE]
    mean = HARD_WORDS_MEAN if draw.hard else WORDS_MEAN
    wanted = max(WORDS_LEAST, draw.rng.normal(mean, WORDS_SPREAD))
    words = sum(statement.words for statement in (*stated, *added)) + len(impression.split())
    for statement in normal_statements(draw, patient, findings):
        added.append(statement)
        words += statement.words
        if words >= wanted:
            break
    return added


def _arrange(draw: Draw, statements: list[Statement], impression: str) -> str:
    """The statements by section, the sections in random order; then the impression."""
    sections = list(dict.fromkeys(statement.section for statement in statements))
    draw.rng.shuffle(sections)
    first = draw.rng.random() < TECHNIQUE_FIRST_SHARE
    sections.sort(key=lambda section: section == TECHNIQUE, reverse=first)
    draw.rng.shuffle(statements)
    parts = [s.text for section in sections for s in statements if s.section == section]
    if impression:
        if draw.rng.random() < HEADING_SHARE:
            parts.insert(0, draw.book.findings_heading)
        parts.append(impression)
    return " ".join(parts)
