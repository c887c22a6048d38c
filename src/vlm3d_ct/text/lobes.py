"""Reads which pulmonary lobes a sentence speaks of.

Reports name lobes by side and level in many orders: "right upper and lower lobes", "both lower lobes", "lower lobe of
the left lung", "left lung upper lobe", "bases of both lungs". A chain of such words is read as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from vlm3d_ct.text.regions import RegionTable

_WORD = re.compile(
    r"""
      (?P<and>      (?: \b(?: and | or | as\s+well\s+as )\b | [,/&] ) )
    | \b (?:
      (?P<side>     [rl]t\.(?=\s)
                    | (?: right | left | rt | lt | both(?!\s+(?:the\s+)?(?:right|left)\b) | bilateral(?:ly)?
                      )(?:[\s-]?sided)?\b )
    | (?P<level>    (?: upper | middle | mid | lower | (?:superior|inferior)(?=\s+lobes?\b) )\b )
    | (?P<lobe>     (?: lobes? | lobar | lobectomy | (?:zone|field)s? )\b )
    | (?P<lung>     (?: lungs? | pneumonectomy )\b )
    | (?P<end>      (?: (?:bi-?)?apical | apex | apices | (?:bi-?)?bas(?:al|ilar) | bases? | apico-?posterior
                    | (?:(?:antero|postero|latero|medio)-?)+basal )\b )
    | (?P<lingula>  lingul(?: a | ar ) \b )
    | (?P<link>     (?: of | in ) \b )
    | (?P<filler>   (?: the | segments? | regions? | parts? | portions? | aspects? | levels? | anterior | posterior
                    | lateral | medial | superior | inferior )\b )
    )
    """,
    re.VERBOSE,
)
_NOUN = re.compile(r"lob|lung|pneumonectomy|lingul|zone|field|apical|apex|apico|apices|basal|basilar|bases?\b")
_SIDE_WORD = re.compile(r"\b(?:right|left|bilateral|both)\b")
_GAP = re.compile(r"[\s-]*")
_LEVELS = {"mid": "middle", "superior": "upper", "inferior": "lower"}
_SIDES = {"right": ("right",), "left": ("left",), "rt": ("right",), "lt": ("left",)}
BOTH = frozenset(("left", "right"))
_NEITHER: frozenset[str] = frozenset()


@dataclass(frozen=True)
class LobeMention:
    """A chain of words about lobes: its span in the lower-case sentence and the ids of the lobes."""

    start: int
    end: int
    regions: frozenset[int]


@dataclass
class _Part:
    """One lobe or lung inside a chain. ``open``: a following "of the right lung" decides its sides."""

    sides: frozenset[str]
    level: str
    open: bool
    vague: bool = False  # "the apex", "the base": of the lung only if something says so


@dataclass
class _Chain:
    """Reads one chain of words from left to right."""

    words: list[re.Match[str]]
    sides: frozenset[str] = _NEITHER
    inherited: bool = False  # the sides come from before the last noun
    pending: list[tuple[frozenset[str], bool, str]] = field(default_factory=list)
    parts: list[_Part] = field(default_factory=list)
    linked: bool = False  # an "of" or "in" follows the last noun
    after_side: bool = False  # nothing but "and" and articles since the last side
    previous: str = ""

    def read(self) -> list[_Part]:
        for index, word in enumerate(self.words):
            kind = word.lastgroup or ""
            text = word[0]
            if kind == "side":
                self._side(text)
            elif kind == "level":
                self.pending.append((self.sides, self.inherited, _LEVELS.get(text, text)))
            elif kind == "link":
                self.linked = self.previous != "and"
            elif kind == "and" and not self.after_side:
                self.linked = False
            elif kind == "lobe":
                self._close_pending(is_lobe=text.startswith("lob"))
            elif kind == "lung":
                self._lung(text, index)
            elif kind == "end":
                level = "upper" if "ap" in text else "lower"
                self._add(_Part(self.sides, level, self._is_open(), vague=text in ("apex", "base")))
            elif kind == "lingula":
                self._add(_Part(frozenset(("left",)), "upper", False))
            self.after_side = kind == "side" or (self.after_side and kind in ("and", "filler"))
            self.previous = kind
        return self.parts

    def _side(self, text: str) -> None:
        named = frozenset(_SIDES.get(re.split(r"[\s.-]", text)[0].removesuffix("sided"), BOTH))
        self.sides = self.sides | named if self.after_side else named
        self.inherited = False

    def _is_open(self) -> bool:
        return self.inherited or len(self.sides) != 1

    def _close_pending(self, *, is_lobe: bool) -> None:
        levels, self.pending = self.pending, []
        for sides, inherited, level in levels:
            if is_lobe and level == "middle" and (inherited or not sides):
                sides, inherited = frozenset(("right",)), False  # only the right lung has a middle lobe
            self._add(_Part(sides, level, inherited or len(sides) != 1))

    def _lung(self, text: str, index: int) -> None:
        kinds = (self.words[later].lastgroup for later in range(index + 1, len(self.words)))
        following = next((kind for kind in kinds if kind != "filler"), None)
        if self.pending:
            self._close_pending(is_lobe=False)
        elif self.linked and self.parts:
            self._decide_open_parts(self.sides or BOTH)
        elif following in ("level", "end", "lingula"):
            self.sides, self.inherited = self.sides or BOTH, False
            return
        elif (self.sides and not self.inherited) or text == "lungs":
            sides = self.sides if self.sides and not self.inherited else BOTH
            self._add(_Part(sides, "all", False))
        self.sides, self.inherited = _NEITHER, False

    def _add(self, part: _Part) -> None:
        if self.linked and part.sides and not self.inherited:
            self._decide_open_parts(part.sides)
        self.parts.append(part)
        self.linked = False
        self.inherited = bool(self.sides)

    def _decide_open_parts(self, sides: frozenset[str]) -> None:
        for part in self.parts:
            if part.open:
                part.sides, part.open, part.vague = sides, False, False
        self.linked = False


def find_lobes(sentence: str, table: RegionTable) -> list[LobeMention]:
    """The lobes that ``sentence`` names, one mention per chain of words; empty for a table without lobes.

    A lobe without side takes the side that the sentence names elsewhere; without any, it is both sides' (the middle
    lobe: the right one's). A level that a side lacks, as in "left mid zone", is that side's upper lobe.
    """
    lobes: dict[tuple[str, str], int] = {(r.side, r.lobe): r.id for r in table.regions if r.lobe}
    sentence = sentence.lower()
    if not lobes or not _NOUN.search(sentence):
        return []
    named = frozenset(side for word in _SIDE_WORD.findall(sentence) for side in _SIDES.get(word, BOTH))
    mentions = []
    for words in _chains(sentence):
        parts = [part for part in _Chain(words).read() if part.sides or not part.vague]
        ids = frozenset(number for part in parts for number in _ids(part, named or BOTH, lobes))
        if ids:
            mentions.append(LobeMention(words[0].start(), words[-1].end(), ids))
    return mentions


def _chains(sentence: str) -> Iterator[list[re.Match[str]]]:
    """Maximal runs of lobe words with nothing but white space and hyphens between them."""
    chain: list[re.Match[str]] = []
    for word in _WORD.finditer(sentence):
        if chain and not _GAP.fullmatch(sentence, chain[-1].end(), word.start()):
            yield chain
            chain = []
        chain.append(word)
    if chain:
        yield chain


def _ids(part: _Part, named: frozenset[str], lobes: dict[tuple[str, str], int]) -> Iterator[int]:
    for side in part.sides or named:
        if part.level == "all":
            yield from (number for (lobe_side, _), number in lobes.items() if lobe_side == side)
        else:
            number = lobes.get((side, part.level)) or lobes.get((side, "upper"))
            if number:
                yield number
