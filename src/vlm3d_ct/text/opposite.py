"""The opposite of a sentence: what is stated is denied, what is denied is stated."""

from __future__ import annotations

import re
from functools import lru_cache

from vlm3d_ct.text.sentences import REMEMBERED_SENTENCES

_LONGEST = 400
"""Characters of a sentence that is tried; longer ones are no single statement."""
_HEADING = re.compile(
    r"^(?:\d+[.)]\s*)?(?:[A-Za-z/]+(?:\s[A-Za-z/]+){0,4}:|[Ii]n (?:summary|conclusion|short),|[Oo]verall,"
    r"|When examined in [^;:,]+[;:,])?\s*"
)
_SEVERAL = re.compile(
    r""";|\b(?: but | however | although | though | while | whereas | except | which | unless | if | because
      | otherwise | may | might | could | rule[ds]?\s+out | excluded | evaluat(?:ed|ion) | limited\s+by | status\s+post
      | no\s+(?:more|less|larger|greater|smaller)\s+than )\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""Of several clauses, of doubt, of a bound, or of how well something can be judged."""
_NO_SUBJECT = re.compile(r"^(?:it|they|this|these|that|those|no\.?\s*\d)\b", re.IGNORECASE)
"""What the sentence speaks of stands in another one; or "no" is a number."""
_NO = r"\b(?:no|not|never)\s+(?:any\s+)?"
_ALREADY = tuple(
    (re.compile(words, re.IGNORECASE), instead)
    for words, instead in (
        (r"\b(?:can ?not|can['\u2019]t)\b", "can"),
        (r"(?<=\w)n['\u2019]t\b", ""),
        (r"\bno\s+longer\b", "still"),
        (r"\bnothing\b", "something"),
        (r"\bnone\s+of\b", "some of"),
        (r"\bnone\b", "present"),
        (r"\b(?:absence|lack)\s+of\b", "presence of"),
        (r"\bnegative\s+for\b", "positive for"),
        (r"\bfree\s+of\b", "with"),
        (r"\bwithout\s+(?:any\s+)?(?!(?:\w+\s+){0,2}contrast\b)", "with "),
        (_NO, ""),
        (r"\babsent\b", "present"),
        (r"\bunremarkable\b", "remarkable"),
    )
)
"""Words that deny, and what stands in their place in the opposite; the first of the list that occurs is taken."""
_ABSENCES = re.compile(r"^(?:there\s+(?:is|are|was|were)\s+)?no\s", re.IGNORECASE)
"""How a sentence begins that lists what is absent: each "no" of it is turned."""
_NEITHER, _NOR = re.compile(r"\bneither\b", re.IGNORECASE), re.compile(r"\bnor\b", re.IGNORECASE)
_THERE_IS = re.compile(
    r"^(there\s+(?:is|are|was|were)\s+)(?:(?:also|only|still|likely|probably)\s+)?(?:(?:an?|some|the)\s+)?", re.I
)
_SHOWS = re.compile(
    r"\b((?:shows?|contains?|reveals?|demonstrates?|(?:has|have)(?=\s+(?:an?|some)\s))\s+)(?:(?:an?|some)\s+)?",
    re.IGNORECASE,
)
_IS = re.compile(r"\b(is|are|was|were|has|have|appears?|remains?)\b", re.IGNORECASE)
_VERBLESS = re.compile(
    r"(?<=\w)\s+(?=(?:normal|midline|patent|clear|intact|within\s+normal\s+limits)[.\s]*$)", re.IGNORECASE
)
_SEEN = re.compile(
    r"\b(?:is|are|was|were|(?:has|have)\s+been)\s+(?:\w+ly\s+)?(?:seen|noted|noticed|observed|found|present|detected|"
    r"identified|visible|visuali[sz]ed|demonstrated|evident|apparent)\b",
    re.IGNORECASE,
)
_PLACE_FIRST = re.compile(r"^(?:in|at|on|along|within)\s", re.IGNORECASE)
_STATE = re.compile(r"^(?:normal|clear|open|patent|intact|natural|preserved)\b", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the|some)\s+", re.IGNORECASE)


@lru_cache(maxsize=REMEMBERED_SENTENCES)
def opposite(sentence: str) -> str | None:
    """``sentence`` with its statement turned round; None where that cannot be done by its form.

    "No pleural effusion is seen." becomes "Pleural effusion is seen.", "The heart is enlarged." becomes "The heart is
    not enlarged.", "There is a nodule." becomes "There is no nodule." A rule over forms, not a parser: the result is
    meant for an encoder to tell from its origin, and need not be elegant. Sentences of several clauses, of doubt, and
    of over 400 characters have none.
    """
    heading = _HEADING.match(sentence)
    start = heading.end() if heading else 0
    statement = sentence[start:].strip()
    if not statement.strip(".!? ") or len(statement) > _LONGEST:
        return None
    if _SEVERAL.search(statement) or _NO_SUBJECT.search(statement):
        return None
    return sentence[:start] + _capital(_stated(statement) or _denied(statement))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _stated(statement: str) -> str | None:
    """What a denial denies, as a statement; None for what is no denial."""
    if _NEITHER.search(statement):
        return _NOR.sub("or", _NEITHER.sub("either", statement))
    for words, instead in _ALREADY:
        turned, count = words.subn(instead, statement, count=0 if _ABSENCES.match(statement) else 1)
        if count:
            return _NOR.sub("or", turned)
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
    turned, count = _VERBLESS.subn(" not ", statement, count=1)
    if count and not verb:
        return turned
    rest = _ARTICLE.sub("", statement)
    return ("Not " if _STATE.match(rest) else "No ") + (rest if rest[1:2].isupper() else rest[:1].lower() + rest[1:])
