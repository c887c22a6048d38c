"""Charts of a data folder: histograms of numbers, and bars of named counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from vlm3d_ct.pages.style import BLUE, finish, new_figure, plain, png_data_uri

COLUMNS = 3
MAX_BINS = 30


def histograms(series: Sequence[tuple[str, Sequence[int | float]]]) -> str:
    """A small histogram of each (title, values); the height is the number of cases."""
    rows = -(-len(series) // COLUMNS)
    figure = new_figure(9.2, 2.2 * rows)
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for place in range(rows * COLUMNS):
        axes = grid[place // COLUMNS, place % COLUMNS]
        if place >= len(series):
            axes.set_axis_off()
            continue
        title, values = series[place]
        axes.hist(np.asarray(values, dtype=np.float64), bins=_bins(values), color=BLUE)
        axes.set_title(plain(title))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        finish(axes)
    return png_data_uri(figure)


def bars(names: Sequence[str], values: Sequence[int | float], *, label: str) -> str:
    """Horizontal bars, the first name at the top."""
    figure = new_figure(7.0, 0.5 + 0.24 * len(names))
    axes = figure.subplots()
    places = np.arange(len(names))[::-1]
    axes.barh(places, values, color=BLUE, height=0.7)
    axes.set_yticks(places, [plain(name) for name in names])
    axes.set_xlabel(label)
    finish(axes)
    axes.tick_params(axis="y", labelsize=8, length=0)
    return png_data_uri(figure)


def _bins(values: Sequence[int | float]) -> int:
    """As many as the square root of the number of values, within 5..30."""
    return int(np.clip(np.sqrt(len(values)), 5, MAX_BINS))
