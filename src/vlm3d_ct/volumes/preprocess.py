"""What is done to a scan once, before the cache; windows are applied later, on the device."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Literal

import numpy as np
from jaxtyping import Int16, UInt8

from vlm3d_ct.config.schema import Precision, PreprocessConfig
from vlm3d_ct.volumes import companding
from vlm3d_ct.volumes.resize import Size, resample_average, resample_nearest, resize_average, resize_nearest
from vlm3d_ct.volumes.slices import SliceStack
from vlm3d_ct.volumes.volume import MAX_HU, MIN_HU, RegionMask, Volume

PREPROCESS_VERSION = 2
"""To be raised with every change of what a prepared case holds, the table of regions included."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A case at the size of the encoder's input.

    Attributes:
        voxels_hu: for a volume HU in -1024..3071; for a slice grey values 0..255 (its HU are lost).
        labels: for a volume region ids; for a slice 1 where the lesion is; None where there is no mask.
        spacing_mm: distance of voxel centres along (z, y, x) after resizing; (1, 1, 1) for a slice, which has none.
        kind: ``volume`` or ``slice``.
        precision: how the cache keeps a volume's HU: ``uint8`` says that all are levels of `companding`.
    """

    voxels_hu: Int16[np.ndarray, "z y x"] | UInt8[np.ndarray, "z y x"]
    labels: UInt8[np.ndarray, "z y x"] | None
    spacing_mm: tuple[float, float, float]
    kind: Literal["volume", "slice"]
    precision: Precision = "int16"


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Turns what was read into what the encoder takes; equal settings have equal fingerprints.

    Attributes:
        size: voxels (z, y, x) of a prepared volume.
        slice_size: voxels (z, y, x) of a prepared slice with its neighbours.
        spacing_mm: of a prepared volume, (z, y, x): the scan is cropped, or padded with air, about its centre. None
            stretches every scan to ``size`` instead.
        precision: ``uint8`` rounds a volume's HU to 256 levels (`companding`).
    """

    size: Size
    slice_size: Size
    spacing_mm: tuple[float, float, float] | None = None
    precision: Precision = "int16"

    @classmethod
    def from_config(cls, config: PreprocessConfig) -> Preprocess:
        """The preprocessing that a configuration asks for."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})

    def __call__(self, volume: Volume, mask: RegionMask | None) -> Prepared:
        """Clip to -1024..3071 HU and resize; labels take the nearest voxel."""
        old_mm, bounds = volume.spacing_mm, (MIN_HU, MAX_HU)
        labels = None
        if self.spacing_mm is None:
            z, y, x = (mm * old / new for mm, old, new in zip(old_mm, volume.voxels_hu.shape, self.size, strict=True))
            voxels_hu = resize_average(volume.voxels_hu, self.size, bounds=bounds)
            if mask is not None:
                labels = resize_nearest(mask.labels, self.size)
        else:
            z, y, x = self.spacing_mm
            ratio = (z / old_mm[0], y / old_mm[1], x / old_mm[2])
            voxels_hu = resample_average(volume.voxels_hu, self.size, ratio, outside=MIN_HU, bounds=bounds)
            if mask is not None:
                labels = resample_nearest(mask.labels, self.size, ratio)
        if self.precision == "uint8":
            voxels_hu = companding.to_hu(companding.to_codes(voxels_hu))
        return Prepared(
            voxels_hu=voxels_hu, labels=labels, spacing_mm=(z, y, x), kind="volume", precision=self.precision
        )

    def slices(self, stack: SliceStack) -> Prepared:
        """Resize a slice with its neighbours; the lesion of the key slice is repeated along z."""
        labels = None
        if stack.lesion is not None:
            labels = np.repeat(
                resize_nearest(stack.lesion[None], (1, *self.slice_size[1:])), self.slice_size[0], axis=0
            )
        grey = resize_average(stack.grey, self.slice_size)
        return Prepared(voxels_hu=grey, labels=labels, spacing_mm=(1.0, 1.0, 1.0), kind="slice")

    @property
    def fingerprint(self) -> str:
        """12 hexadecimal digits that differ whenever a prepared case may differ; names the cache folder."""
        matters = {"version": PREPROCESS_VERSION, "hu": [MIN_HU, MAX_HU], **asdict(self)}
        canonical = json.dumps(matters, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]
