"""Prompt tables for zero-shot classification: shipped ones, templates for any class, and a user's own CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlm3d_ct.data.labels import read_csv, read_mapping
from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.evaluation.provenance import hash_json

TABLES = Path(__file__).with_name("tables")
LabelSet = Literal["ct_rate", "rad_chestct"]
COLUMNS = ("class", "wording", "positive", "negative")


@dataclass(frozen=True, kw_only=True)
class Wording:
    """One way to ask for a class: a sentence that holds where it is present, and one that holds where it is not."""

    name: str
    positive: str
    negative: str


@dataclass(frozen=True, kw_only=True)
class PromptTable:
    """How every class is asked for.

    Attributes:
        name: of the table.
        wordings: by class, in order; the first wording of a class is its main one, all of them make its ensemble.
    """

    name: str
    wordings: Mapping[str, tuple[Wording, ...]]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the table's order."""
        return tuple(self.wordings)

    @property
    def main(self) -> str:
        """Name of the main wording; ``first`` where it differs between classes."""
        names = {wordings[0].name for wordings in self.wordings.values()}
        return names.pop() if len(names) == 1 else "first"

    @property
    def identity(self) -> str:
        """A hash of all prompts: thresholds of other prompts mean nothing."""
        return hash_json([[name, [[w.positive, w.negative] for w in found]] for name, found in self.wordings.items()])

    def restrict(self, classes: Sequence[str]) -> PromptTable:
        """The same table with these classes only, in this order."""
        return PromptTable(name=self.name, wordings={name: self.wordings[name] for name in classes})


def shipped_prompts(label_set: LabelSet) -> PromptTable:
    """The prompts that come with the package."""
    return read_prompts(TABLES / f"prompts_{label_set}.csv", label_set)


def shipped_mapping(label_set: LabelSet) -> dict[str, tuple[str, ...]] | None:
    """The columns of a data set's label table that make each class; None where the columns are the classes."""
    return read_mapping(TABLES / "mapping_rad_chestct.csv") if label_set == "rad_chestct" else None


def prompts_for(classes: Sequence[str], name: str) -> PromptTable:
    """Prompts from the general templates for classes that have no table, such as the categories of slices."""
    templates = read_csv(TABLES / "templates.csv", COLUMNS[1:])
    return PromptTable(
        name=name,
        wordings={
            found: tuple(
                Wording(
                    name=row["wording"], positive=_fill(row["positive"], found), negative=_fill(row["negative"], found)
                )
                for row in templates
            )
            for found in classes
        },
    )


def read_prompts(path: Path, name: str | None = None) -> PromptTable:
    """Read a CSV with the columns ``class``, ``wording``, ``positive``, ``negative``; one row for each wording.

    ``wording`` names the way of asking (the same in all classes, or not); the first row of a class is its main wording.
    Lines that start with ``#`` are comments.

    Raises:
        DataError: it cannot be read, lacks a column or a cell, has no row, or names a wording twice in a class.
    """
    wordings: dict[str, list[Wording]] = {}
    for row in read_csv(path, COLUMNS):
        of_class = wordings.setdefault(row["class"], [])
        if row["wording"] in [known.name for known in of_class]:
            raise DataError(
                Problem(
                    code="prompts",
                    file=str(path),
                    field=f"class {row['class']}",
                    value=row["wording"],
                    message="The class has this wording twice.",
                    remedy="Give every wording of a class a name of its own.",
                )
            )
        of_class.append(Wording(name=row["wording"], positive=row["positive"], negative=row["negative"]))
    return PromptTable(name=name or path.stem, wordings={key: tuple(found) for key, found in wordings.items()})


def _fill(template: str, name: str) -> str:
    capital = name[:1].upper() + name[1:]
    return template.replace("{Name}", capital).replace("{name}", name[:1].lower() + name[1:])
