"""What a table says about a scan whose file has a blank header, as in the first version of CT-RATE."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class StoredScan:
    """The row of a metadata table that belongs to a file.

    Attributes:
        slope: HU = slope * stored value + intercept_hu.
        intercept_hu: see ``slope``.
        spacing_mm: distance of voxel centres along (z, y, x); None where the table does not give it.
        table: the file that says so; for messages.
        orientation: directions (x, y, z in LPS) of the file's axes i and j, DICOM's ImageOrientationPatient; the third
            axis is their cross product, as in the script that made CT-RATE's corrected files. The default is a patient
            on the back.
    """

    slope: float
    intercept_hu: float
    spacing_mm: tuple[float, float, float] | None
    table: Path
    orientation: tuple[float, float, float, float, float, float] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
