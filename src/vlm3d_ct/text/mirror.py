"""Swaps the sides in a text, for left-right mirrored scans."""

from __future__ import annotations

import re

from vlm3d_ct.text.mentions import find_mentions
from vlm3d_ct.text.regions import RegionTable
from vlm3d_ct.text.report import Report, Step

_PAIRS = (("right", "left"), ("Right", "Left"), ("RIGHT", "LEFT"), ("rt", "lt"), ("Rt", "Lt"), ("RT", "LT"))
_ABBREVIATIONS = (("RUL", "LUL"), ("RLL", "LLL"))
_SWAP = {
    word: other for pair in (*_PAIRS, *_ABBREVIATIONS) for word, other in (pair, pair[::-1])
}  # its own inverse, so that mirroring twice gives the text back
_SIDED = re.compile(
    r"\b(?:right|left|Right|Left|RIGHT|LEFT)(?=(?i:sided|wards?|most)?\b)"
    r"|\b(?:rt|lt|Rt|Lt|RT|LT|RUL|LUL|RLL|LLL)\b"
)
# Content that has no mirror image in words: what only one side has, sides in letters, and parts of the heart and the
# liver, whose "left" and "right" name the part and not the side of the body.
_ONE_SIDED = re.compile(
    r"""\b(?: RML | lingul\w* | (?:middle|mid)[\s-](?:lobe|zone|field|lung)\w* | (?:horizontal|minor)\s+fissure\w*
      | (?:right|left)(?:[\s-]sided)?\s+(?:atri|ventric|heart|coronary|main\s+coronary|anterior\s+descending|circumflex
          |hepatic|liver|lobe\s+of\s+(?:the\s+)?liver)\w*
      | LAD | LCX | LMCA | RCA | LVH | RVH | LV | RV | dextro\w+ | levo\w+ | situs
      | upper,?\s+middle | middle\s+(?:and|or)\s+(?:lower|upper) )\b
      | (?<![\w.-])(?<!\d\s)(?-i:[RL])(?![\w-])""",
    re.VERBOSE | re.IGNORECASE,
)


def mirror_text(text: str) -> str:
    """``text`` with right and left swapped, also in abbreviations and compounds, the case preserved.

    Its own inverse. Whether the result is true of the mirrored scan is for `can_mirror` to say.
    """
    return _SIDED.sub(lambda match: _SWAP[match[0]], text)


def mirror_report(report: Report, table: RegionTable) -> Report:
    """`mirror_text` of all that a report says, without entities that have no mirror image."""
    steps = []
    for step in report.steps:
        entities = tuple(mirror_text(entity) for entity in step.entities if can_mirror(entity, table))
        steps.append(Step(text=mirror_text(step.text), entities=entities))
    return Report(question=mirror_text(report.question), answer=mirror_text(report.answer), steps=tuple(steps))


def can_mirror(text: str, table: RegionTable) -> bool:
    """Whether `mirror_text` gives a text that is true of the left-right mirrored scan.

    False where the text names what only one side has (the right middle lobe, the lingula, a chamber of the heart, a
    lobe of the liver), or where a sentence would not mention the mirror regions of those that it mentions now. "Right
    lung" may become "left lung": a region without partner counts in neither.
    """
    if _ONE_SIDED.search(text):
        return False
    lookup = table.mirror_lookup()
    unpaired = {region.id for region in table.regions if region.side != "none" and region.mirror is None}
    before, after = find_mentions(text, table), find_mentions(mirror_text(text), table)
    return len(before) == len(after) and all(
        {int(lookup[number]) for number in one.regions - unpaired} == other.regions - unpaired
        for one, other in zip(before, after, strict=True)
    )
