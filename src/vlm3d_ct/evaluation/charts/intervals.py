"""Estimates with their intervals: by class, and as curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vlm3d_ct.pages.style import (
    BLUE,
    GREY,
    Estimated,
    colour,
    finish,
    new_figure,
    plain,
    png_data_uri,
    say_empty,
)

ROW_INCHES = 0.22


def interval_bars(
    estimates: Mapping[str, Estimated],
    *,
    label: str,
    chance: Mapping[str, float] | float | None = None,
    limits: tuple[float, float] | None = (0.0, 1.0),
) -> str:
    """One row a class, in the order given: a point for the estimate, a line for its interval.

    Args:
        estimates: by the class's name; a class whose estimate is NaN keeps its row, with the word "undefined".
        label: what the axis measures, with its unit.
        chance: a grey line for all rows, or a grey mark in each row that has one.
        limits: ends of the axis; None lets the values decide.
    """
    figure = new_figure(8.2, 0.75 + ROW_INCHES * max(1, len(estimates)))
    axes = figure.subplots()
    rows = list(estimates.items())
    for place, (name, found) in enumerate(rows):
        if math.isnan(found.estimate):
            axes.annotate(
                "undefined", (0.01, place), xycoords=("axes fraction", "data"), fontsize=8, color=GREY, va="center"
            )
            continue
        if not (math.isnan(found.low) or math.isnan(found.high)):
            axes.hlines(place, found.low, found.high, color=BLUE, linewidth=1.6, alpha=0.55, clip_on=False)
        axes.plot([found.estimate], [place], "o", color=BLUE, markersize=4.5, clip_on=False, zorder=3)
        if isinstance(chance, Mapping) and not math.isnan(by_chance := chance.get(name, math.nan)):
            axes.plot([by_chance], [place], "|", color=GREY, markersize=9, markeredgewidth=1.4)
    if isinstance(chance, float) and not math.isnan(chance):
        axes.axvline(chance, color=GREY, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(rows)), [plain(name) for name, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    if limits is not None:
        axes.set_xlim(*limits)
    axes.set_xlabel(label)
    finish(axes)
    return png_data_uri(figure)


def interval_curves(
    curves: Mapping[str, Sequence[tuple[float, Estimated]]], *, x_label: str, y_label: str, log_x: bool = False
) -> str:
    """A line a series over x, with its interval as a band; points whose estimate is NaN are left out."""
    figure = new_figure(6.4, 3.2)
    axes = figure.subplots()
    places: set[float] = set()
    for number, (name, points) in enumerate(curves.items()):
        shown = sorted(((x, f) for x, f in points if not math.isnan(f.estimate)), key=lambda point: point[0])
        if not shown:
            continue
        at = [x for x, _ in shown]
        places |= set(at)
        axes.plot(at, [f.estimate for _, f in shown], "o-", color=colour(number), label=plain(name), markersize=4)
        axes.fill_between(
            at, [f.low for _, f in shown], [f.high for _, f in shown], color=colour(number), alpha=0.15, linewidth=0
        )
    if not places:
        say_empty(axes, "nothing could be measured")
    elif log_x:
        axes.set_xscale("log")
        axes.set_xticks(sorted(places), [f"{x:g}" for x in sorted(places)])
        axes.minorticks_off()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    finish(axes)
    return png_data_uri(figure)
