"""The page that evaluations and the audit write: sections of tables, facts, pictures and galleries in one HTML file.

    page = Page(
        title="Zero-shot classification",
        lead="Checkpoint best.pth on the pool all: 120 cases.",
        sections=(Section(title="Results", blocks=(Table(header=("", "AUROC"), rows=(("nodule", "0.71"),)),)),),
    )
    text = page.render()

What goes in is plain text, escaped by the template, and pictures as data URIs. What comes out has no script and no
address outside of itself, and a content security policy that would refuse both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined

_INTERVAL_CELL = re.compile(r"(.+?) (\(\S+ to \S+\).*)")
_PICTURE_URI = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/]+=*")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of figures under a header; the first column is left-aligned and names the row.

    A line break in a cell or in a name breaks the line there. In a table of more than three columns the interval of a
    cell like ``0.71 (0.65 to 0.77)`` stands below its estimate.

    Attributes:
        header: names of the columns.
        rows: as many cells each as the header; else ValueError.
        caption: stands above the table.
        muted: indices of rows shown in grey: chance, baselines.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    muted: frozenset[int] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"row {row!r} has {len(row)} cells, the header {len(self.header)}")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Pairs of name and value, such as a provenance; long values break anywhere."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture inside the page.

    Attributes:
        data_uri: ``data:image/png;base64,...`` or jpeg; anything else is a ValueError, so that no page points outside.
        alt: what it shows, for those who do not see it.
        caption: below the picture; on a card above it, as its label.
    """

    data_uri: str
    alt: str
    caption: str = ""

    def __post_init__(self) -> None:
        if not _PICTURE_URI.fullmatch(self.data_uri):
            raise ValueError(f"a picture must be a PNG or JPEG in a data URI, not {self.data_uri[:40]!r}")


@dataclass(frozen=True, kw_only=True)
class Prose:
    """A paragraph; ``soft`` ones are notes in small grey letters."""

    text: str
    soft: bool = False


@dataclass(frozen=True, kw_only=True)
class Card:
    """One case of a gallery.

    Attributes:
        title: mostly the case id.
        facts: short remarks beside the title, such as rank and similarity.
        pictures: side by side, each under its caption.
        texts: (label, text), side by side with the pictures.
        wrong: marks the card as a miss.
        texts_first: texts stand before the pictures.
    """

    title: str
    facts: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()
    wrong: bool = False
    texts_first: bool = False


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Cards under a common title."""

    cards: tuple[Card, ...]
    title: str = ""


Block = Table | Facts | Picture | Prose | Gallery


@dataclass(frozen=True, kw_only=True)
class Section:
    """Blocks under a heading; a section without blocks is not shown."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole report: its heading, a sentence or two on what was evaluated, and its sections."""

    title: str
    lead: str
    sections: tuple[Section, ...]

    def render(self) -> str:
        """The page as HTML; the same content gives the same text."""
        environment = Environment(
            loader=PackageLoader("vlm3d_ct.pages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        environment.filters["stacked"] = lambda cell: _INTERVAL_CELL.sub(r"\1\n\2", cell)
        environment.filters["kind"] = lambda block: type(block).__name__
        return environment.get_template("page.html").render(page=self)
