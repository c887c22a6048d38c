"""Curves of training and the histogram of ranks, as pictures for a page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vlm3d_ct.evaluation.metrics_log import MetricsLog
from vlm3d_ct.evaluation.pictures import DPI, png_data_uri
from vlm3d_ct.evaluation.retrieval import RetrievalResult

BLUE, ORANGE, GREY = "#1f5a8c", "#c2651b", "#8a8f98"
NUM_RANK_BINS = 24
MAX_POINTS = 1500
VOLUME_TO_REPORT, REPORT_TO_VOLUME = "volume → report", "report → volume"


def training_curves(log: MetricsLog) -> str:
    """Loss (nats) with its parts, learning rate, and validation R@5 of both directions, over the epochs of a stage."""
    figure = Figure(figsize=(9.6, 2.7), dpi=DPI, layout="constrained")
    loss, rate, recall = figure.subplots(1, 3)
    loss.set_title("Training loss (nats)")
    rate.set_title("Learning rate")
    recall.set_title("Validation R@5 (%)")
    _plot_log(
        loss,
        log,
        "train",
        (("loss", "total", BLUE), ("global_loss", "global", ORANGE), ("region_loss", "region", GREY)),
    )
    _plot_log(rate, log, "train", (("lr", "", BLUE),))
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    series = (("image_to_text/R@5", VOLUME_TO_REPORT, BLUE), ("text_to_image/R@5", REPORT_TO_VOLUME, ORANGE))
    _plot_log(recall, log, "validation", series)
    return png_data_uri(figure)


def rank_histogram(result: RetrievalResult) -> str:
    """Number of cases by rank of the right item, both directions, against a random order of the pool."""
    figure = Figure(figsize=(9.6, 2.7), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    edges = np.unique(np.round(np.geomspace(1, result.size + 1, NUM_RANK_BINS + 1)))
    for ranks, title, colour in (
        (result.image_to_text_ranks, VOLUME_TO_REPORT, BLUE),
        (result.text_to_image_ranks, REPORT_TO_VOLUME, ORANGE),
    ):
        counts, _ = np.histogram(ranks, bins=edges)
        axes.stairs(
            counts, edges, color=colour, label=title, fill=colour == BLUE, alpha=0.45 if colour == BLUE else 1.0
        )
    if result.duplicates == "own":
        axes.stairs(np.diff(edges), edges, color=GREY, linestyle="--", label="random order")
    axes.set_xscale("log")
    axes.set_xlim(1, result.size + 1)
    ticks = [
        tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000) if tick <= result.size
    ]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("rank of the right item (1 is best)")
    axes.set_ylabel("cases")
    _finish(axes)
    return png_data_uri(figure)


def _plot_log(axes: Axes, log: MetricsLog, kind: str, curves: Sequence[tuple[str, str, str]]) -> None:
    any_points = False
    for metric, label, colour in curves:
        epochs, values = log.series("train" if kind == "train" else "validation", metric)
        if not len(epochs):
            continue
        any_points = True
        if kind == "train":
            epochs, values = thin(epochs), thin(values)
        else:
            values = 100 * values
        axes.plot(
            epochs,
            values,
            color=colour,
            label=label,
            linewidth=1.3,
            marker="o" if kind != "train" else "",
            markersize=3,
        )
    if not any_points:
        axes.text(0.5, 0.5, "not logged", transform=axes.transAxes, ha="center", color=GREY)
    axes.set_xlabel("epoch")
    _finish(axes)


def thin(values: Float64[np.ndarray, " s"]) -> Float64[np.ndarray, " t"]:
    """At most 1,500 values: means of equal runs of them; what is over at the end is a shorter run."""
    run = -(-len(values) // MAX_POINTS)
    if run <= 1:
        return values
    starts = np.arange(0, len(values), run)
    sums: Float64[np.ndarray, " t"] = np.add.reduceat(values, starts)
    return sums / np.diff(np.append(starts, len(values)))


def _finish(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#e6e8eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, color=GREY)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_fontsize(9)
    handles, labels = axes.get_legend_handles_labels()
    if any(labels):
        axes.legend(handles, labels, fontsize=8, frameon=False)
