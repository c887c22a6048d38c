"""The goals of the comparison, judged from the runs that are there."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

from scipy.stats import t as student

from learning.records import LEAST_AUROC, WAYS, Record
from learning.variants import FULL, PLAIN

LEAST_SEEDS = 3
"""That have an interval: that of two is nine times as wide as they are apart."""
Found = Mapping[str, Sequence[Record]]
"""Records by variant."""


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the 95 % interval by Student's t; NaN for fewer than `LEAST_SEEDS` values."""
    if len(values) < LEAST_SEEDS:
        return statistics.fmean(values), float("nan")
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return statistics.fmean(values), float(half)


def goals(found: Found) -> Iterator[tuple[str, str, str]]:
    """(what, the figure that was reached, ``reached``, ``missed`` or ``not measured``)."""
    for words in WAYS.values():
        yield _judge(f"R@5 {words} at least 60 %", found, f"R@5 {words}", lambda value: value >= 60)
    yield _judge("zero-shot macro AUROC at least 0.85", found, "AUROC", lambda value: value >= 0.85)
    yield _judge(f"findings with an AUROC below {LEAST_AUROC}: none", found, "findings below", lambda value: value == 0)
    yield _judge("region alignment, true masks, at least 80 %", found, "alignment, true masks", lambda v: v >= 80)
    for name, least in (("R@5", 15.0), ("AUROC", 0.05)):
        yield _against_plain(found, name, least)
    differences = (
        ("R@5 lost without masks at most 5 points", " without masks", lambda lost: lost <= 5),
        ("R@5 lost on the hard set at most 15 points", " hard", lambda lost: lost <= 15),
        ("R@5 won by fine-tuning at least 5 points", " before fine-tuning", lambda won: won >= 5),
    )
    for what, suffix, holds in differences:
        yield _difference(what, found, suffix, holds)


def mean_recall(record: Record, suffix: str = "") -> float:
    """R@5, the mean of both ways."""
    return statistics.fmean(record.figures[f"R@5 {words}{suffix}"] for words in WAYS.values())


def _judge(what: str, found: Found, name: str, holds: Callable[[float], bool]) -> tuple[str, str, str]:
    values = [record.figures[name] for record in found.get(FULL, ())]
    if not values:
        return what, "", "not measured"
    mean, half = interval(values)
    return what, show(mean, half), "reached" if holds(mean) else "missed"


def _difference(what: str, found: Found, suffix: str, holds: Callable[[float], bool]) -> tuple[str, str, str]:
    """How far R@5 of the finished model, with masks and on the easy set, lies above another one."""
    differences = [mean_recall(record) - mean_recall(record, suffix) for record in found.get(FULL, ())]
    if not differences:
        return what, "", "not measured"
    mean, half = interval(differences)
    return what, f"{mean:+.1f}" + ("" if half != half else f" ± {half:.1f}"), "reached" if holds(mean) else "missed"


def _against_plain(found: Found, name: str, least: float) -> tuple[str, str, str]:
    what = f"{name} of the full design over the plain CLIP at least {least:g}, intervals apart"
    get = mean_recall if name == "R@5" else _auroc
    sides = [[get(record) for record in found.get(variant, ())] for variant in (FULL, PLAIN)]
    if not all(sides):
        return what, "", "not measured"
    (full, full_half), (plain, plain_half) = (interval(values) for values in sides)
    shown = f"{full - plain:+.3f}" if name == "AUROC" else f"{full - plain:+.1f}"
    if full - plain < least:
        return what, shown, "missed"
    if full_half != full_half or plain_half != plain_half:
        return what, shown, "not measured: fewer than three seeds have no interval"
    return what, shown, "reached" if full - full_half > plain + plain_half else "missed: the intervals overlap"


def _auroc(record: Record) -> float:
    return record.figures["AUROC"]


def show(mean: float, half: float) -> str:
    """A figure with half its interval."""
    digits = 3 if abs(mean) < 1 else 1
    return f"{mean:.{digits}f}" + ("" if half != half else f" ± {half:.{digits}f}")
