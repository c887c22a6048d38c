"""Splits report text into sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

REMEMBERED_SENTENCES = 65_536
"""Sentences whose analysis is kept, as reports repeat theirs: most of a cohort's are found again."""
_ABBREVIATIONS = frozenset(
    (
        *("dr", "mr", "mrs", "ms", "prof", "st", "vs", "cf", "ca", "approx", "resp", "incl", "excl"),
        *("e.g", "i.e", "a.m", "p.m", "fig", "figs", "al", "rt", "lt"),
    )
)
LONGEST_ABBREVIATION = max(map(len, _ABBREVIATIONS))

_BOUNDARY = re.compile(
    r"""
    (?P<stop>(?<![.!?])[.!?]+["')\]]*)           # the end of a sentence: before white space or the end of the text,
    (?:(?=\s|\Z)|(?<=[a-z)]\.)(?=[A-Z][a-z]))    # or where the space was forgotten: "effusion.The"
    | \n[ \t]*(?=\r?\n)                          # an empty line
    | \n(?=[ \t]*(?:[-*\u2022\u2013]\s|\d+[.)]\s|[A-Z0-9(]))   # a line that begins a list item or a sentence
    """,
    re.VERBOSE,
)
_LIST_NUMBER = re.compile(r"\s*(?:[-*\u2022\u2013]\s*)?\(?\d+\Z")
_LAST_WORD = re.compile(r"[\w.]+\Z")


def split_sentences(text: str) -> tuple[tuple[int, int], ...]:
    """Spans (start, end) of the sentences in ``text``, in order, without the white space around them.

    A sentence ends at ``.``, ``!`` or ``?`` before white space, at an empty line, and at a line break before a list
    item, a capital or a digit. Decimals, abbreviations, single letters ("L. lung") and list numbers end nothing.
    Every character that is not white space lies in exactly one sentence.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _BOUNDARY.finditer(text):
        stop = match["stop"]
        if stop == "." and _belongs_to_word(text[start : match.start()]):
            continue
        end = match.end("stop") if stop else match.start()
        _append(spans, text, start, end)
        start = end
    _append(spans, text, start, len(text))
    return tuple(spans)


def join_texts(texts: Sequence[str]) -> str:
    """The texts as one, each a sentence or more of its own: where a stop is missing, an empty line stands for it."""
    joined = "".join(texts[:1])
    for previous, following in pairwise(texts):
        ends = {end for _, end in split_sentences(f"{previous} {following}")}
        joined += (" " if len(previous) in ends else "\n\n") + following
    return joined


def _belongs_to_word(before: str) -> bool:
    """Whether a full stop after ``before`` belongs to an abbreviation or a list number, not to the sentence."""
    if not before.strip() or _LIST_NUMBER.match(before):
        return True
    word = _LAST_WORD.search(before[-LONGEST_ABBREVIATION - 1 :])
    return word is not None and (word[0].casefold() in _ABBREVIATIONS or _is_initial(word[0]))


def _is_initial(word: str) -> bool:
    return len(word) == 1 and word.isalpha() and word.isupper()


def _append(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    if left < len(piece):
        spans.append((start + left, start + len(piece.rstrip())))
