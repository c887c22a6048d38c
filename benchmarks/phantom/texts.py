"""How many of the cohort's texts are distinct."""

from __future__ import annotations

from functools import partial

from phantom.cases import map_cases
from vlm3d_ct.phantom.cohort import SMALLEST_LESION_MM
from vlm3d_ct.phantom.scan import draw_subject
from vlm3d_ct.phantom.wording import write_report
from vlm3d_ct.seeding import random_stream

LIMIT = 0.995


def distinct_share(seed: int, count: int) -> float:
    """Share of distinct reports, by their letters in lower case, among ``count`` patients."""
    texts = map_cases(partial(_report, seed), range(1, count + 1), "Texts")
    return len({text.casefold() for text in texts}) / len(texts)


def _report(seed: int, index: int) -> str:
    subject = draw_subject(seed, index, smallest_mm=SMALLEST_LESION_MM["small"])
    stream = random_stream(seed, index, "report")
    return write_report(stream, subject.patient, subject.findings, hard=False).answer
