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
    """

    slope: float
    intercept_hu: float
    spacing_mm: tuple[float, float, float] | None
    table: Path
