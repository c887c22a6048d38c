"""From a case to its voxels: image and mask read with every check, and brought to the encoder's input size."""

from __future__ import annotations

from vlm3d_ct.data.case import Case
from vlm3d_ct.data.region_masks import load_region_mask
from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.volumes.nifti import read_volume
from vlm3d_ct.volumes.preprocess import Prepared, Preprocess
from vlm3d_ct.volumes.slices import SliceStack, read_lesion_masks, read_slices
from vlm3d_ct.volumes.volume import RegionMask, Volume


def load_and_preprocess(case: Case, preprocess: Preprocess) -> Prepared:
    """Read a case with all checks and bring it to the encoder's input size.

    Raises:
        DataError: with every problem of the case's files.
    """
    loaded, mask = load_case(case)
    return preprocess.slices(loaded) if isinstance(loaded, SliceStack) else preprocess(loaded, mask)


def load_case(case: Case) -> tuple[Volume | SliceStack, RegionMask | None]:
    """Read a case's image and mask with all checks; a mask is in region ids whatever its files hold.

    Raises:
        DataError: with every problem of all files.
    """
    if case.kind == "slice":
        grey = read_slices(case.image_paths)
        lesion = read_lesion_masks(case.mask_paths, grey) if case.mask_paths else None
        return SliceStack(grey=grey, lesion=lesion), None
    problems: list[Problem] = []
    volume = mask = None
    try:
        volume = read_volume(case.image_paths[0], stored=case.stored)
    except DataError as error:
        problems.extend(error.problems)
    try:
        mask = load_region_mask(case, volume)
    except DataError as error:
        problems.extend(error.problems)
    if problems or volume is None:
        raise DataError(problems)
    return volume, mask
