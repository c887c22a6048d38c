"""The region mask of a case, whatever its files hold: ids of the region table, TotalSegmentator's, or structures."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path
from typing import assert_never

import numpy as np
from jaxtyping import UInt8

from vlm3d_ct.data.case import Case
from vlm3d_ct.text.regions import TotalSegmentatorVersion, load_region_table, totalsegmentator_classes
from vlm3d_ct.volumes.derived import add_derived_regions
from vlm3d_ct.volumes.faults import fault
from vlm3d_ct.volumes.nifti import read_mask
from vlm3d_ct.volumes.structures import read_structures
from vlm3d_ct.volumes.volume import RegionMask, Volume

SOLID = ("esophagus", "thyroid_gland", "pancreas", "adrenal_gland_right", "adrenal_gland_left")
"""Organs of which some have, in either version, the ids that the other version gives to lobes of the lungs."""
LUNG_BELOW_HU = -500
LEAST_LUNG_ML = 100.0
_SAMPLED = (slice(None, None, 2), slice(None, None, 4), slice(None, None, 4))
_SETTING: dict[int, str] = {1: "totalsegmentator_v1", 2: "totalsegmentator"}


def load_region_mask(case: Case, volume: Volume | None) -> RegionMask | None:
    """Read a volume's mask in region ids; None where the case has none.

    What no source labels is derived (`add_derived_regions`), but not for masks that are in region ids already.

    Args:
        case: of a volume.
        volume: its voxels; None, where they cannot be read, checks the mask alone and derives nothing.

    Raises:
        DataError: with every problem of the mask's files.
    """
    if not case.mask_paths:
        return None
    table = load_region_table()
    match case.mask_labels:
        case "regions":
            return read_mask(case.mask_paths[0], like=volume, max_label=table.num_regions, stored=case.stored)
        case "totalsegmentator":
            mask = _read_totalsegmentator(case, volume, 2)
        case "totalsegmentator_v1":
            mask = _read_totalsegmentator(case, volume, 1)
        case "structures":
            mask = read_structures(case.mask_paths, volume, table.structures)
        case "lesion":
            raise ValueError(f"{case.case_id}: a volume's mask holds regions, not lesions")
        case _:
            assert_never(case.mask_labels)
    return mask if volume is None else add_derived_regions(mask, volume)


def _read_totalsegmentator(case: Case, volume: Volume | None, version: TotalSegmentatorVersion) -> RegionMask:
    path = case.mask_paths[0]
    mask = read_mask(path, like=volume, max_label=255, stored=case.stored)
    most, other = len(totalsegmentator_classes(version)), _SETTING[3 - version]
    greatest = int(mask.labels.max())
    if greatest > most:
        message = f"Version {version} of TotalSegmentator's task total has ids 0..{most}."
        remedy = f"Give a mask of that task, or, if it is of the other version, set data.mask_labels to {other}."
        raise fault("label-range", path, "voxels", greatest, message, remedy)
    if volume is not None:
        _check_version(mask.labels, volume, path, version)
    return replace(mask, labels=_translated(mask.labels, load_region_table().totalsegmentator_lookup(version)))


def _check_version(
    labels: UInt8[np.ndarray, "z y x"], volume: Volume, path: Path, version: TotalSegmentatorVersion
) -> None:
    """Refuse a mask of the other version: its lungs would be read as solid organs, and its right side as its left."""
    solid = np.zeros(256, dtype=bool)
    solid[[i for i, name in enumerate(totalsegmentator_classes(version), start=1) if name in SOLID]] = True
    values = volume.voxels_hu[_SAMPLED][solid[labels[_SAMPLED]]]
    millilitres = values.size * prod(volume.spacing_mm) * prod(part.step for part in _SAMPLED) / 1000
    if millilitres >= LEAST_LUNG_ML and np.median(values) < LUNG_BELOW_HU:
        shown = f"{millilitres:.0f} ml of {np.median(values):.0f} HU labelled as solid organs"
        message = f"Read with the ids of version {version} of TotalSegmentator, lung is called a solid organ."
        remedy = f"Set data.mask_labels to {_SETTING[3 - version]}."
        raise fault("mask-version", path, "voxels", shown, message, remedy)


def _translated(labels: UInt8[np.ndarray, "z y x"], lookup: UInt8[np.ndarray, "256"]) -> UInt8[np.ndarray, "z y x"]:
    result = np.empty_like(labels)
    for plane, read in zip(result, labels, strict=True):  # one at a time: NumPy makes 8-byte indices of the labels
        np.take(lookup, read, out=plane)
    return result
