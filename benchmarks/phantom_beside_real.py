"""A picture of a phantom beside a real scan, in the same windows and at the same scale.

A phantom in the arterial phase beside the CT angiography of the folder of real scans: axial through the heart, coronal
and sagittal through its middle, soft tissue and lung window. Writes a PNG.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int16
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vlm3d_ct.config.schema import WINDOW_PRESETS
from vlm3d_ct.phantom.acquisition import draw_acquisition
from vlm3d_ct.phantom.cohort import SMALLEST_LESION_MM
from vlm3d_ct.phantom.scan import draw_subject, render
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.volumes.nifti import read_mask, read_volume

REAL, REAL_IDS, REAL_HEART, HEART = "thorax_cta.nii.gz", "thorax_cta_totalsegmentator_ids.nii.gz", 51, 8
SHOWN_MM = 180.0
SPACING_MM = 1.5
Voxels = Int16[np.ndarray, "z y x"]


def phantom(seed: int) -> tuple[Voxels, tuple[int, ...]]:
    """A phantom on voxels as large as the real scan's, and the middle of its heart."""
    subject = draw_subject(seed, 1, smallest_mm=SMALLEST_LESION_MM["full"], count=0, hard=True)
    drawn = draw_acquisition(random_stream(seed, 1, "acquisition"), subject.patient, "full")
    shape = (round(drawn.view_z_mm / SPACING_MM), *(2 * [round(drawn.view_xy_mm / SPACING_MM)]))
    acquisition = replace(drawn, shape=shape, slice_thickness_mm=drawn.view_z_mm / shape[0], noise_hu=18.0)
    scan = render(acquisition, subject)
    return scan.voxels_hu, middle(scan.labels == HEART)


def middle(inside: np.ndarray) -> tuple[int, ...]:
    """The centre of mass of a mask, as a voxel."""
    return tuple(int(place) for place in np.argwhere(inside).mean(0))


def cut(voxels_hu: Voxels, centre: tuple[int, ...], axis: int) -> np.ndarray:
    """A square section around a centre; what lies outside the scan is air."""
    half = round(SHOWN_MM / SPACING_MM / 2)
    padded = np.pad(voxels_hu, half, constant_values=-1024)
    window = tuple(slice(place, place + 2 * half) if a != axis else place + half for a, place in enumerate(centre))
    section = padded[window]
    return section if axis == 0 else section[::-1]


def draw(axes: Sequence[Axes], voxels_hu: Voxels, centre: tuple[int, ...], title: str) -> None:
    """Three planes in the soft-tissue window, the coronal one in the lung window too."""
    views = ((0, "soft_tissue"), (1, "soft_tissue"), (2, "soft_tissue"), (1, "lung"))
    for view, (axis, window) in zip(axes, views, strict=True):
        level, width = WINDOW_PRESETS[window]
        shown = cut(voxels_hu, centre, axis)
        view.imshow(shown, cmap="gray", vmin=level - width / 2, vmax=level + width / 2)
        view.set_title(f"{title}, {('axial', 'coronal', 'sagittal')[axis]}", fontsize=9)
        view.set_axis_off()


def main(arguments: Sequence[str]) -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--realdata", default="../shared/realdata", metavar="DIR", help="folder of the real scans")
    parser.add_argument("--seed", type=int, default=4, help="of the phantom")
    parser.add_argument("--output", required=True, metavar="FILE.png")
    parsed = parser.parse_args(arguments)
    volume = read_volume(Path(parsed.realdata) / REAL)
    ids = read_mask(Path(parsed.realdata) / REAL_IDS, like=volume, max_label=255).labels
    figure = Figure(figsize=(12, 6.4), dpi=80, layout="constrained")
    rows = figure.subplots(2, 4)
    draw(rows[0], *phantom(parsed.seed), "phantom")
    draw(rows[1], volume.voxels_hu, middle(ids == REAL_HEART), "real scan")
    figure.savefig(parsed.output)


if __name__ == "__main__":
    main(sys.argv[1:])
