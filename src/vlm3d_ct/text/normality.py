"""Tells whether a sentence states only normality or absence."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Stems of what is abnormal where it is not negated: the first anywhere in a word, the others at its beginning. Only the
# absence of one of these is normality: "the left kidney is absent" is not.
_ABNORMAL = re.compile(
    r"""
      calcif | calcar | effusion | nodul | opaci | consolid | megal | emphysem | atelect | thick(?!ness)
    | adenopa | fractur
    | fibro | lithiasis | ectasi[sa] | ectatic | infiltr | pneumoni | pneumothora | metasta | carcino | embol | edema
    | ha?ematom | reticul | osteophyt | spondyl | scolio | sclero | steato | troph(?:y|ic)\b | plasia\b
    | hernias?\b | herniat | stones?\b | omas?\b | (?<!diagn)(?<!progn)osis\b | itis\b | dens(?:e|ity)\s+lesion
    | \b(?: abnormal | ground.?glass | mass(?:es)?\b | lesion | cyst | dilat | disten[dst] | enlarg | aneurysm
      | stenos | occlu | plaque | scar | sequel | pneumomedia | tumou?r | malign | thromb | ha?emorrh | bulla | bleb
      | (?<!pleural\s)(?<!thoracic\s)(?<!chest\s)cavit | honeycomb | mosaic | trapping | septal | bands?\b
      | degenerat | kypho | osteop | lytic | ascites | fluid
      | collection | catheter | pacemaker | stent | tubes?\b | device | prosthes | clips?\b | implant | surg | resect
      | atroph | deform | deviat | displac | narrow | obstruct | collaps | elevat | increas | decreas | reduc | loss
      | hypodens | hyperdens | heterogen | suspicio | patholog | anomal | variant | defect | impact | plug | crazy
      | tree.in.bud | inflamm | infect | abscess | adenoma | goit
      | disease
      | recurr | residu | persist | stable\b | unchanged | known | fullness | dissect | calcul | filling | pe\b
      | inva(?:d|s) | swelling | up\s+to\s+\d
      | limits?\s+of\s+normal | borderline | possib | probab | likely | questionabl | suspect | suggest | concern
      | (?:more|larger|greater)\s+than\s+\d
      | hydro(?:peri|thor|pneumo) | cicatri | strands?\b | hardware | liquid
      | destruct | destroy | lucenc | erosi | compress | shift | prominen
      | (?:small|large)\w*(?!\s+(?:bowel|airway|intestin|vessel)) | wide(?!ly) | big | bulky | full\b | tortuo | elongat
      | mild | slight | minimal | moderate | marked | severe | few\b | some\b | several | multiple
      | impair | poor | missing | fatty | deminerali[sz] | inhomogen | wedg | rotat | air\s+(?:in|within|along|under)\b
      | grafts?\b | wires?\b | ports?\b | tips?\b | (?:chest|pleural|pigtail)\s+drain | leads?\b | electrod
      | irregular | blunt | contus | injur | trauma | foreign | material )""",
    re.VERBOSE,
)
_NORMAL_WORD = r"""(?: normal(?:ly)? | unremarkable | clear | natural | preserved | patent | open | intact | midline
      | maintained | ordinary | well.aerated | smooth | regular | sharp | homogeneous
      | within\s+(?:the\s+)?(?:normal|physiologic\w*)\s+(?:limits?|ranges?) )\b"""
_NORMAL = re.compile(rf"\b{_NORMAL_WORD}", re.VERBOSE)
# Words that negate what follows them, up to the end of the clause.
_NEGATION = re.compile(r"\b(?:no|not|without|neither|nor|free\s+of|negative\s+for|absence\s+of|lack\s+of)\b")
# Their absence is normality, too, while their presence need not be abnormal.
_NODES = re.compile(r"\b(?:nodes?|findings?|la[dp])\b")
# Predicates that negate the whole clause: "pleural effusion was not detected". "Not enlarged" does not.
_SEEN = r"""(?: seen | detected | observed | identified | noted | noticed | present | evident | demonstrated
      | visuali[sz]ed | found | appreciated | encountered | distinguished )\b"""
_ABSENT = re.compile(
    rf"""\b(?: (?:not|never|no\s+longer)\s+(?:\w+\s+){{0,2}}?{_SEEN} | absent\b )""",
    re.VERBOSE,
)
# These look like normality and are not.
_DOUBT = re.compile(
    rf"""\b(?: not\s+(?:\w+\s+){{0,2}}?{_NORMAL_WORD}
      | (?:can\s?not|could\s+not)\b(?!\s+be\s+(?:\w+\s+)?{_SEEN})
      | (?:no|not|to|difficult)\b[^.;]{{0,60}}?\b(?:exclude|rule[ds]?\s+out)
      | (?:not|un)\s?certain | previous | earlier | former | before\b | surgically
      | altered\b | changed\b | \w+(?<!ana)tomy\b
      | except | save\s+for | apart\s+from | other\s+than | aside\s+from )""",
    re.VERBOSE,
)
# "No change in the nodule" speaks of a nodule, "without contrast" of nothing in the body.
_NEGATES_NOTHING = re.compile(
    r"\b(?:no|not|without)\s+(?:\w+\s+){0,2}?(?:(?:chang|progress|regress|differen|growth|improv|resol|small)\w*"
    r"|decrease[ds]?\b)"
    r"|\b(?:no|without|lack\s+of)\s+(?:\w+\s+){0,2}?contrast\b"
    r"|\bnot\s+(?:all|only|yet)\b"
)
_HARD_BREAK = re.compile(
    r"""[;:]
      | \b(?:but|however|although|though|despite|in\s+spite\s+of|whereas|while)\b
      | (?:,|\band\b)\s*(?=(?:there|mild(?:ly)?|moderate|severe|small|large|minimal|slight|minor|marked|multiple|several
          |few|some|a|an|it|with|no|neither|now)\b)""",
    re.VERBOSE,
)
_SOFT_BREAK = re.compile(r",|\band\b")
_VERB = re.compile(r"\b(?:is|are|was|were|has|have|shows?|did|does|do|(?:remain|persist|appear|contain|measure)s?)\b")
_EXISTS = re.compile(rf"\b(?:is|are|was|were)\s+{_SEEN}", re.VERBOSE)


def states_only_normality(sentence: str) -> bool:
    """Whether ``sentence`` states normality or absence and nothing abnormal.

    True for "No pleural effusion.", "The heart is unremarkable", "Lungs are clear"; False for a finding, for a mixture
    ("No effusion, but the heart is enlarged"), for unchanged findings, and for sentences that state neither.
    A rule of thumb over word lists, not a parser: it is meant for grouping texts that say the same.
    """
    sentence = sentence.lower()
    if _DOUBT.search(sentence):
        return False
    any_statement = False
    for clause in _clauses(_NEGATES_NOTHING.sub(" ", sentence)):
        start = 0 if _ABSENT.search(clause) else _start_of_negation(clause)
        asserted, absent = clause[:start], clause[start:]
        if _ABNORMAL.search(asserted):
            return False
        any_statement = any_statement or bool(
            _NORMAL.search(asserted) or _ABNORMAL.search(absent) or _NODES.search(absent)
        )
    return any_statement


def _start_of_negation(clause: str) -> int:
    negation = _NEGATION.search(clause)
    return negation.start() if negation else len(clause)


def _clauses(sentence: str) -> Iterator[str]:
    """Parts of a sentence that each have a statement of their own; lists of subjects and objects stay together."""
    for section in _HARD_BREAK.split(sentence):
        pieces: list[str] = []
        for piece in _SOFT_BREAK.split(section):
            if _VERB.search(piece) and _is_complete(",".join(pieces), piece):
                yield ",".join(pieces)
                pieces = []
            pieces.append(piece)
        yield ",".join(pieces)


def _is_complete(clause: str, following: str) -> bool:
    """Whether ``clause`` has its statement, so that ``following``, which has a verb, begins another one."""
    if _VERB.search(clause):
        return True
    return bool(_NEGATION.search(clause)) and not _EXISTS.search(following)
