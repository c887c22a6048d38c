"""The opposite of a sentence: what is stated is denied, what is denied is stated."""

from __future__ import annotations

import re

_LONGEST = 400
"""Characters of a sentence that is tried; longer ones are no single statement."""
_HEADING = re.compile(r"^(?:[A-Za-z]+:|[Ii]n (?:summary|conclusion|short),|[Oo]verall,)\s*")
_SEVERAL = re.compile(r";|\b(?:but|however|although|though|while|whereas|except)\b", re.IGNORECASE)
_ALREADY = (
    (re.compile(r"\bcan ?not\b", re.IGNORECASE), "can"),
    (re.compile(r"\bnegative\s+for\b", re.IGNORECASE), "positive for"),
    (re.compile(r"\bfree\s+of\b", re.IGNORECASE), "with"),
    (re.compile(r"\bwithout\s+(?:any\s+)?", re.IGNORECASE), "with "),
    (re.compile(r"\b(?:no|not|never)\s+(?:any\s+)?", re.IGNORECASE), ""),
    (re.compile(r"\babsent\b", re.IGNORECASE), "present"),
    (re.compile(r"\bunremarkable\b", re.IGNORECASE), "remarkable"),
)
"""Words that deny, and what stands in their place in the opposite; the first that occurs is taken."""
_NEITHER, _NOR = re.compile(r"\bneither\b", re.IGNORECASE), re.compile(r"\bnor\b", re.IGNORECASE)
_THERE_IS = re.compile(r"^(there\s+(?:is|are|was|were)\s+)(?:(?:an?|some)\s+)?", re.IGNORECASE)
_SHOWS = re.compile(
    r"\b((?:shows?|contains?|reveals?|demonstrates?|has|have)\s+)(?!been\b|\w+ed\b)(?:(?:an?|some)\s+)?", re.IGNORECASE
)
_IS = re.compile(r"\b(is|are|was|were|has|have)\b", re.IGNORECASE)
_SEEN = re.compile(
    r"\b(?:is|are|was|were|(?:has|have)\s+been)\s+(?:\w+ly\s+)?(?:seen|noted|noticed|observed|found|present|detected|"
    r"identified|visible|visuali[sz]ed|demonstrated|evident|apparent)\b",
    re.IGNORECASE,
)
_PLACE_FIRST = re.compile(r"^(?:in|at|on|along|within)\s", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the|some)\s+", re.IGNORECASE)


def opposite(sentence: str) -> str | None:
    """``sentence`` with its statement turned round; None where that cannot be done by its form.

    "No pleural effusion is seen." becomes "Pleural effusion is seen.", "The heart is enlarged." becomes "The heart is
    not enlarged.", "There is a nodule." becomes "There is no nodule." A rule over forms, not a parser: the result is
    meant for an encoder to tell from its origin, and need not be elegant. Sentences of several clauses and sentences
    of over 400 characters have none.
    """
    heading = _HEADING.match(sentence)
    start = heading.end() if heading else 0
    statement = sentence[start:].strip()
    if not statement.strip(".!? ") or len(statement) > _LONGEST or _SEVERAL.search(statement):
        return None
    return sentence[:start] + _capital(_stated(statement) or _denied(statement))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _stated(statement: str) -> str | None:
    """What a denial denies, as a statement; None for what is no denial."""
    if _NEITHER.search(statement):
        return _NOR.sub("or", _NEITHER.sub("either", statement))
    for words, instead in _ALREADY:
        turned, count = words.subn(instead, statement, count=1)
        if count:
            return turned
    return None


def _denied(statement: str) -> str:
    """The denial of a statement."""
    for words in (_THERE_IS, _SHOWS):
        turned, count = words.subn(r"\1no ", statement, count=1)
        if count:
            return turned
    # both forms are common; by the length of the sentence, so that a sentence always has the same opposite
    verb = _IS.search(statement)
    if verb and (_PLACE_FIRST.match(statement) or not _SEEN.search(statement) or len(statement) % 2 == 0):
        return f"{statement[: verb.end()]} not{statement[verb.end() :]}"
    rest = _ARTICLE.sub("", statement)
    return "No " + (rest if rest[1:2].isupper() else rest[:1].lower() + rest[1:])
