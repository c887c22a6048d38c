"""Which files make a volume's mask: one with label ids, or a folder with a file for each structure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from vlm3d_ct.data.case import MaskLabels
from vlm3d_ct.data.found_files import walk_nifti
from vlm3d_ct.data.names import volume_stem
from vlm3d_ct.errors import Problem
from vlm3d_ct.volumes.faults import problem

STRUCTURE_PREFIX = "seg_"
"""RadGenome-ChestCT's folders of structures are named so: ``seg_train_1_a_1``."""


@dataclass(frozen=True)
class MaskFiles:
    """The files of one volume's mask and how they are to be read."""

    paths: tuple[Path, ...]
    labels: MaskLabels


def find_masks(
    folder: Path, volumes: Collection[str], labels: MaskLabels
) -> tuple[dict[str, MaskFiles], list[Problem]]:
    """The masks under a folder, by volume (casefolded, without ending); also of volumes that are not there.

    A file below a folder that is named like a volume, or begins with ``seg_``, is one structure of that volume
    (MedSAM2, TotalSegmentator's own output, RadGenome-ChestCT). Any other file holds the label ids of the volume that
    it is named like.

    Args:
        folder: with any folders within; it need not be there.
        volumes: those that are known.
        labels: what the ids of single files mean.
    """
    single: dict[str, Path] = {}
    structures: dict[str, list[Path]] = {}
    problems: list[Problem] = []
    for item in walk_nifti(folder):
        if isinstance(item, Problem):
            problems.append(item)
            continue
        key, owner = volume_stem(item.name).casefold(), _owner(item, folder, volumes)
        if owner is not None and key != owner:
            structures.setdefault(owner, []).append(item)
        elif key in single:
            message = f"Another file has the same name: {single[key]}."
            problems.append(problem("duplicate", item, "name", item.name, message, "Keep one of them."))
        else:
            single[key] = item
    masks = {key: MaskFiles(tuple(paths), "structures") for key, paths in structures.items()}
    for key, path in single.items():
        if key in masks:
            message = f"The volume has a folder of structures, too: {structures[key][0].parent}."
            problems.append(problem("duplicate", path, "mask", path.name, message, "Keep one of the two masks."))
        masks[key] = MaskFiles((path,), labels)
    return masks, problems


def _owner(path: Path, folder: Path, volumes: Collection[str]) -> str | None:
    """The volume that a file's folder is named by; None where it is named by none."""
    if path.parent == folder:
        return None
    name = volume_stem(path.parent.name).casefold()
    if name.startswith(STRUCTURE_PREFIX):
        return name.removeprefix(STRUCTURE_PREFIX)
    return name if name in volumes else None
