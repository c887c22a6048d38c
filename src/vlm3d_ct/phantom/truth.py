"""The ground truth beside a scan, as ``truth.json`` lists it, and its row in CT-RATE's metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import UInt8
from scipy import ndimage

from vlm3d_ct.phantom.acquisition import Acquisition
from vlm3d_ct.phantom.findings.finding import Finding
from vlm3d_ct.phantom.patient import Patient
from vlm3d_ct.phantom.rough_masks import Change

METADATA_COLUMNS = (
    "VolumeName", "Manufacturer", "ManufacturerModelName", "PatientSex", "PatientAge", "ReconstructionDiameter",
    "Rows", "Columns", "XYSpacing", "RescaleIntercept", "RescaleSlope", "RescaleType", "NumberofSlices", "ZSpacing",
)  # fmt: skip
"""Those of CT-RATE's metadata columns that a phantom can fill."""


def scan_truth(
    patient: Patient,
    findings: Sequence[Finding],
    sentences: Sequence[str | None],
    acquisition: Acquisition,
    lesions: UInt8[np.ndarray, "z y x"],
    changes: Sequence[Change],
) -> dict[str, Any]:
    """Everything that is true of a scan.

    Returns:
        ``findings`` (see `_finding_truth`), ``patient``, ``acquisition`` (triples are z, y, x), and ``mask``: what is
        wrong with the region mask, nothing if it is exact.
    """
    boxes = ndimage.find_objects(lesions, max_label=len(findings))
    return {
        "findings": [
            _finding_truth(number, finding, sentence, acquisition, lesions, box)
            for number, (finding, sentence, box) in enumerate(zip(findings, sentences, boxes, strict=True), start=1)
        ],
        "patient": _plain(asdict(patient)),
        "acquisition": {**_plain(asdict(acquisition)), "spacing_mm": _plain(acquisition.spacing_mm, digits=6)},
        "mask": [asdict(change) for change in changes],
    }


def _finding_truth(
    number: int,
    finding: Finding,
    sentence: str | None,
    acquisition: Acquisition,
    lesions: UInt8[np.ndarray, "z y x"],
    box: tuple[slice, ...] | None,
) -> dict[str, Any]:
    """One finding.

    ``centre_mm`` is (x, y, z) and ``box_mm`` (x, y, z, dx, dy, dz), both in mm from the volume's minimum physical
    corner in LPS, which is the outer corner of its first voxel; ``lesion`` is the id in the lesion mask, ``voxels`` how
    many it has there. A finding that later ones cover altogether has no voxels and no box, and one that a sparse report
    leaves out has no sentence.
    """
    grid = acquisition.grid
    centre = [c - o + s / 2 for c, o, s in zip(finding.centre_mm, grid.origin_mm, grid.spacing_mm, strict=True)]
    return {
        "abnormality": finding.abnormality,
        "form": finding.form,
        "side": finding.side,
        "regions": list(finding.regions),
        "severity": finding.severity,
        "companion": finding.companion,
        "size_mm": round(finding.size_mm, 1),
        "centre_mm": _plain(centre[::-1], digits=1),
        "box_mm": None if box is None else _box_mm(box, grid.spacing_mm),
        "voxels": 0 if box is None else int(np.count_nonzero(lesions[box] == number)),
        "lesion": number,
        "sentence": sentence,
    }


def _box_mm(box: tuple[slice, ...], spacing_mm: tuple[float, float, float]) -> list[float]:
    corner = [step * part.start for part, step in zip(box, spacing_mm, strict=True)]
    size = [step * (part.stop - part.start) for part, step in zip(box, spacing_mm, strict=True)]
    return [round(number, 2) for number in (*corner[::-1], *size[::-1])]


def metadata_row(name: str, patient: Patient, acquisition: Acquisition) -> list[str]:
    """A volume's row of `METADATA_COLUMNS`, in CT-RATE's notation."""
    slices, rows, columns = acquisition.shape
    z_mm, y_mm, x_mm = acquisition.spacing_mm
    return [
        name,
        "Phantom",
        "Digital chest",
        patient.sex[0].upper(),
        f"{round(patient.age_years):03d}Y",
        f"{acquisition.view_xy_mm:.3f}",
        str(rows),
        str(columns),
        f"[{y_mm:.6f}, {x_mm:.6f}]",
        str(acquisition.intercept_hu),
        "1",
        "HU",
        str(slices),
        f"{z_mm:.6f}",
    ]


def _plain(value: Any, digits: int = 3) -> Any:
    """The value with rounded numbers, for JSON."""
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, dict):
        return {key: _plain(entry, digits) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry, digits) for entry in value]
    return value
