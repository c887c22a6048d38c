"""One picture of the health of a pair of embedding spaces."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64
from matplotlib.axes import Axes

from vlm3d_ct.pages.style import BLUE, GREY, ORANGE, finish, new_figure, png_data_uri, say_empty

MAX_CASES = 2000
"""More are thinned to every k-th: the picture does not change, the time does."""


def health_picture(volume: Float[np.ndarray, "n d"], text: Float[np.ndarray, "n d"]) -> str:
    """Spectra of both sides, cosines of matched and of unmatched pairs, and both sides in two dimensions.

    Left: singular values of each side (mean removed), as shares of the largest; a steep fall is a collapse onto few
    directions. Middle: the further the matched pairs stand to the right of the unmatched, the better they are told
    apart. Right: the first two principal components of both sides together; two clouds apart are the modality gap.
    Fewer than two cases have no spectrum and no unmatched pair; the picture says so.
    """
    figure = new_figure(9.6, 3.0)
    spectrum, cosines, plane = figure.subplots(1, 3)
    step = -(-len(volume) // MAX_CASES) or 1
    sides = _unit(volume[::step]), _unit(text[::step])
    if len(sides[0]) < 2:
        for axes in (spectrum, cosines, plane):
            say_empty(axes, "needs two cases")
    else:
        _draw_spectrum(spectrum, *sides)
        _draw_cosines(cosines, *sides)
        _draw_plane(plane, *sides)
    for axes, title in ((spectrum, "Singular values"), (cosines, "Cosines of pairs"), (plane, "Principal components")):
        axes.set_title(title)
        finish(axes)
    return png_data_uri(figure)


def _unit(rows: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    exact = rows.astype(np.float64)
    length = np.linalg.norm(exact, axis=1, keepdims=True)
    unit: Float64[np.ndarray, "n d"] = exact / np.where(length == 0, 1.0, length)
    return unit


def _draw_spectrum(axes: Axes, volume: Float64[np.ndarray, "n d"], text: Float64[np.ndarray, "n d"]) -> None:
    for rows, label, colour in ((volume, "volumes", BLUE), (text, "reports", ORANGE)):
        values = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
        largest = values[0]
        if largest < 1e-9:  # all rows are equal
            continue
        axes.plot(np.arange(1, len(values) + 1), np.maximum(values / largest, 1e-6), color=colour, label=label)
    axes.set_yscale("log")
    axes.set_ylim(1e-4, 1.5)
    axes.set_xlabel("number")
    axes.set_ylabel("share of the largest")


def _draw_cosines(axes: Axes, volume: Float64[np.ndarray, "n d"], text: Float64[np.ndarray, "n d"]) -> None:
    similarity = volume @ text.T
    matched = np.diagonal(similarity)
    unmatched = similarity[~np.eye(len(similarity), dtype=bool)]
    low, high = float(similarity.min()), float(similarity.max())
    edges = np.linspace(low, max(high, low + 1e-3), 41)
    for values, label, colour in ((unmatched, "unmatched", GREY), (matched, "matched", BLUE)):
        density, _ = np.histogram(values, bins=edges, density=True)
        axes.stairs(density, edges, color=colour, fill=True, alpha=0.5, label=label)
    axes.set_xlabel("cosine")
    axes.set_yticks([])


def _draw_plane(axes: Axes, volume: Float64[np.ndarray, "n d"], text: Float64[np.ndarray, "n d"]) -> None:
    both = np.concatenate([volume, text])
    centred = both - both.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    # the sign of a direction is arbitrary: its largest part is made positive, so that the picture is the same twice
    directions = directions[:2]
    largest = np.argmax(np.abs(directions), axis=1)
    directions = directions * np.sign(directions[np.arange(len(directions)), largest])[:, None]
    at = centred @ directions.T
    if at.shape[1] < 2:
        at = np.column_stack([at[:, 0], np.zeros(len(at))])
    for rows, label, colour in ((at[: len(volume)], "volumes", BLUE), (at[len(volume) :], "reports", ORANGE)):
        axes.plot(rows[:, 0], rows[:, 1], ".", color=colour, label=label, markersize=3, alpha=0.6)
    axes.set_xlabel("first")
    axes.set_ylabel("second")
