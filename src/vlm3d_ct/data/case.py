"""A case: what belongs together on disk, before anything is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlm3d_ct.text.report import Report
from vlm3d_ct.volumes.stored import StoredScan

Kind = Literal["volume", "slice"]
Plane = Literal["axial", "coronal", "sagittal"]
MaskLabels = Literal["regions", "totalsegmentator", "totalsegmentator_v1", "structures", "lesion"]
"""How the files of a mask are to be read.

``regions``: ids of the region table. ``totalsegmentator``, ``totalsegmentator_v1``: ids of its task ``total``, in
version 2 or 1. ``structures``: one binary file for each anatomical structure, named by it. ``lesion``: of a slice,
binary.
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One training or evaluation case, found in a data folder.

    Attributes:
        case_id: unique within its kind; for volumes the file name without ``.nii.gz``.
        patient_id: cases of one patient never cross splits.
        kind: ``volume`` (a 3D scan) or ``slice`` (a 2D slice with its neighbours).
        image_paths: one NIfTI file, or the slice and its neighbours in z order (feet to head).
        mask_paths: the files of the mask: one with label ids, several with one structure or lesion each; none where
            there is no mask.
        mask_labels: how these files are to be read.
        reports: one or more; training draws one per epoch, evaluation takes the first. Only a case of
            `CaseIndex.without_text` or `CaseIndex.no_chest` may have none.
        category: the abnormality that a slice's record names, None where it names none.
        shows_chest: False where the data set's own lists say that the volume shows no chest (`CaseIndex.no_chest`).
        split: the split that the data folder itself declares, None where it declares none.
        stored: what a table says about a volume whose file has a blank header and may not hold HU; None without one.
        plane: how a slice lies in the body.
    """

    case_id: str
    patient_id: str
    kind: Kind
    image_paths: tuple[Path, ...]
    mask_paths: tuple[Path, ...]
    mask_labels: MaskLabels
    reports: tuple[Report, ...]
    category: str | None = None
    shows_chest: bool = True
    split: Literal["train", "validation"] | None = None
    stored: StoredScan | None = None
    plane: Plane = "axial"
