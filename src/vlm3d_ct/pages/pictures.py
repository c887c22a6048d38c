"""Sections of prepared volumes as pictures for a page: PNG in data URIs, drawn without a display."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16, UInt8
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vlm3d_ct.pages.style import DPI, png_data_uri

REGION_PALETTE = (  # noqa: SIM905 - as a list it would be twenty lines
    "#e6194b #3cb44b #ffe119 #4363d8 #f58231 #911eb4 #42d4f4 #f032e6 #bfef45 #fabed4 "
    "#469990 #b39ddb #9a6324 #fff59d #800000 #aaffc3 #808000 #ffb74d #1a237e #00e5a0"
).split()
OVERLAY_OPACITY, HEAT_OPACITY = 0.45, 0.75
OUTLINE = "#42d4f4"
MIN_SLICES_FOR_SECTIONS = 8
"""A volume of fewer slices is shown in axial sections only."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section through a volume, ready to be drawn as a radiologist looks at it.

    Attributes:
        title: its plane.
        voxels_hu: rows from the top of the picture.
        labels: region ids on the same pixels, or None.
        size_mm: height and width.
        heat: a map on the same pixels, or None.
    """

    title: str
    voxels_hu: Int16[np.ndarray, "rows columns"] | UInt8[np.ndarray, "rows columns"]
    labels: UInt8[np.ndarray, "rows columns"] | None
    size_mm: tuple[float, float]
    heat: Float32[np.ndarray, "rows columns"] | None = None


def sections_picture(
    voxels_hu: Int16[np.ndarray, "z y x"] | UInt8[np.ndarray, "z y x"],
    labels: UInt8[np.ndarray, "z y x"] | None,
    spacing_mm: tuple[float, float, float],
    *,
    window_hu: tuple[float, float],
    region_names: Sequence[str],
) -> str:
    """Axial, coronal and sagittal sections, plain and (with labels) under the coloured regions with their legend.

    ``window_hu`` is (centre, width); uint8 voxels are grey values and shown as they are. The sections go through the
    slices that hold the most labelled voxels.
    """
    shown = sections(voxels_hu, labels, spacing_mm)
    with_regions = labels is not None and bool(labels.any())
    num_rows = 2 if with_regions else 1
    heights = max(section.size_mm[0] / section.size_mm[1] for section in shown)
    width_inches = 2.15
    legend_inches = 0.8 if with_regions else 0.0
    figure = Figure(
        figsize=(width_inches * len(shown), num_rows * width_inches * heights + 0.25 + legend_inches),
        dpi=DPI,
        layout="constrained",
    )
    axes = figure.subplots(num_rows, len(shown), squeeze=False)
    for column, section in enumerate(shown):
        for row in range(num_rows):
            _draw(axes[row, column], section, window_hu, overlay=row == 1)
        axes[0, column].set_title(section.title, fontsize=9)
    if with_regions:
        _add_legend(figure, shown, region_names)
    return png_data_uri(figure)


def thumbnail(
    voxels_hu: Int16[np.ndarray, "z y x"] | UInt8[np.ndarray, "z y x"],
    labels: UInt8[np.ndarray, "z y x"] | None,
    spacing_mm: tuple[float, float, float],
    *,
    window_hu: tuple[float, float],
    outlined: bool = False,
) -> str:
    """A small axial and coronal section side by side; ``labels`` choose the slices, and are drawn if ``outlined``."""
    shown = sections(voxels_hu, labels, spacing_mm)[:2]
    heights = max(section.size_mm[0] / section.size_mm[1] for section in shown)
    figure = Figure(figsize=(1.8 * len(shown), 1.8 * heights), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False)
    for column, section in enumerate(shown):
        _draw(axes[0, column], section, window_hu, overlay=False)
        if outlined:
            _outline(axes[0, column], section)
    return png_data_uri(figure) if outlined else png_data_uri(figure, mode="L")


def windows_picture(
    voxels_hu: Int16[np.ndarray, "z y x"] | UInt8[np.ndarray, "z y x"],
    labels: UInt8[np.ndarray, "z y x"] | None,
    spacing_mm: tuple[float, float, float],
    *,
    windows_hu: Sequence[tuple[float, float]],
) -> str:
    """Axial, coronal and sagittal sections, a row for each window (centre, width), labelled voxels outlined."""
    shown = sections(voxels_hu, labels, spacing_mm)
    heights = max(section.size_mm[0] / section.size_mm[1] for section in shown)
    rows = len(windows_hu)
    figure = Figure(figsize=(1.8 * len(shown), 1.8 * heights * rows), dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, len(shown), squeeze=False)
    for row, window_hu in enumerate(windows_hu):
        for column, section in enumerate(shown):
            _draw(axes[row, column], section, window_hu, overlay=False)
            _outline(axes[row, column], section)
    return png_data_uri(figure)


def heat_picture(
    voxels_hu: Int16[np.ndarray, "z y x"] | UInt8[np.ndarray, "z y x"],
    heat: Float32[np.ndarray, "z y x"],
    lesion: Bool[np.ndarray, "z y x"],
    spacing_mm: tuple[float, float, float],
    *,
    window_hu: tuple[float, float],
) -> str:
    """The axial and coronal section with most of the lesion: its outline on the plain scan, and on the heat map.

    ``heat`` is a map in 0..1: 0 and NaN leave the scan as it is, 1 is yellow; beyond that it is clipped. All is on one
    grid.
    """
    shown = sections(voxels_hu, lesion.astype(np.uint8), spacing_mm, heat=heat)[:2]
    heights = sum(section.size_mm[0] / section.size_mm[1] for section in shown)
    figure = Figure(figsize=(2 * 2.3, 2.3 * heights), dpi=DPI, layout="constrained")
    axes = figure.subplots(len(shown), 2, squeeze=False)
    for row, section in enumerate(shown):
        for column in range(2):
            _draw(axes[row, column], section, window_hu, overlay=False)
            if column == 1:
                _draw_heat(axes[row, column], section)
            _outline(axes[row, column], section)
    return png_data_uri(figure)


def sections(
    voxels_hu: Int16[np.ndarray, "z y x"] | UInt8[np.ndarray, "z y x"],
    labels: UInt8[np.ndarray, "z y x"] | None,
    spacing_mm: tuple[float, float, float],
    heat: Float32[np.ndarray, "z y x"] | None = None,
) -> list[Section]:
    """The axial, coronal and sagittal section with the most labelled voxels (without labels: the middle ones).

    The patient's right is at the left of axial and coronal sections, the front at the top of axial and at the left of
    sagittal ones, the head at the top of the latter two. Of a volume of a few slices there is only the axial section.
    """
    planes = (("axial", 0), ("coronal", 1), ("sagittal", 2))
    found = []
    for title, axis in planes if len(voxels_hu) >= MIN_SLICES_FOR_SECTIONS else planes[:1]:
        others = tuple(other for other in range(3) if other != axis)
        index = voxels_hu.shape[axis] // 2
        if labels is not None and labels.any():
            index = int(np.argmax(np.count_nonzero(labels, axis=others)))
        # z rises towards the head, rows fall towards the feet
        upright = slice(None) if axis == 0 else slice(None, None, -1)
        rows_axis, columns_axis = others
        found.append(
            Section(
                title=title,
                voxels_hu=np.take(voxels_hu, index, axis=axis)[upright],
                labels=None if labels is None else np.take(labels, index, axis=axis)[upright],
                size_mm=(
                    voxels_hu.shape[rows_axis] * spacing_mm[rows_axis],
                    voxels_hu.shape[columns_axis] * spacing_mm[columns_axis],
                ),
                heat=None if heat is None else np.take(heat, index, axis=axis)[upright],
            )
        )
    return found


def region_colours() -> Float64[np.ndarray, "256 4"]:
    """RGBA (0..1) of every label: 0 is transparent, 1..20 differ from each other and from grey, then they repeat."""
    colours = np.zeros((256, 4))
    colours[1:] = to_rgba_array(REGION_PALETTE)[np.arange(255) % len(REGION_PALETTE)]
    return colours


def _draw(axes: Axes, section: Section, window_hu: tuple[float, float], *, overlay: bool) -> None:
    centre, width = window_hu
    grey = section.voxels_hu.dtype == np.uint8
    low, high = (0.0, 255.0) if grey else (centre - width / 2, centre + width / 2)
    height_mm, width_mm = section.size_mm
    extent = (0.0, width_mm, height_mm, 0.0)
    axes.imshow(section.voxels_hu, cmap="gray", vmin=low, vmax=high, extent=extent)
    if overlay and section.labels is not None:
        tint = region_colours()[section.labels]
        tint[:, :, 3] *= OVERLAY_OPACITY
        axes.imshow(tint, extent=extent, interpolation="nearest")
    axes.set_anchor("N")
    axes.set_axis_off()


def _draw_heat(axes: Axes, section: Section) -> None:
    assert section.heat is not None
    height_mm, width_mm = section.size_mm
    share = np.clip(np.nan_to_num(section.heat), 0, 1)
    extent = (0.0, width_mm, height_mm, 0.0)
    axes.imshow(share, cmap="inferno", vmin=0, vmax=1, alpha=HEAT_OPACITY * share, extent=extent)


def _outline(axes: Axes, section: Section) -> None:
    """The border of the labelled pixels."""
    if section.labels is None or not section.labels.any():
        return
    height_mm, width_mm = section.size_mm
    padded = np.pad((section.labels > 0).astype(np.float64), 1)
    rows, columns = section.labels.shape
    down = (np.arange(rows + 2) - 0.5) * height_mm / rows
    across = (np.arange(columns + 2) - 0.5) * width_mm / columns
    axes.contour(across, down, padded, levels=[0.5], colors=OUTLINE, linewidths=1.0)
    axes.set_xlim(0, width_mm)
    axes.set_ylim(height_mm, 0)


def _add_legend(figure: Figure, shown: Sequence[Section], region_names: Sequence[str]) -> None:
    present = sorted(
        {int(label) for section in shown if section.labels is not None for label in np.unique(section.labels)}
    )
    colours = region_colours()
    patches = [
        Patch(
            color=tuple(colours[label]),
            label=region_names[label - 1] if label <= len(region_names) else f"region {label}",
        )
        for label in present
        if label
    ]
    if patches:
        figure.legend(handles=patches, loc="outside lower center", ncols=4, fontsize=6.5, frameon=False)
