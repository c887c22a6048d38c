"""The look that all charts share, and the way from a figure to a data URI."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

DPI = 100
BLUE, ORANGE, GREY, LIGHT = "#1f5a8c", "#c2651b", "#8a8f98", "#e6e8eb"
SERIES_COLOURS = (BLUE, ORANGE, "#3c8d5a", "#8a4f9e", GREY, "#b03a5b")
"""Colours of series in their order; they repeat."""


@runtime_checkable
class Estimated(Protocol):
    """An estimate with the ends of its interval, such as `metrics.bootstrap.Interval`; NaN where undefined."""

    @property
    def estimate(self) -> float:
        """The value."""

    @property
    def low(self) -> float:
        """The lower end."""

    @property
    def high(self) -> float:
        """The upper end."""


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """An empty figure at the charts' resolution, without any display."""
    return Figure(figsize=(width_inches, height_inches), dpi=DPI, layout="constrained")


def png_data_uri(figure: Figure, *, mode: Literal["RGB", "L"] = "RGB") -> str:
    """The figure as ``data:image/png;base64,...``, in colour or (a third of the bytes) in grey."""
    drawn, file = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    with Image.open(drawn) as picture:
        picture.convert(mode).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def finish(axes: Axes) -> None:
    """Grid, small letters, and a legend where anything is labelled."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color=LIGHT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, color=GREY)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_fontsize(9)
    handles, labels = axes.get_legend_handles_labels()
    if any(labels):
        axes.legend(handles, labels, fontsize=8, frameon=False)


def say_empty(axes: Axes, text: str) -> None:
    """Grey words in the middle of axes that have nothing to show."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=9)


def colour(index: int, colours: Sequence[str] = SERIES_COLOURS) -> str:
    """Colour of the series ``index``."""
    return colours[index % len(colours)]


def plain(text: str) -> str:
    """Text that matplotlib draws as it is: a dollar sign would start a formula, a line break another line."""
    return " ".join(text.split()).replace("$", r"\$")
