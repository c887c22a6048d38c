"""What the audit keeps of a case once its files are read: a small record, the same for volumes and slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int16, Int64, UInt8
from scipy import ndimage

from vlm3d_ct.data.case import Case, Kind, MaskLabels
from vlm3d_ct.text.mentions import find_mentions
from vlm3d_ct.text.regions import RegionTable
from vlm3d_ct.volumes.slices import SliceStack
from vlm3d_ct.volumes.volume import RegionMask, Volume

SAMPLE_MM = 3.0
"""Statistics are taken on voxels about this far apart, never on fewer than the scan's own."""
AIR_HU, BODY_HU = -500, -300
"""Below the first there is air or lung, above the second there is tissue."""
SOFT_HU = (-200, 200)
"""Fat, water, muscle and organs, with and without contrast."""
PADDING_BELOW_HU = -1100
"""Below this there is no matter: scanners write such values outside of their round field of view."""
PERCENTILES = (1, 50, 99)

_LOWEST = -(2**15)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A volume and its mask thinned out to a grid of about 3 mm.

    Attributes:
        voxels_hu: every n-th voxel along each axis.
        labels: region ids at the same places; None without a mask.
        spacing_mm: distance of the places along (z, y, x).
    """

    voxels_hu: Int16[np.ndarray, "z y x"]
    labels: UInt8[np.ndarray, "z y x"] | None
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class CaseFacts:
    """What is remembered of one case; about a kilobyte, so that tens of thousands fit.

    Attributes:
        case_id, kind, patient_id, split: of the case.
        mask_labels: how its mask is written; None without a mask.
        digest: of voxels and shape; equal for copies of a scan.
        shape: voxels (z, y, x) as stored.
        spacing_mm: along (z, y, x); None for a slice, which has none.
        percentiles: 1st, 50th and 99th of the HU without padding (of a slice: of its grey values).
        air_share: share of voxels below -500 HU (of a slice: of black pixels).
        body_share: share of voxels above -300 HU (of a slice: of pixels that are not black).
        lung_ml: volume of the air within the body, mostly aerated lung; 0 for a slice.
        coverage: share of the voxels that each region takes, in the order of the region table; of a slice one number,
            the share of the key slice that is lesion; empty without a mask.
        num_texts: texts of the case.
        num_words: of its longest text.
        mentions: ids of the regions that its texts mention.
    """

    case_id: str
    kind: Kind
    patient_id: str
    split: Literal["train", "validation"] | None
    mask_labels: MaskLabels | None
    digest: bytes
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None
    percentiles: tuple[float, float, float]
    air_share: float
    body_share: float
    lung_ml: float
    coverage: tuple[float, ...]
    num_texts: int
    num_words: int
    mentions: tuple[int, ...]


def thin_out(volume: Volume, mask: RegionMask | None) -> Sample:
    """The sample that all statistics of a volume are taken on."""
    steps = [max(1, int(SAMPLE_MM / mm)) for mm in volume.spacing_mm]
    every = tuple(slice(None, None, step) for step in steps)
    z, y, x = (mm * step for mm, step in zip(volume.spacing_mm, steps, strict=True))
    return Sample(
        voxels_hu=np.ascontiguousarray(volume.voxels_hu[every]),
        labels=None if mask is None else np.ascontiguousarray(mask.labels[every]),
        spacing_mm=(z, y, x),
    )


def volume_facts(case: Case, volume: Volume, sample: Sample, digest: bytes, table: RegionTable) -> CaseFacts:
    """The facts of a volume; ``digest`` is of its voxels."""
    histogram = _histogram(sample.voxels_hu)
    total = int(histogram.sum())
    z, y, x = volume.voxels_hu.shape
    coverage: tuple[float, ...] = ()
    if sample.labels is not None:
        counts = np.bincount(sample.labels.ravel(), minlength=table.num_regions + 1)
        coverage = tuple((counts[1 : table.num_regions + 1] / total).tolist())
    words, mentions = _text_facts(case, table)
    return CaseFacts(
        case_id=case.case_id,
        kind=case.kind,
        patient_id=case.patient_id,
        split=case.split,
        mask_labels=case.mask_labels if case.mask_paths else None,
        digest=digest,
        shape=(z, y, x),
        spacing_mm=volume.spacing_mm,
        percentiles=_percentiles(histogram[PADDING_BELOW_HU - _LOWEST :], PADDING_BELOW_HU),
        air_share=float(histogram[: AIR_HU - _LOWEST].sum() / total),
        body_share=float(histogram[BODY_HU + 1 - _LOWEST :].sum() / total),
        lung_ml=lung_volume_ml(sample),
        coverage=coverage,
        num_texts=len(case.reports),
        num_words=words,
        mentions=mentions,
    )


def slice_facts(case: Case, stack: SliceStack, digest: bytes, table: RegionTable) -> CaseFacts:
    """The facts of a slice; ``digest`` is of its pixels."""
    histogram = np.bincount(stack.grey.ravel(), minlength=256)
    black = float(histogram[:16].sum() / histogram.sum())
    slices, rows, columns = stack.grey.shape
    words, mentions = _text_facts(case, table)
    return CaseFacts(
        case_id=case.case_id,
        kind=case.kind,
        patient_id=case.patient_id,
        split=case.split,
        mask_labels=case.mask_labels if case.mask_paths else None,
        digest=digest,
        shape=(slices, rows, columns),
        spacing_mm=None,
        percentiles=_percentiles(histogram, 0),
        air_share=black,
        body_share=1 - black,
        lung_ml=0.0,
        coverage=() if stack.lesion is None else (float(stack.lesion.mean()),),
        num_texts=len(case.reports),
        num_words=words,
        mentions=mentions,
    )


def lung_volume_ml(sample: Sample) -> float:
    """Volume of the air that tissue surrounds within an axial slice, after smoothing away noise.

    Lung that is open to the border of a cropped scan does not count; neither does the air around the patient, whatever
    the noise makes of it.
    """
    smooth = ndimage.uniform_filter(sample.voxels_hu.astype(np.float32), size=3, mode="nearest")
    air = smooth < AIR_HU
    in_plane = ndimage.generate_binary_structure(2, 1)[None]
    parts, count = ndimage.label(air, structure=np.pad(in_plane, ((1, 1), (0, 0), (0, 0))))
    open_parts = np.zeros(count + 1, dtype=bool)
    for border in (parts[:, 0], parts[:, -1], parts[:, :, 0], parts[:, :, -1]):
        open_parts[border] = True
    open_parts[0] = True  # no air
    return float(np.count_nonzero(~open_parts[parts]) * np.prod(sample.spacing_mm) / 1000)


def _histogram(voxels_hu: Int16[np.ndarray, "z y x"]) -> Int64[np.ndarray, "65536"]:
    """Number of voxels of each HU from -32768 on."""
    histogram = np.zeros(2**16, np.int64)
    for plane in voxels_hu:  # one at a time: bincount takes eight bytes a voxel
        histogram += np.bincount(plane.ravel().astype(np.int64) - _LOWEST, minlength=2**16)
    return histogram


def _percentiles(histogram: Int64[np.ndarray, " n"], lowest: int) -> tuple[float, float, float]:
    below = np.cumsum(histogram)
    low, middle, high = (float(np.searchsorted(below, below[-1] * p / 100) + lowest) for p in PERCENTILES)
    return low, middle, high


def _text_facts(case: Case, table: RegionTable) -> tuple[int, tuple[int, ...]]:
    """Words of the longest text, and the regions that any of them mentions."""
    texts = [report.answer for report in case.reports]
    regions = {region for text in texts for mention in find_mentions(text, table) for region in mention.regions}
    return max((len(text.split()) for text in texts), default=0), tuple(sorted(regions))
