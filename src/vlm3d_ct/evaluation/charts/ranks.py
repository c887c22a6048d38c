"""The histogram of ranks of a retrieval."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from vlm3d_ct.pages.style import BLUE, GREY, ORANGE, finish, new_figure, png_data_uri

NUM_RANK_BINS = 24
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000)


def rank_histogram(
    volume_to_text: Int64[np.ndarray, " n"], text_to_volume: Int64[np.ndarray, " n"], *, one_right_item: bool = True
) -> str:
    """Number of cases by rank of the right item (1 is best), both directions, in bins that widen with the rank.

    With ``one_right_item`` (every query has exactly one) a random order of the pool is drawn beside them.
    """
    size = max(1, len(volume_to_text))
    figure = new_figure(9.6, 2.7)
    axes = figure.subplots()
    edges = np.unique(np.round(np.geomspace(1, size + 1, NUM_RANK_BINS + 1)))
    for ranks, title, colour, alpha in (
        (volume_to_text, "volume → report", BLUE, 0.45),
        (text_to_volume, "report → volume", ORANGE, 1.0),
    ):
        counts, _ = np.histogram(ranks, bins=edges)
        axes.stairs(counts, edges, color=colour, label=title, fill=alpha < 1, alpha=alpha)
    if one_right_item:
        axes.stairs(np.diff(edges), edges, color=GREY, linestyle="--", label="random order")
    axes.set_xscale("log")
    axes.set_xlim(1, size + 1)
    ticks = [tick for tick in TICKS if tick <= size]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("rank of the right item (1 is best)")
    axes.set_ylabel("cases")
    finish(axes)
    return png_data_uri(figure)
