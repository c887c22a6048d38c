"""One case in a worker: read once as training reads it, judged, and reduced to its facts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from vlm3d_ct.audit.facts import CaseFacts, slice_facts, thin_out, volume_facts
from vlm3d_ct.audit.mask_checks import check_lesion, check_mask
from vlm3d_ct.audit.text_checks import check_texts
from vlm3d_ct.audit.volume_checks import NOT_HU, check_volume
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.load import load_case
from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.volumes.faults import problem
from vlm3d_ct.volumes.slices import SliceStack


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What came of a case: its facts (None where its files cannot be read) and its problems."""

    facts: CaseFacts | None
    problems: tuple[Problem, ...]


def examine(case: Case) -> Examined:
    """Read a case and judge it; what is wrong with it is returned, not raised."""
    problems = list(check_texts(case))
    try:
        loaded, mask = load_case(case)
    except DataError as error:
        return Examined(facts=None, problems=(*problems, *error.problems))
    table = load_region_table()
    if isinstance(loaded, SliceStack):
        problems += check_lesion(case, loaded)
        problems += _check_neighbours(case, loaded)
        facts = slice_facts(case, loaded, _digest(loaded.grey), table)
    else:
        sample = thin_out(loaded, mask)
        facts = volume_facts(case, loaded, sample, _digest(loaded.voxels_hu), table)
        found = list(check_volume(case, loaded, sample, facts.lung_ml))
        problems += found
        if mask is not None and all(each.code != NOT_HU for each in found):  # masks are judged by the HU below them
            problems += check_mask(mask, sample, table)
    return Examined(facts=facts, problems=tuple(problems))


def _digest(voxels: Shaped[np.ndarray, "z y x"]) -> bytes:
    """Equal for equal scans; of every third row, which no two scans share."""
    hashed = hashlib.blake2b(repr((voxels.shape, voxels.dtype.str)).encode(), digest_size=16)
    hashed.update(np.ascontiguousarray(voxels[:, ::3]).data)
    return hashed.digest()


def _check_neighbours(case: Case, stack: SliceStack) -> Iterator[Problem]:
    """Neighbours that are the same picture under another name."""
    for place in range(len(stack.grey) - 1):
        one, other = case.image_paths[place], case.image_paths[place + 1]
        if one != other and np.array_equal(stack.grey[place], stack.grey[place + 1]):
            message = f"The slice is equal to its neighbour {one.name} in every pixel."
            remedy = "Export the neighbours again, or remove the copy: a missing neighbour is made up for."
            yield problem("repeated-slices", other, "pixels", "equal", message, remedy)
