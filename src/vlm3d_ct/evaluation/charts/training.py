"""Curves of a training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes

from vlm3d_ct.evaluation.metrics_log import Kind, MetricsLog
from vlm3d_ct.pages.style import BLUE, GREY, ORANGE, finish, new_figure, png_data_uri, say_empty

MAX_POINTS = 1500


def training_curves(log: MetricsLog) -> str:
    """Loss (nats) with its parts, learning rate, and validation R@5 of both directions, over the epochs of a stage."""
    figure = new_figure(9.6, 2.7)
    loss, rate, recall = figure.subplots(1, 3)
    loss.set_title("Training loss (nats)")
    rate.set_title("Learning rate")
    recall.set_title("Validation R@5 (%)")
    parts = (("loss", "total", BLUE), ("global_loss", "global", ORANGE), ("region_loss", "region", GREY))
    _plot_log(loss, log, "train", parts)
    _plot_log(rate, log, "train", (("lr", "", BLUE),))
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    series = (("image_to_text/R@5", "volume → report", BLUE), ("text_to_image/R@5", "report → volume", ORANGE))
    _plot_log(recall, log, "validation", series)
    recall.set_ylim(bottom=0)
    return png_data_uri(figure)


def _plot_log(axes: Axes, log: MetricsLog, kind: Kind, curves: Sequence[tuple[str, str, str]]) -> None:
    any_points = False
    marker = "" if kind == "train" else "o"
    for metric, label, colour in curves:
        epochs, values = log.series(kind, metric)
        if not len(epochs):
            continue
        any_points = True
        if kind == "train":
            epochs, values = thin(epochs), thin(values)
        else:
            values = 100 * values
        axes.plot(epochs, values, color=colour, label=label, linewidth=1.3, marker=marker, markersize=3)
    if not any_points:
        say_empty(axes, "not logged")
    axes.set_xlabel("epoch")
    finish(axes)


def thin(values: Float64[np.ndarray, " s"]) -> Float64[np.ndarray, " t"]:
    """At most 1,500 values: means of equal runs of them; what is over at the end is a shorter run."""
    run = -(-len(values) // MAX_POINTS)
    if run <= 1:
        return values
    starts = np.arange(0, len(values), run)
    sums: Float64[np.ndarray, " t"] = np.add.reduceat(values, starts)
    return sums / np.diff(np.append(starts, len(values)))
