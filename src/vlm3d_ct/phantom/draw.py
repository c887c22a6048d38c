"""Random wording: one of the ways to say a thing, its slots filled."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vlm3d_ct.phantom.phrasebook import Phrasebook, Variants, phrasebook

_SLOT = re.compile(r"\{(\w+)\}")
_ALTERNATIVES = re.compile(r"\(([^()]*\|[^()]*)\)")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou]|8|11\b|18\b)")
_BEFORE_MARK = re.compile(r",?\s*(?=[,.:;])")


@dataclass(frozen=True)
class Draw:
    """Random choices for one text.

    Attributes:
        rng: where they come from.
        hard: whether the wording is that of the hard test set.
    """

    rng: np.random.Generator
    hard: bool
    book: Phrasebook = field(default_factory=phrasebook)

    def one(self, choices: Sequence[str]) -> str:
        """One of the choices."""
        return choices[int(self.rng.integers(len(choices)))]

    def variant(self, variants: Variants) -> str:
        """One way of the share that this text uses."""
        return self.one(variants.of(self.hard))

    def fill(self, template: str, slots: Mapping[str, str], severity: str = "moderate") -> str:
        """The template with its slots filled and one of each alternatives chosen; not yet polished.

        A name that is no slot is one of the words of the tables, by the severity where it depends on it.

        Raises:
            KeyError: the template has a name that is neither.
        """

        text = template
        while "{" in text:
            text = _SLOT.sub(lambda match: self._value(match[1], slots, severity), text)
        return _ALTERNATIVES.sub(lambda match: self.one(match[1].split("|")), text)

    def _value(self, name: str, slots: Mapping[str, str], severity: str) -> str:
        if name in slots:
            return slots[name]
        if name in self.book.words:
            return self.variant(self.book.words[name])
        return self.variant(self.book.severities[name][severity])

    def sentence(self, template: str, slots: Mapping[str, str], severity: str = "moderate") -> str:
        """A filled template as a sentence."""
        return polish(self.fill(template, slots, severity))


def polish(text: str) -> str:
    """The text with single spaces, "an" before a vowel sound, one mark where two meet, and a capital in front."""
    text = " ".join(text.split())
    text = _BEFORE_MARK.sub("", text)
    text = _ARTICLE.sub(r"\1n ", text)
    return text[0].upper() + text[1:]
