"""The text that belongs to a scan: a question, an answer, and reasoning steps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Step:
    """One reasoning step and the anatomical entities that its record names (possibly none)."""

    text: str
    entities: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was asked about a scan and what was answered.

    Attributes:
        question: may be empty (slices come without one).
        answer: the findings; for step-by-step records the steps joined. Never empty.
        steps: the reasoning steps, empty where the record has none.
    """

    question: str
    answer: str
    steps: tuple[Step, ...] = ()
