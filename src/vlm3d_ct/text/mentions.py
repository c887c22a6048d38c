"""Finds which regions each sentence of a report speaks of. Negated findings mention their region, too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from vlm3d_ct.text.lobes import LobeMention, find_lobes
from vlm3d_ct.text.normality import states_only_normality
from vlm3d_ct.text.regions import PhraseGroup, RegionTable
from vlm3d_ct.text.sentences import REMEMBERED_SENTENCES, split_sentences


@dataclass(frozen=True, kw_only=True)
class SentenceMentions:
    """What one sentence speaks of.

    Attributes:
        span: (start, end) of the sentence in the text, in characters.
        regions: ids of the regions that it mentions; may be empty.
        named: those of them that its own words name; the others are implied by a finding.
        normal: whether it states only normality or absence.
    """

    span: tuple[int, int]
    regions: frozenset[int]
    named: frozenset[int]
    normal: bool


@dataclass(frozen=True)
class _Matcher:
    """One pattern with a capturing group per phrase, and what each of these groups speaks of."""

    pattern: re.Pattern[str]
    entries: tuple[PhraseGroup, ...]

    def find(self, sentence: str) -> Iterator[tuple[int, PhraseGroup]]:
        """Where a phrase begins, and its entry; matches do not overlap."""
        for match in self.pattern.finditer(sentence):
            if match.lastindex:
                yield match.start(), self.entries[match.lastindex - 1]


def find_mentions(text: str, table: RegionTable) -> tuple[SentenceMentions, ...]:
    """The sentences of ``text`` in order, each with the regions that it mentions.

    Sentences are judged one by one: "It measures 12 mm." mentions nothing.
    """
    mentions = []
    for start, end in split_sentences(text):
        regions, named, normal = _analyse(text[start:end], table)
        mentions.append(SentenceMentions(span=(start, end), regions=regions, named=named, normal=normal))
    return tuple(mentions)


@lru_cache(maxsize=REMEMBERED_SENTENCES)
def _analyse(sentence: str, table: RegionTable) -> tuple[frozenset[int], frozenset[int], bool]:
    lobes = find_lobes(sentence, table)
    regions = {number for mention in lobes for number in mention.regions}
    implied = []
    for entry in _phrases(sentence, table, lobes):
        if entry.unless:
            implied.append(entry)
        else:
            regions.update(entry.regions)
    explicit = frozenset(regions)
    for entry in implied:
        if entry.unless != "any" and explicit.isdisjoint(entry.unless):
            regions.update(entry.regions)
    if not regions:
        regions.update(number for entry in implied if entry.unless == "any" for number in entry.regions)
    return frozenset(regions), explicit, states_only_normality(sentence)


def _phrases(sentence: str, table: RegionTable, lobes: list[LobeMention]) -> list[PhraseGroup]:
    """The entries whose phrases occur in the sentence, without those that begin inside words about lobes."""
    words, abbreviations = _matchers(table)
    found = [entry for _, entry in abbreviations.find(sentence)]
    for start, entry in words.find(sentence.lower()):
        if not any(lobe.start <= start < lobe.end for lobe in lobes):
            found.append(entry)
    return found


@lru_cache(maxsize=8)
def _matchers(table: RegionTable) -> tuple[_Matcher, _Matcher]:
    """The table's phrases for lower-case text, and its abbreviations for text as it is."""
    entries = [PhraseGroup(regions=(r.id,), synonyms=r.synonyms) for r in table.regions if r.synonyms]
    phrases = [(phrase, entry) for entry in (*entries, *table.groups) for phrase in entry.synonyms]
    words = [(phrase.lower(), entry) for phrase, entry in phrases if not phrase.isupper()]
    return _compile(words), _compile([(phrase, entry) for phrase, entry in phrases if phrase.isupper()])


def _compile(phrases: list[tuple[str, PhraseGroup]]) -> _Matcher:
    """Alternatives that share their first letter's branch, which makes the search fast; the longest come first."""
    phrases = sorted(phrases, key=lambda pair: (pair[0][0], -len(pair[0]), pair[0]))
    branches: dict[str, list[str]] = {}
    for phrase, _ in phrases:
        branches.setdefault(phrase[0], []).append(f"({_phrase_pattern(phrase)[1:]})")
    pattern = "|".join(f"{letter}(?:{'|'.join(branch)})" for letter, branch in branches.items())
    return _Matcher(re.compile(rf"\b(?:{pattern})\b" if pattern else r"(?!)"), tuple(entry for _, entry in phrases))


def _phrase_pattern(phrase: str) -> str:
    """The regular expression of a phrase in the notation of ``regions.yaml``."""
    words = [rf"{word[:-1]}\w*" if word.endswith("*") else word for word in phrase.split(" ")]
    body = r"[\s/-]+".join(words).replace("#", r"\d{1,2}")
    return body if phrase.endswith("*") or phrase.isupper() else f"{body}(?:e?s)?"
