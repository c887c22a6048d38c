"""The phrase tables of the folder ``phrases``, read once: ways to say what a report, a question or a step says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from vlm3d_ct.phantom.findings.finding import SEVERITIES


@dataclass(frozen=True)
class Variants:
    """Ways to say one thing: those of training and validation, and those kept for the hard test set."""

    usual: tuple[str, ...]
    hard: tuple[str, ...]

    def of(self, hard: bool) -> tuple[str, ...]:
        """The ways of the hard set, or the usual ones."""
        return self.hard if hard else self.usual


@dataclass(frozen=True)
class Wordings:
    """Templates for a finding.

    Attributes:
        one, many: nouns in the singular and in the plural.
        whole: sentences.
        several: plural nouns, and sentences, for several findings at once.
        brief: short names with their place, for a summary.
        looks: how it appears on a slice.
    """

    one: tuple[str, ...] = ()
    many: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    several: tuple[str, ...] = ()
    brief: tuple[str, ...] = ()
    looks: tuple[str, ...] = ()

    @property
    def stating(self) -> tuple[str, ...]:
        """The templates that a sentence about one finding is made from."""
        return self.one + self.many + self.whole


@dataclass(frozen=True)
class FindingPhrases:
    """What a report says of one abnormality in one form.

    Attributes:
        section: the part of the report in which it stands.
        place: ``lobes``, a template that names its place, or None where the nouns name it themselves.
        places: names of the place by form where `place` does not fit, usual and hard ones.
        item: what one of several findings adds to a list; may be empty.
        usual, hard: the templates.
    """

    section: str
    place: str | None
    places: Mapping[str, Mapping[str, str]]
    item: str
    usual: Wordings
    hard: Wordings

    def of(self, hard: bool) -> Wordings:
        """The templates of the hard set, or the usual ones."""
        return self.hard if hard else self.usual


@dataclass(frozen=True)
class Normality:
    """A statement of normality or absence.

    Attributes:
        section: the part of the report in which it stands.
        absent: abnormalities none of which may be present.
        about: what it speaks of.
        said: sentences, or nouns for what is absent.
        negated: whether `said` are nouns.
    """

    section: str
    absent: frozenset[str]
    about: frozenset[str]
    said: Variants
    negated: bool


@dataclass(frozen=True)
class Phrasebook:
    """All tables; see the files of the folder ``phrases`` for the notation."""

    findings: Mapping[tuple[str, str], FindingPhrases]
    frames: Mapping[str, Variants]
    words: Mapping[str, Variants]
    severities: Mapping[str, Mapping[str, Variants]]
    lobe: Variants
    lobes: Mapping[str, Mapping[str, tuple[str, ...]]]
    regions: Mapping[str, Mapping[str, tuple[str, ...]]]
    negatives: Variants
    normal: tuple[Normality, ...]
    clear: Variants
    traits: Mapping[str, tuple[str, Variants]]
    questions: Variants
    headings: Variants
    findings_heading: str
    steps: Mapping[str, Variants]
    entities: Mapping[int, str]

    def of(self, abnormality: str, form: str) -> FindingPhrases:
        """The phrases for a finding; those of the empty form serve forms that are places.

        Raises:
            KeyError: nothing is known about the abnormality in this form.
        """
        found = self.findings.get((abnormality, form)) or self.findings.get((abnormality, ""))
        if found is None:
            raise KeyError(f"no phrases for {abnormality!r} in the form {form!r}")
        return found


@cache
def phrasebook() -> Phrasebook:
    """The tables that ship with the package."""
    folder = files("vlm3d_ct.phantom").joinpath("phrases")
    tables: dict[str, Any] = {"words": {}, "findings": {}}
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        loaded = yaml.safe_load(entry.read_text("utf-8"))
        for name in ("words", "findings"):
            tables[name] |= loaded.pop(name, {})
        tables |= loaded
    return Phrasebook(
        findings={
            (abnormality, form): _finding_phrases(content)
            for abnormality, forms in tables["findings"].items()
            for form, content in forms.items()
        },
        frames={name: _variants(tables[name]) for name in ("located", "plain")},
        words={name: _variants(content) for name, content in tables["words"].items()},
        severities={
            name: {s: Variants(tuple(by["usual"][s]), tuple(by["hard"][s])) for s in SEVERITIES}
            for name, by in tables["severities"].items()
        },
        lobe=_variants(tables["lobe"]),
        lobes=_tuples(tables["lobes"]),
        regions=_tuples(tables["regions"]),
        negatives=_variants(tables["negatives"]),
        normal=(
            *(_normality(entry, negated=True) for entry in tables["things"]),
            *(_normality(entry, negated=False) for entry in tables["statements"]),
        ),
        clear=_variants(tables["clear"]),
        traits={name: (content["section"], _variants(content)) for name, content in tables["traits"].items()},
        questions=_variants(tables["questions"]),
        headings=_variants(tables["headings"]),
        findings_heading=tables["findings_heading"],
        steps={name: _variants(content) for name, content in tables["steps"].items()},
        entities=tables["entities"],
    )


def _variants(content: Mapping[str, Any]) -> Variants:
    return Variants(tuple(content["usual"]), tuple(content["hard"]))


def _tuples(content: Mapping[str, Mapping[str, list[str]]]) -> dict[str, dict[str, tuple[str, ...]]]:
    return {name: {number: tuple(names) for number, names in by.items()} for name, by in content.items()}


def _wordings(content: Mapping[str, Any]) -> Wordings:
    return Wordings(**{part.name: tuple(content[part.name]) for part in fields(Wordings) if part.name in content})


def _finding_phrases(content: Mapping[str, Any]) -> FindingPhrases:
    return FindingPhrases(
        section=content["section"],
        place=content.get("place"),
        places=content.get("places", {"usual": {}, "hard": {}}),
        item=content.get("item", ""),
        usual=_wordings(content),
        hard=_wordings(content["hard"]),
    )


def _normality(entry: Mapping[str, Any], *, negated: bool) -> Normality:
    absent = frozenset(entry["absent"])
    return Normality(
        section=entry["section"],
        absent=absent,
        about=frozenset(entry.get("about", ())) | absent,
        said=_variants(entry),
        negated=negated,
    )
