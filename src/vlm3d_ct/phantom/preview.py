"""A picture of a written cohort: three planes, two windows, regions, lesions and text, one row a case."""

from __future__ import annotations

import io
import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vlm3d_ct.config.schema import WINDOW_PRESETS
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.volumes.atomic import write_atomically
from vlm3d_ct.volumes.nifti import read_mask, read_volume

ROWS = 6
"""Cases in a picture."""
DPI = 110
MOST_CHARACTERS = 900
"""A longer report is cut in the picture."""
Voxels = Int16[np.ndarray, "y x"] | UInt8[np.ndarray, "y x"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is shown of a case; axes towards head, back and left as the readers give them."""

    name: str
    report: str
    findings: list[dict[str, Any]]
    voxels_hu: Int16[np.ndarray, "z y x"]
    labels: UInt8[np.ndarray, "z y x"]
    lesions: UInt8[np.ndarray, "z y x"]
    spacing_mm: tuple[float, float, float]


def check_preview(file: Path) -> None:
    """Refuse a picture that could not be written, before a cohort is.

    Raises:
        ConfigError: the file is no PNG, or its folder does not exist.
    """
    if file.suffix.lower() != ".png":
        raise ConfigError(f"--preview {file}: the picture is a PNG; give a name that ends in .png.")
    if not file.parent.is_dir():
        raise ConfigError(f"--preview {file}: the folder {file.parent} does not exist; make it first.")


def write_preview(directory: Path, file: Path) -> None:
    """Write a PNG of up to `ROWS` volumes, evenly spaced over the cohort in ``directory``.

    Each row has axial, coronal and sagittal sections through the largest lesion (through the middle where there is
    none): soft tissue and lung window, the region mask, and the lesions, with findings and report beside them.
    """
    volumes = directory / "ct_rate"
    truth: dict[str, dict[str, Any]] = json.loads((volumes / "truth.json").read_text("utf-8"))
    names = sorted(truth, key=lambda name: int(name.split("_")[1]))
    chosen = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, min(ROWS, len(names))).round().astype(int))]
    reports = _reports(volumes / "cot")
    figure = Figure(figsize=(19, 3.0 * len(chosen)), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots(len(chosen), 7, squeeze=False, width_ratios=(1, 1, 1, 1, 1, 1, 1.9))
    for row, name in zip(axes, chosen, strict=True):
        volume = read_volume(volumes / "volumes" / name)
        case = Case(
            name=name,
            report=reports[name],
            findings=truth[name]["findings"],
            voxels_hu=volume.voxels_hu,
            labels=read_mask(volumes / "masks" / name, like=volume).labels,
            lesions=read_mask(volumes / "lesions" / name, like=volume, max_label=255).labels,
            spacing_mm=volume.spacing_mm,
        )
        _draw_case(row, case)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomically(file, [picture.getvalue()])


def _reports(folder: Path) -> dict[str, str]:
    records = [record for path in sorted(folder.glob("*.json")) for record in json.loads(path.read_text("utf-8"))]
    return {record["volumename"]: record["answer"] for record in records}


def shown_voxel(lesions: UInt8[np.ndarray, "z y x"]) -> tuple[int, int, int]:
    """The middle of the largest lesion, by its voxels' medians; the volume's middle where there is none."""
    counts = np.bincount(lesions.ravel(), minlength=2)[1:]
    if not counts.any():
        depth, height, width = lesions.shape
        return depth // 2, height // 2, width // 2
    z, y, x = (int(np.median(places)) for places in np.nonzero(lesions == 1 + counts.argmax()))
    return z, y, x


def _draw_case(row: np.ndarray, case: Case) -> None:
    z, y, x = shown_voxel(case.lesions)
    dz, dy, dx = case.spacing_mm
    soft, lung = WINDOW_PRESETS["soft_tissue"], WINDOW_PRESETS["lung"]
    _draw_grey(row[0], case.voxels_hu[z], soft, dy / dx, "axial, soft tissue")
    _draw_grey(row[1], case.voxels_hu[z], lung, dy / dx, "axial, lung")
    _draw_grey(row[2], case.voxels_hu[z], soft, dy / dx, "regions")
    _overlay(row[2], case.labels[z], dy / dx, 0.45)
    _draw_grey(row[3], case.voxels_hu[z], lung, dy / dx, "lesions")
    _overlay(row[3], case.lesions[z], dy / dx, 0.6)
    _draw_grey(row[4], case.voxels_hu[::-1, y], lung, dz / dx, "coronal, lung")
    _overlay(row[4], case.lesions[::-1, y], dz / dx, 0.35)
    _draw_grey(row[5], case.voxels_hu[::-1, :, x], soft, dz / dy, "sagittal, soft tissue")
    _overlay(row[5], case.lesions[::-1, :, x], dz / dy, 0.35)
    _write_text(row[6], case)


def _draw_grey(axes: Axes, voxels: Voxels, window_hu: tuple[float, float], aspect: float, title: str) -> None:
    centre, width = window_hu
    axes.imshow(voxels, cmap="gray", vmin=centre - width / 2, vmax=centre + width / 2, aspect=aspect)
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()


def _overlay(axes: Axes, labels: Voxels, aspect: float, opacity: float) -> None:
    shown = np.ma.masked_equal(labels, 0)
    axes.imshow(shown, cmap="tab20", vmin=1, vmax=20, aspect=aspect, alpha=opacity, interpolation="nearest")


def _write_text(axes: Axes, case: Case) -> None:
    listed = [
        f"{number}. {' '.join(part for part in (found['severity'], found['form'], found['abnormality']) if part)}"
        f" ({found['side']}, {found['size_mm']:.0f} mm)"
        for number, found in enumerate(case.findings, start=1)
    ]
    head = "\n".join(textwrap.fill(line, 62) for line in (case.name, *(listed or ["no finding"])))
    report = textwrap.fill(textwrap.shorten(case.report, MOST_CHARACTERS), 62)
    axes.text(0, 1, f"{head}\n\n{report}", fontsize=6.5, va="top", ha="left", transform=axes.transAxes)
    axes.set_axis_off()
