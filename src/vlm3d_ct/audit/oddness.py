"""Which cases are unlike the others, and in what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from vlm3d_ct.audit.facts import CaseFacts

MIN_CASES = 8
"""Of fewer cases none can be called odd."""
ODD_FROM = 3.5
"""Robust z-scores from here on are odd (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993)."""
_MAD_TO_SD = 1.4826


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One number of a case.

    Attributes:
        name: for people.
        shown: how it is written.
        value: what cases are compared by; ratios matter for lengths and counts, so these are logarithms.
        floor: the least spread that is believed; what all cases share to the last digit has none.
    """

    name: str
    shown: Callable[[CaseFacts], str]
    value: Callable[[CaseFacts], float]
    floor: float


@dataclass(frozen=True, kw_only=True)
class Odd:
    """A case that is unlike the others.

    Attributes:
        facts: its facts.
        score: the largest of its robust z-scores.
        reasons: what is odd about it, the oddest first.
    """

    facts: CaseFacts
    score: float
    reasons: tuple[str, ...]


def _spacing(axis: int) -> Callable[[CaseFacts], float]:
    return lambda facts: 0.0 if facts.spacing_mm is None else facts.spacing_mm[axis]


_COMMON = (
    Feature(name="slices", shown=lambda f: f"{f.shape[0]}", value=lambda f: log(f.shape[0]), floor=0.1),
    Feature(name="columns", shown=lambda f: f"{f.shape[2]}", value=lambda f: log(f.shape[2]), floor=0.1),
    Feature(name="words", shown=lambda f: f"{f.num_words}", value=lambda f: log(1 + f.num_words), floor=0.2),
    Feature(name="air", shown=lambda f: f"{100 * f.air_share:.0f} %", value=lambda f: f.air_share, floor=0.02),
    Feature(name="body", shown=lambda f: f"{100 * f.body_share:.0f} %", value=lambda f: f.body_share, floor=0.02),
)
_VOLUME = (
    *_COMMON,
    Feature(
        name="slice spacing",
        shown=lambda f: f"{_spacing(0)(f):.2f} mm",
        value=lambda f: log(_spacing(0)(f)),
        floor=0.05,
    ),
    Feature(
        name="pixel spacing",
        shown=lambda f: f"{_spacing(2)(f):.2f} mm",
        value=lambda f: log(_spacing(2)(f)),
        floor=0.05,
    ),
    Feature(
        name="HU, 1st percentile",
        shown=lambda f: f"{f.percentiles[0]:.0f}",
        value=lambda f: f.percentiles[0],
        floor=20.0,
    ),
    Feature(
        name="HU, 50th percentile",
        shown=lambda f: f"{f.percentiles[1]:.0f}",
        value=lambda f: f.percentiles[1],
        floor=50.0,
    ),
    Feature(
        name="HU, 99th percentile",
        shown=lambda f: f"{f.percentiles[2]:.0f}",
        value=lambda f: f.percentiles[2],
        floor=50.0,
    ),
    Feature(name="lung", shown=lambda f: f"{f.lung_ml:.0f} ml", value=lambda f: log(1 + f.lung_ml), floor=0.1),
)
FEATURES = {"volume": _VOLUME, "slice": _COMMON}


def oddest(cases: Sequence[CaseFacts], count: int) -> list[Odd]:
    """At most ``count`` odd cases, the oddest first; volumes are compared with volumes, slices with slices."""
    found: list[Odd] = []
    for kind, features in FEATURES.items():
        same = [facts for facts in cases if facts.kind == kind]
        if len(same) < MIN_CASES:
            continue
        values = np.array([[feature.value(facts) for feature in features] for facts in same])
        middles = np.median(values, axis=0)
        scores = robust_z(values, np.array([feature.floor for feature in features]))
        for facts, own, row in zip(same, values, scores, strict=True):
            odd = [place for place in np.argsort(-np.abs(row), kind="stable") if abs(row[place]) >= ODD_FROM]
            if odd:
                reasons = tuple(
                    f"{features[p].name} {features[p].shown(facts)}, {'more' if own[p] > middles[p] else 'less'} than "
                    f"usual (z = {row[p]:+.1f})"
                    for p in odd
                )
                found.append(Odd(facts=facts, score=float(np.abs(row).max()), reasons=reasons))
    return sorted(found, key=lambda odd: (-odd.score, odd.facts.case_id))[:count]


def robust_z(values: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """(value - median) / spread of each column; the spread is 1.4826 times the median absolute deviation, or the floor.

    The factor makes it the standard deviation where values are normally distributed.
    """
    centred = values - np.median(values, axis=0)
    spread = np.maximum(_MAD_TO_SD * np.median(np.abs(centred), axis=0), floors)
    scores: np.ndarray = centred / spread
    return scores
