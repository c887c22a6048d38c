"""The reliability diagram."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from vlm3d_ct.pages.style import BLUE, GREY, finish, new_figure, png_data_uri, say_empty


def reliability_diagram(
    mean_probability: Float64[np.ndarray, " bins"],
    share_positive: Float64[np.ndarray, " bins"],
    count: Int64[np.ndarray, " bins"],
) -> str:
    """Share of positives against the mean probability of each bin, and how many probabilities fell into it.

    Bins without any (count 0; NaN elsewhere) are left out. On the dashed line the probabilities mean what they say.
    """
    figure = new_figure(4.6, 4.4)
    curve, counts = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    filled = (count > 0) & np.isfinite(mean_probability) & np.isfinite(share_positive)
    curve.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1, label="calibrated")
    if filled.any():
        curve.plot(mean_probability[filled], share_positive[filled], "o-", color=BLUE, markersize=4, label="measured")
        counts.bar(mean_probability[filled], count[filled], width=0.03, color=BLUE, alpha=0.55)
        counts.set_yscale("symlog", linthresh=1)
    else:
        say_empty(curve, "no probabilities")
    curve.set_ylabel("share of positives")
    curve.set_xlim(0, 1)
    curve.set_ylim(0, 1)
    counts.set_xlabel("predicted probability")
    counts.set_ylabel("count")
    finish(curve)
    finish(counts)
    return png_data_uri(figure)
