"""Sentences and names of findings: what is seen, where, how large, how severe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlm3d_ct.phantom.draw import Draw
from vlm3d_ct.phantom.findings.finding import LOBE_NAMES, SEVERITIES, Finding, Severity
from vlm3d_ct.phantom.phrasebook import FindingPhrases

CENTIMETRE_SHARE, SMALL_CENTIMETRE_SHARE = 0.5, 0.15
"""Share of the sizes that are given in cm, and of those below 10 mm."""
SMALL_MM = 10.0
LAST_RIGHT_LOBE = 3


def phrases_of(draw: Draw, finding: Finding) -> FindingPhrases:
    """The phrases for the finding's abnormality and form."""
    return draw.book.of(finding.abnormality, finding.form)


def state(draw: Draw, findings: Sequence[Finding]) -> str:
    """One sentence that states findings of one abnormality with their places.

    Args:
        draw: the random choices.
        findings: one, or several that share their phrases, in the order of their regions.
    """
    phrases = phrases_of(draw, findings[0])
    wordings = phrases.of(draw.hard)
    template = draw.one(wordings.stating if len(findings) == 1 else wordings.several)
    if not template.endswith("."):
        frame = draw.variant(draw.book.frames["plain" if _is_complete(phrases, template) else "located"])
        plural = template not in wordings.one
        template = frame.replace("{noun}", template).replace("{is}", "are" if plural else "is")
    return draw.sentence(template, _slots(draw, findings), _severity(findings))


def brief(draw: Draw, finding: Finding) -> str:
    """The finding's name with its place, in lower case."""
    template = draw.one(phrases_of(draw, finding).of(draw.hard).brief)
    return draw.fill(template, _slots(draw, [finding]), finding.severity)


def named(draw: Draw, finding: Finding) -> str:
    """The finding's name with article and place, in lower case."""
    phrases = phrases_of(draw, finding)
    wordings = phrases.of(draw.hard)
    noun = draw.one([noun for noun in wordings.one or wordings.many if "{likely}" not in noun])
    template = noun if _is_complete(phrases, noun) else f"{noun} in {{place}}"
    return draw.fill(template, _slots(draw, [finding]), finding.severity)


def looks(draw: Draw, finding: Finding) -> str:
    """How the finding appears on a slice, in lower case."""
    template = draw.one(phrases_of(draw, finding).of(draw.hard).looks)
    return draw.fill(template, _slots(draw, [finding]), finding.severity)


def joined(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def _is_complete(phrases: FindingPhrases, noun: str) -> bool:
    """Whether the noun names its place itself."""
    return phrases.place is None or any(slot in noun for slot in ("{place}", "{side}", "{form}"))


def _severity(findings: Sequence[Finding]) -> Severity:
    """The highest of the findings' severities."""
    return max((finding.severity for finding in findings), key=SEVERITIES.index)


def _slots(draw: Draw, findings: Sequence[Finding]) -> dict[str, str]:
    first, phrases = findings[0], phrases_of(draw, findings[0])
    place, plural = _place(draw, findings, phrases)
    sizes = _sizes(draw, [finding.size_mm for finding in findings])
    largest = max(range(len(findings)), key=lambda index: findings[index].size_mm)
    items = [draw.fill(phrases.item, {"side": f.side}, f.severity) for f in findings] if phrases.item else [""]
    return {
        "place": place,
        "place_is": "are" if plural else "is",
        "shows": "show" if plural else "shows",
        "contains": "contain" if plural else "contains",
        "size": sizes[0],
        "sizes": joined(sizes),
        "largest": sizes[largest],
        "items": joined(items),
        "side": first.side,
        "form": first.form,
    }


def _sizes(draw: Draw, sizes_mm: Sequence[float]) -> list[str]:
    """The sizes in one unit, in whole millimetres or tenths of a centimetre."""
    share = SMALL_CENTIMETRE_SHARE if min(sizes_mm) < SMALL_MM else CENTIMETRE_SHARE
    space = "" if draw.hard else " "
    if draw.rng.random() < share:
        return [f"{round(size) / 10:.1f}{space}cm" for size in sizes_mm]
    return [f"{round(size)}{space}mm" for size in sizes_mm]


def _place(draw: Draw, findings: Sequence[Finding], phrases: FindingPhrases) -> tuple[str, bool]:
    """Where the findings are, with article, and whether these are several places."""
    if phrases.place is None:
        return "", False
    if phrases.place == "lobes":
        lobes = sorted({region for finding in findings for region in finding.regions if region in LOBE_NAMES})
        return name_lobes(draw, lobes) if lobes else _named(draw, draw.book.regions[str(findings[0].regions[0])])
    places = []
    for finding in findings:
        template = phrases.places["hard" if draw.hard else "usual"].get(finding.form, phrases.place)
        places.append(draw.fill(template, {"side": finding.side, "form": finding.form}))
    places = list(dict.fromkeys(places))
    return joined(places), len(places) > 1


def name_lobes(draw: Draw, lobes: Sequence[int]) -> tuple[str, bool]:
    """Lobes in ascending order by name, with article, and whether the name is a plural."""
    together = draw.book.lobes.get(" ".join(map(str, lobes)))
    if together:
        return _named(draw, together)
    right, left = (
        [lobe for lobe in lobes if lobe <= LAST_RIGHT_LOBE],
        [lobe for lobe in lobes if lobe > LAST_RIGHT_LOBE],
    )
    if right and left:
        return joined([name_lobes(draw, right)[0], name_lobes(draw, left)[0]]), True
    return _lobe(draw, lobes[0]), False


def _lobe(draw: Draw, lobe: int) -> str:
    side, level, _ = LOBE_NAMES[lobe].split(" ")
    short = f"{side[0]}{level[0]}L".upper()
    return draw.fill(draw.variant(draw.book.lobe), {"side": side, "level": level, "short": short})


def _named(draw: Draw, names: Mapping[str, tuple[str, ...]]) -> tuple[str, bool]:
    """One of the names of a place that is singular or plural."""
    number = "many" if "many" in names else "one"
    return draw.one(names[number]), number == "many"
