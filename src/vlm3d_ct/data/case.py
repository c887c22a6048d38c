"""A case: what belongs together on disk, before anything is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlm3d_ct.text.report import Report

Kind = Literal["volume", "slice"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One training or evaluation case, found in a data folder.

    Attributes:
        case_id: unique within its kind; for volumes the file name without ``.nii.gz``.
        patient_id: cases of one patient never cross splits.
        kind: ``volume`` (a 3D scan) or ``slice`` (a 2D slice with its neighbours).
        image_paths: one NIfTI file, or the slice and its neighbours in z order (feet to head).
        mask_path: region ids of a volume, or the lesion mask of a slice; None where there is none.
        mask_labels: how the ids in ``mask_path`` are to be read: ``regions`` (0..20), ``totalsegmentator``, ``lesion``.
        reports: one or more; training draws one per epoch, evaluation takes the first. Only a case of
            `CaseIndex.without_text` or `CaseIndex.no_chest` may have none.
        category: the abnormality that a slice's record names, None where it names none.
        shows_chest: False where the data set's own lists say that the volume shows no chest (`CaseIndex.no_chest`).
        split: the split that the data folder itself declares, None where it declares none.
    """

    case_id: str
    patient_id: str
    kind: Kind
    image_paths: tuple[Path, ...]
    mask_path: Path | None
    mask_labels: Literal["regions", "totalsegmentator", "lesion"]
    reports: tuple[Report, ...]
    category: str | None = None
    shows_chest: bool = True
    split: Literal["train", "validation"] | None = None
