"""From a case to its voxels: image and mask read with every check, and brought to the encoder's input size."""

from __future__ import annotations

from vlm3d_ct.data.case import Case
from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.volumes.nifti import read_mask, read_volume
from vlm3d_ct.volumes.preprocess import Prepared, Preprocess
from vlm3d_ct.volumes.slices import SliceStack, read_lesion_mask, read_slices
from vlm3d_ct.volumes.volume import RegionMask, Volume

TOTALSEGMENTATOR_LABELS = 117


def load_and_preprocess(case: Case, preprocess: Preprocess) -> Prepared:
    """Read a case with all checks and bring it to the encoder's input size.

    Raises:
        DataError: with every problem of the case's files.
    """
    loaded, mask = load_case(case)
    return preprocess.slices(loaded) if isinstance(loaded, SliceStack) else preprocess(loaded, mask)


def load_case(case: Case) -> tuple[Volume | SliceStack, RegionMask | None]:
    """Read a case's image and mask with all checks; a mask is in region ids whatever labels its file has.

    Raises:
        DataError: with every problem of both files.
    """
    if case.kind == "slice":
        grey = read_slices(case.image_paths)
        lesion = read_lesion_mask(case.mask_paths[0], grey) if case.mask_paths else None
        return SliceStack(grey=grey, lesion=lesion), None
    problems: list[Problem] = []
    volume = mask = None
    try:
        volume = read_volume(case.image_paths[0], stored=case.stored)
    except DataError as error:
        problems.extend(error.problems)
    try:
        mask = _load_region_mask(case, volume)
    except DataError as error:
        problems.extend(error.problems)
    if problems or volume is None:
        raise DataError(problems)
    return volume, mask


def _load_region_mask(case: Case, volume: Volume | None) -> RegionMask | None:
    if not case.mask_paths:
        return None
    table = load_region_table()
    if case.mask_labels == "regions":
        return read_mask(case.mask_paths[0], like=volume, max_label=table.num_regions)
    mask = read_mask(case.mask_paths[0], like=volume, max_label=TOTALSEGMENTATOR_LABELS)
    return RegionMask(labels=table.totalsegmentator_lookup()[mask.labels], source=mask.source)
