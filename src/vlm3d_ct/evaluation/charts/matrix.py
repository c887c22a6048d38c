"""Matrices of shares: what is taken for what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from vlm3d_ct.pages.style import finish, new_figure, plain, png_data_uri

CELL_INCHES = 0.30
LEAST_WRITTEN = 0.005
"""Smaller shares would be written as 0."""


def matrix_picture(
    shares: Float64[np.ndarray, "r c"],
    row_names: Sequence[str],
    column_names: Sequence[str],
    *,
    row_label: str,
    column_label: str,
) -> str:
    """Shares (0..1) as shades with their per cent written in; a cell that is NaN (nothing counted) stays white."""
    rows, columns = shares.shape
    figure = new_figure(2.6 + CELL_INCHES * columns, 2.0 + CELL_INCHES * rows)
    axes = figure.subplots()
    axes.imshow(np.ma.masked_invalid(shares), cmap="Blues", vmin=0, vmax=1, aspect="equal")
    for row, column in np.argwhere(np.isfinite(shares)):
        share = float(shares[row, column])
        if share < LEAST_WRITTEN:
            continue
        ink = "white" if share > 0.55 else "#1c2430"
        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=6.5, color=ink)
    axes.set_yticks(range(rows), [plain(name) for name in row_names])
    axes.set_xticks(range(columns), [plain(name) for name in column_names], rotation=90)
    axes.set_ylabel(row_label)
    axes.set_xlabel(column_label)
    finish(axes)
    axes.grid(visible=False)
    axes.tick_params(labelsize=7, length=0)
    axes.spines[:].set_visible(False)
    return png_data_uri(figure)
