"""What a loader hands to the device: a micro-batch of one kind, still in HU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, Shaped, UInt8
from torch import Tensor

from vlm3d_ct.data.case import Kind
from vlm3d_ct.text.tokenize import EncodedReport, collate_reports
from vlm3d_ct.volumes.preprocess import Prepared


@dataclass(frozen=True)
class Change:
    """The augmentation of one case; the default changes nothing.

    Attributes:
        flip: mirror left and right.
        mirror_words: whether the report and the ids of sided regions are mirrored with it.
        angles_rad: rotation about the (z, y, x) axes.
        shift: added to the windowed intensity.
        noise_sigma: of the Gaussian noise on the windowed intensity; 0 for none.
        noise_seed: of that noise.
    """

    flip: bool = False
    mirror_words: bool = True
    angles_rad: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shift: float = 0.0
    noise_sigma: float = 0.0
    noise_seed: int = 0

    @property
    def mirrors_words(self) -> bool:
        """Whether the report is mirrored."""
        return self.flip and self.mirror_words


@dataclass(frozen=True)
class Sample:
    """One case as a worker read it: prepared voxels and labels, the encoded report, and its augmentation to come."""

    case_id: str
    prepared: Prepared
    report: EncodedReport
    change: Change


@dataclass
class Batch:
    """A micro-batch on its way to the device.

    Attributes:
        kind: of all its cases.
        case_ids: for messages.
        changes: the augmentation of each case.
        voxels: HU (volumes, int16) or grey values 0..255 (slices, uint8).
        labels: region ids, 0 where a case has no mask; None for slices, whose masks show lesions, not regions.
        mask_given: which cases have region ids.
        spacing_mm: along (z, y, x).
        region_tokens: the tokens that speak of each region.
        region_mentions: the plan's (B, 20) matrix of mentioned regions.
        region_groups: identity of each region's text (see `objectives.region_loss`).
        text_groups: identity of the whole text.
        token_steps: the sentence that each token belongs to, from 1; 0 for none (see `text.steps.EncodedSteps`).
        step_regions: the regions that each sentence speaks of.
        step_groups: identity of each sentence.
        step_places: identity of its set of regions.
        opposite_ids: the opposites of the sentences (see `text.tokenize.EncodedReport`).
        opposite_mask: 1 for their tokens, 0 for what fills up.
        opposite_steps: the sentence whose opposite each of these tokens belongs to.
    """

    kind: Kind
    case_ids: tuple[str, ...]
    changes: tuple[Change, ...]
    voxels: Shaped[Tensor, "b z y x"]
    labels: UInt8[Tensor, "b z y x"] | None
    mask_given: Bool[Tensor, " b"]
    spacing_mm: Float[Tensor, "b 3"]
    input_ids: Int64[Tensor, "b t"]
    attention_mask: Int64[Tensor, "b t"]
    token_type_ids: Int64[Tensor, "b t"]
    region_tokens: Bool[Tensor, "b r t"]
    region_mentions: Bool[Tensor, "b r"]
    region_groups: Int64[Tensor, "b r"]
    text_groups: Int64[Tensor, " b"]
    token_steps: Int64[Tensor, "b t"]
    step_regions: Bool[Tensor, "b s r"]
    step_groups: Int64[Tensor, "b s"]
    step_places: Int64[Tensor, "b s"]
    opposite_ids: Int64[Tensor, "b o"]
    opposite_mask: Int64[Tensor, "b o"]
    opposite_steps: Int64[Tensor, "b o"]

    def to(self, device: torch.device) -> Batch:
        """The same batch on the device; copies from pinned memory overlap with computation."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; called by the loader."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        changed: dict[str, Any] = {name: change(value) for name, value in values if isinstance(value, Tensor)}
        return replace(self, **changed)


Allocate = Callable[[tuple[int, ...], torch.dtype], Tensor]


def _fresh(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype)


class Stack:
    """A micro-batch that grows case by case; the voxels of a case are copied at once and need not be kept.

    One case at a time, a worker decompresses every case into the memory of the one before (decision 0021).

    Args:
        count: cases to come, all of one kind.
        pad_id: token that fills up.
        allocate: gives the memory of the voxels, then of the labels.
    """

    def __init__(self, count: int, pad_id: int, allocate: Allocate = _fresh):
        self._count, self._pad_id, self._allocate = count, pad_id, allocate
        self._kind: Kind = "volume"
        self._voxels: Tensor | None = None
        self._labels: Tensor | None = None
        self._about: list[tuple[str, Change, EncodedReport, tuple[float, float, float], bool]] = []

    def add(self, sample: Sample) -> None:
        """Copy the next case."""
        prepared, row = sample.prepared, len(self._about)
        if self._voxels is None:
            self._start(prepared)
        assert self._voxels is not None
        self._voxels[row] = torch.from_numpy(prepared.voxels_hu)
        if self._labels is not None:
            self._labels[row] = 0 if prepared.labels is None else torch.from_numpy(prepared.labels)
        mask_given = prepared.kind == "volume" and prepared.labels is not None
        self._about.append((sample.case_id, sample.change, sample.report, prepared.spacing_mm, mask_given))

    def _start(self, first: Prepared) -> None:
        shape = (self._count, *first.voxels_hu.shape)
        self._kind = first.kind
        self._voxels = self._allocate(shape, torch.from_numpy(first.voxels_hu[:0]).dtype)
        self._labels = self._allocate(shape, torch.uint8) if first.kind == "volume" else None

    def batch(self) -> Batch:
        """The batch, when all its cases are there; texts are padded to the longest."""
        assert self._voxels is not None
        case_ids, changes, encoded, spacings, masks_given = zip(*self._about, strict=True)
        reports = collate_reports(encoded, self._pad_id)
        return Batch(
            kind=self._kind,
            case_ids=case_ids,
            changes=changes,
            voxels=self._voxels,
            labels=self._labels,
            mask_given=torch.tensor(masks_given),
            spacing_mm=torch.tensor(spacings, dtype=torch.float32),
            **{field.name: torch.from_numpy(getattr(reports, field.name)) for field in fields(reports)},
        )


def collate(samples: Sequence[Sample], pad_id: int) -> Batch:
    """Stack samples of one kind, at least one."""
    stack = Stack(len(samples), pad_id)
    for sample in samples:
        stack.add(sample)
    return stack.batch()
