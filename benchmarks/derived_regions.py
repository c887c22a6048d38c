"""Measures derived regions against the phantoms' truth, and their time and memory at full size on one core.

Prints a table for decision 0018. The true pleura, pericardium, mediastinum and chest wall are taken out of a phantom's
region mask, its lobes are let reach the chest wall as TotalSegmentator's do, and the regions are derived again.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from pathlib import Path

import numpy as np
from scipy import ndimage

from vlm3d_ct.log import say
from vlm3d_ct.phantom.acquisition import Size, draw_acquisition
from vlm3d_ct.phantom.cohort import SMALLEST_LESION_MM
from vlm3d_ct.phantom.scan import draw_subject, render
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.volumes.derived import DERIVED, LUNGS, PLEURA, add_derived_regions
from vlm3d_ct.volumes.volume import RegionMask, Volume

SEED = 4018
FULL_SLICES = 300


def phantom(index: int, size: Size) -> tuple[Volume, np.ndarray]:
    subject = draw_subject(SEED, index, smallest_mm=SMALLEST_LESION_MM[size])
    acquisition = draw_acquisition(random_stream(SEED, index, "acquisition"), subject.patient, size)
    scan = render(acquisition, subject)
    volume = Volume(voxels_hu=scan.voxels_hu, spacing_mm=acquisition.spacing_mm, source=Path("phantom"))
    return volume, scan.labels


def as_segmented(truth: np.ndarray, spacing_mm: tuple[float, float, float]) -> RegionMask:
    labels = np.where(np.isin(truth, DERIVED), 0, truth).astype(np.uint8)
    _, nearest = ndimage.distance_transform_edt(~np.isin(labels, LUNGS), sampling=spacing_mm, return_indices=True)
    labels = np.where(truth == PLEURA, labels[tuple(nearest)], labels)
    return RegionMask(labels=labels, source=Path("mask"))


def scores(found: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, float, float]) -> tuple[float, float]:
    """Dice, and the mean distance of the two surfaces in both directions, in mm."""
    dice = 2 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth))
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (found, truth)]
    distances = [
        ndimage.distance_transform_edt(~one, sampling=spacing_mm)[other] for one, other in (surfaces, surfaces[::-1])
    ]
    return float(dice), float(np.concatenate(distances).mean())


def measure(size: Size, count: int) -> list[str]:
    values: dict[int, list[tuple[float, float]]] = {region: [] for region in DERIVED}
    for index in range(1, count + 1):
        volume, truth = phantom(index, size)
        found = add_derived_regions(as_segmented(truth, volume.spacing_mm), volume).labels
        for region in DERIVED:
            values[region].append(scores(found == region, truth == region, volume.spacing_mm))
    names = load_region_table().names
    lines = []
    for region, pairs in values.items():
        dice, distance = np.array(pairs).T
        lines.append(
            f"| {names[region - 1]} | {size}, {count} | {dice.mean():.3f} ({dice.min():.3f}..{dice.max():.3f}) "
            f"| {distance.mean():.2f} |"
        )
    return lines


def full_size_cost() -> str:
    volume, truth = phantom(1, "full")
    planes = np.arange(FULL_SLICES) * len(truth) // FULL_SLICES
    z, y, x = volume.spacing_mm
    mask = as_segmented(truth, volume.spacing_mm)
    mask = RegionMask(labels=mask.labels[planes], source=mask.source)
    volume = Volume(
        voxels_hu=volume.voxels_hu[planes], spacing_mm=(z * len(truth) / FULL_SLICES, y, x), source=volume.source
    )
    start = time.process_time()
    add_derived_regions(mask, volume)
    seconds = time.process_time() - start
    tracemalloc.start()
    add_derived_regions(mask, volume)
    peak = tracemalloc.get_traced_memory()[1]
    return f"{'x'.join(map(str, mask.labels.shape[::-1]))}: {seconds:.2f} s of one core, {peak / 2**30:.2f} GiB more"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=24, help="small phantoms (default 24)")
    parser.add_argument("--full", type=int, default=1, help="phantoms of full size (default 1)")
    counts = parser.parse_args()
    say("| region | phantoms | Dice, mean (least..greatest) | surface distance, mm |")
    say("|---|---|---|---|")
    for line in (*measure("small", counts.small), *measure("full", counts.full)):
        say(line)
    say(full_size_cost())


if __name__ == "__main__":
    main()
