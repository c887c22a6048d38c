"""Augmentation: drawn per case in the worker, applied per batch on the device."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from vlm3d_ct.config import AugmentConfig
from vlm3d_ct.data.batch import Batch, Change
from vlm3d_ct.data.case import Case
from vlm3d_ct.seeding import derive_seed, random_stream
from vlm3d_ct.text.regions import RegionTable
from vlm3d_ct.volumes.volume import MIN_HU


def draw_change(config: AugmentConfig, case: Case, can_flip: bool, seed: int, epoch: int) -> Change:
    """The augmentation of a case in an epoch; always the same draws, so that one setting does not move another.

    A sagittal slice is never flipped: its columns run from front to back, and left and right are not in the picture.

    Args:
        config: probabilities and strengths.
        case: a slice turns in its plane only.
        can_flip: whether its report survives mirroring; otherwise the case is never flipped.
        seed: of the run.
        epoch: counted from 0.
    """
    kind, case_id = case.kind, case.case_id
    shows_sides = kind == "volume" or case.plane != "sagittal"
    may_flip = can_flip or not config.mirror_words
    random = random_stream(seed, "augment", epoch, kind, case_id)
    happens = random.random(4)
    angles = random.uniform(-1.0, 1.0, 3) * math.radians(config.rotation_degrees)
    if kind == "slice":
        angles[1:] = 0.0
    shift = float(random.uniform(-1.0, 1.0)) * config.intensity_shift
    rotates = happens[1] < config.rotation_probability
    return Change(
        flip=bool(may_flip and shows_sides and happens[0] < config.flip_probability),
        mirror_words=config.mirror_words,
        angles_rad=(float(angles[0]), float(angles[1]), float(angles[2])) if rotates else (0.0, 0.0, 0.0),
        shift=shift if happens[2] < config.intensity_probability else 0.0,
        noise_sigma=config.noise_sigma if happens[3] < config.noise_probability else 0.0,
        noise_seed=derive_seed(seed, "noise", epoch, kind, case_id),
    )


def to_intensities(
    batch: Batch, windows_hu: tuple[tuple[float, float], ...], table: RegionTable
) -> tuple[Float[Tensor, "b c z y x"], UInt8[Tensor, "b 1 z y x"] | None]:
    """Apply each case's changes and the windows: what the encoder takes as ``ct_volume`` and ``segmentation_mask``.

    Args:
        batch: on the device.
        windows_hu: (centre_hu, width_hu) of each channel. Grey slices are already windowed: every channel gets them.
        table: tells which region a mirrored region becomes.
    """
    values, labels = move(batch, table)
    return through_windows(values, batch, windows_hu), labels


def move(batch: Batch, table: RegionTable) -> tuple[Float[Tensor, "b z y x"], UInt8[Tensor, "b 1 z y x"] | None]:
    """Flip and rotate each case: HU (of slices the grey values) and labels.

    Args:
        batch: on the device.
        table: tells which region a mirrored region becomes.
    """
    voxels, labels = _flip(batch.voxels, batch.labels, batch.changes, table)
    outside = MIN_HU if batch.kind == "volume" else 0
    values = voxels.float() - outside  # so that 0 is air, what is rotated in from outside included
    values, labels = _rotate(values, labels, batch.changes, batch.spacing_mm)
    return values.add_(outside), None if labels is None else labels[:, None]


def through_windows(
    values: Float[Tensor, "b z y x"], batch: Batch, windows_hu: tuple[tuple[float, float], ...]
) -> Float[Tensor, "b c z y x"]:
    """Intensities in [0, 1], with each case's shift and noise.

    Args:
        values: HU, of slices grey values.
        batch: that they are of.
        windows_hu: see `to_intensities`.
    """
    if batch.kind == "volume":
        low = torch.tensor([c - w / 2 for c, w in windows_hu], device=values.device).view(1, -1, 1, 1, 1)
        width = torch.tensor([w for _, w in windows_hu], device=values.device).view(1, -1, 1, 1, 1)
        intensities = (values[:, None] - low).div_(width).clamp_(0.0, 1.0)
    else:
        intensities = (values[:, None] / 255.0).expand(-1, len(windows_hu), -1, -1, -1).clone()
    for i, change in enumerate(batch.changes):
        if change.shift or change.noise_sigma:
            intensities[i] += change.shift
            if change.noise_sigma:
                noise = torch.Generator(values.device).manual_seed(change.noise_seed)
                drawn = torch.randn(intensities[i].shape, generator=noise, device=values.device)
                intensities[i] += change.noise_sigma * drawn
            intensities[i].clamp_(0.0, 1.0)
    return intensities


def _flip(
    voxels: Shaped[Tensor, "b z y x"],
    labels: UInt8[Tensor, "b z y x"] | None,
    changes: tuple[Change, ...],
    table: RegionTable,
) -> tuple[Shaped[Tensor, "b z y x"], UInt8[Tensor, "b z y x"] | None]:
    """Mirror left and right, along the columns, and with it the ids of sided regions."""
    rows = torch.tensor([i for i, change in enumerate(changes) if change.flip], device=voxels.device)
    if len(rows) == 0:
        return voxels, labels
    voxels = voxels.index_copy(0, rows, voxels[rows].flip(-1))
    if labels is not None:
        mirrored = labels[rows].flip(-1)
        swapped = torch.from_numpy(table.mirror_lookup()).to(labels.device)[mirrored.int()]
        swaps = torch.tensor([change.mirror_words for change in changes if change.flip], device=labels.device)
        labels = labels.index_copy(0, rows, torch.where(swaps[:, None, None, None], swapped, mirrored))
    return voxels, labels


def _rotate(
    values: Float[Tensor, "b z y x"],
    labels: UInt8[Tensor, "b z y x"] | None,
    changes: tuple[Change, ...],
    spacing_mm: Float[Tensor, "b 3"],
) -> tuple[Float[Tensor, "b z y x"], UInt8[Tensor, "b z y x"] | None]:
    """Rotate about the centre in millimetres: voxels are not cubes, and a rotation of indices would shear the body."""
    chosen = [i for i, change in enumerate(changes) if any(change.angles_rad)]
    if not chosen:
        return values, labels
    rows = torch.tensor(chosen, device=values.device)
    angles = torch.tensor([changes[i].angles_rad for i in chosen], device=values.device)
    size = torch.tensor(values.shape[1:], device=values.device)
    half_extent_xyz = (size * spacing_mm[rows] / 2).flip(1)
    theta = rotation_matrix_xyz(angles) * half_extent_xyz[:, None, :] / half_extent_xyz[:, :, None]
    theta = F.pad(theta, (0, 1))  # no translation
    where = F.affine_grid(theta, [len(chosen), 1, *values.shape[1:]], align_corners=False)
    turned = F.grid_sample(values[rows, None], where, mode="bilinear", align_corners=False)[:, 0]
    values = values.index_copy(0, rows, turned)
    if labels is not None:
        nearest = F.grid_sample(labels[rows, None].float(), where, mode="nearest", align_corners=False)[:, 0]
        labels = labels.index_copy(0, rows, nearest.to(labels.dtype))
    return values, labels


def rotation_matrix_xyz(angles_rad: Float[Tensor, "k 3"]) -> Float[Tensor, "k 3 3"]:
    """Rotation matrices on (x, y, z) coordinates, Rz Ry Rx, from angles about the (z, y, x) axes."""
    cos, sin = angles_rad.cos(), angles_rad.sin()
    zero, one = torch.zeros_like(cos[:, 0]), torch.ones_like(cos[:, 0])

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, dim=1).view(-1, 3, 3)

    about_z = matrix(cos[:, 0], -sin[:, 0], zero, sin[:, 0], cos[:, 0], zero, zero, zero, one)
    about_y = matrix(cos[:, 1], zero, sin[:, 1], zero, one, zero, -sin[:, 1], zero, cos[:, 1])
    about_x = matrix(one, zero, zero, zero, cos[:, 2], -sin[:, 2], zero, sin[:, 2], cos[:, 2])
    return about_z @ about_y @ about_x
