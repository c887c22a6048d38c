"""The CT volume as everything above the file formats sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int16, UInt8

from vlm3d_ct.volumes.stored import StoredScan

MIN_HU, MAX_HU = -1024, 3071
"""What a prepared volume is limited to: the 12 bits that scanners deliver."""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A CT volume in canonical axes: z towards the head, y towards the back, x towards the patient's left (LPS).

    Attributes:
        voxels_hu: Hounsfield units, clipped to int16.
        spacing_mm: distance of voxel centres along (z, y, x), each > 0.
        source: the file it came from; for messages only.
        origin_mm: position of the first voxel's centre, (z, y, x) in LPS; None where the source states none.
        scale: one sentence on how Hounsfield units and geometry were decided; empty for an array that was not read.
        stored: the row of the table that was applied to a file with a blank header; None where the file spoke for
            itself.
    """

    voxels_hu: Int16[np.ndarray, "z y x"]
    spacing_mm: tuple[float, float, float]
    source: Path
    origin_mm: tuple[float, float, float] | None = None
    scale: str = ""
    stored: StoredScan | None = None


@dataclass(frozen=True, kw_only=True)
class RegionMask:
    """Region ids on the grid of a `Volume`, in the same canonical axes.

    Attributes:
        labels: 0 background, 1..20 by the region table.
        source: the file, or the folder of files, that it came from; for messages only.
        unknown: names of structures that came with it and that the region table does not know.
    """

    labels: UInt8[np.ndarray, "z y x"]
    source: Path
    unknown: tuple[str, ...] = ()

    @property
    def present(self) -> tuple[int, ...]:
        """The labels that occur, 0 not counted, in order."""
        return tuple(int(label) for label in np.flatnonzero(np.bincount(self.labels.ravel())) if label)
