"""What is done to a scan once, before the cache; windows are applied later, on the device."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int16, UInt8

from vlm3d_ct.config.schema import Precision, PreprocessConfig
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
        geometry: ``fixed`` stretches every scan to ``size``; ``physical`` keeps millimetres.
        spacing_mm: of ``physical``; None else.
        precision: of a prepared volume's HU.
    """

    size: Size
    slice_size: Size
    geometry: Literal["fixed", "physical"] = "fixed"
    spacing_mm: tuple[float, float, float] | None = None
    precision: Precision = "int16"

    @classmethod
    def from_config(cls, config: PreprocessConfig) -> Preprocess:
        """The preprocessing that a configuration asks for."""
        return cls(**asdict(config))

    def __call__(self, volume: Volume, mask: RegionMask | None) -> Prepared:
        """Clip to -1024..3071 HU and bring to ``size``; labels take the nearest voxel, what lies outside is air."""
        voxels, labels = volume.voxels_hu, None if mask is None else mask.labels
        bounds = (MIN_HU, MAX_HU)
        if self.spacing_mm is None:
            z, y, x = (mm * old / new for mm, old, new in zip(volume.spacing_mm, voxels.shape, self.size, strict=True))
            resized = resize_average(voxels, self.size, bounds=bounds)
            labels = None if labels is None else resize_nearest(labels, self.size)
        else:
            z, y, x = self.spacing_mm
            c, b, a = (new / old for new, old in zip(self.spacing_mm, volume.spacing_mm, strict=True))
            resized = resample_average(voxels, self.size, (c, b, a), outside=MIN_HU, bounds=bounds)
            labels = None if labels is None else resample_nearest(labels, self.size, (c, b, a))
        if self.precision == "uint8":
            resized = decode_hu(encode_hu(resized))
        return Prepared(voxels_hu=resized, labels=labels, spacing_mm=(z, y, x), kind="volume", precision=self.precision)

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
