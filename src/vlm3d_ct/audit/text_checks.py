"""Texts that can be read and still say nothing, are damaged, or stand there twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from vlm3d_ct.data.case import Case
from vlm3d_ct.errors import Problem
from vlm3d_ct.volumes.faults import problem

REPLACEMENT = "\ufffd"
"""What stands where bytes could not be decoded."""
MIN_LETTERS = 3


def check_texts(case: Case) -> Iterator[Problem]:
    """What is wrong with a case's texts; values are counts, never the text, so that no report gets into a log."""
    image = case.image_paths[0]
    for number, report in enumerate(case.reports, 1):
        letters = sum(character.isalpha() for character in report.answer)
        if letters < MIN_LETTERS:
            message, remedy = "The text holds no words.", "Write the text, or remove its record."
            yield problem("empty-answer", image, f"text {number}", f"{letters} letters", message, remedy)
        damaged = (report.question + report.answer).count(REPLACEMENT)
        if damaged:
            message = "Characters of the text were lost when it was decoded (U+FFFD)."
            remedy = "Write the record again as UTF-8 from its source."
            yield problem("text-encoding", image, f"text {number}", f"{damaged} characters", message, remedy)
    copies = sum(count - 1 for count in Counter((r.question, r.answer) for r in case.reports).values())
    if copies:
        message = "The same question and answer stand there more than once."
        yield problem("duplicate-text", image, "texts", f"{copies} copies", message, "Keep one record of each.")
