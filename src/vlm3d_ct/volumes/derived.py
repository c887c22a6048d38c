"""Regions that no segmentation labels, made from those that it does label and from the outline of the body.

Pleura, pericardium, mediastinum and chest wall are places, not findings: they follow from where lungs, heart, upper
abdomen and skin are, and nothing here looks for fluid, air or masses. The work is done on a grid of about 2 mm. On the
mask's own grid a derived region fills what is unlabelled; pleura and pericardium also take the rim of the lungs, as
they have no room of their own there. Reasons and figures: decision 0018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int16, UInt8
from scipy import ndimage

from vlm3d_ct.volumes.volume import RegionMask, Volume

RIGHT_LUNG, LEFT_LUNG = (1, 2, 3), (4, 5)
LUNGS = RIGHT_LUNG + LEFT_LUNG
AIRWAYS, PLEURA, HEART, PERICARDIUM, AORTA, GREAT_VESSELS, MEDIASTINUM, ESOPHAGUS = 6, 7, 8, 9, 10, 11, 12, 13
SPINE, CHEST_WALL = 15, 17
ABDOMEN = (18, 19, 20)
CENTRAL = (AIRWAYS, HEART, PERICARDIUM, AORTA, GREAT_VESSELS, MEDIASTINUM, ESOPHAGUS, SPINE)
"""What bounds the lungs towards the middle, where the pleura is that of the mediastinum and not counted."""
DERIVED = (PLEURA, PERICARDIUM, MEDIASTINUM, CHEST_WALL)

STEP_MM = 2.0
"""Voxels smaller than this are taken together, as far as whole numbers of them allow."""
PLEURA_MM = 4.0
"""How deep in the lungs the pleura's shell begins."""
PERICARDIUM_MM = 5.0
"""How far around the heart the pericardium's shell reaches: the sac with the fat on both sides."""
NEXT_MM = 10.0
"""How far around a part of the mediastinum its neighbours are looked for."""
WALL_BEYOND_LUNGS_MM = 30.0
"""How far above and below the lungs the body's wall still is chest wall."""
BODY_ABOVE_HU = -300
"""Fat and everything denser; the largest connected piece is the patient, not the table."""

_Spacing = tuple[float, float, float]


def add_derived_regions(mask: RegionMask, volume: Volume) -> RegionMask:
    """The mask with pleura, pericardium, mediastinum and chest wall, as far as its regions allow.

    A region that the mask has is left as it is, but for the chest wall, of which segmentations label a part. What
    cannot be derived is absent: pericardium without a heart, pleura and chest wall without a lung, mediastinum without
    both lungs.
    """
    fine = volume.spacing_mm
    strides = [max(1, round(STEP_MM / mm)) for mm in fine]
    coarse = tuple(slice(stride // 2, None, stride) for stride in strides)
    if 0 in mask.labels[coarse].shape:
        coarse, strides = (slice(None),) * 3, [1, 1, 1]
    labels = np.ascontiguousarray(mask.labels[coarse])
    spacing_mm = (fine[0] * strides[0], fine[1] * strides[1], fine[2] * strides[2])
    found = _derive(labels, volume.voxels_hu[coarse], spacing_mm)
    return replace(mask, labels=_spread(found, mask.labels, strides))


def _derive(
    labels: UInt8[np.ndarray, "z y x"], hu: Int16[np.ndarray, "z y x"], spacing_mm: _Spacing
) -> UInt8[np.ndarray, "z y x"]:
    """The derived regions alone, on the grid of ``labels``; a part of one may lie on a lung."""
    found = np.zeros_like(labels)
    present = set(np.flatnonzero(np.bincount(labels.ravel(), minlength=CHEST_WALL + 1)))
    lungs, heart, free = np.isin(labels, LUNGS), labels == HEART, labels == 0
    if MEDIASTINUM not in present:
        middle = _between_lungs(labels) & free & _above_diaphragm(labels, lungs | heart)
        found[middle & ~_next_to_abdomen(labels, middle, spacing_mm)] = MEDIASTINUM
    if PERICARDIUM not in present and heart.any():
        found[_near(heart, PERICARDIUM_MM, spacing_mm) & (free | lungs)] = PERICARDIUM
    if not lungs.any():
        return found
    if PLEURA not in present:
        inner = lungs | np.isin(labels, CENTRAL) | (found > 0)
        found[lungs & (found == 0) & _near(~inner, PLEURA_MM, spacing_mm, around=lungs)] = PLEURA
    inside = _filled(lungs | np.isin(labels, (PLEURA, *ABDOMEN)) | (found > 0))
    levels = _levels(lungs, round(WALL_BEYOND_LUNGS_MM / spacing_mm[0]))
    found[levels] += (_body(hu, inside) & ~inside & free & (found == 0))[levels] * np.uint8(CHEST_WALL)
    return found


def _near(
    mask: Bool[np.ndarray, "z y x"],
    reach_mm: float,
    spacing_mm: _Spacing,
    around: Bool[np.ndarray, "z y x"] | None = None,
) -> Bool[np.ndarray, "z y x"]:
    """Where the border of ``mask`` is at most ``reach_mm`` away, or ``mask`` itself is; looked for near ``around``.

    Distances run between centres of voxels; the border lies half a voxel before the first one of the mask.
    """
    result = np.zeros_like(mask)
    box = _box(mask if around is None else around, reach_mm, spacing_mm)
    if not mask[box].any():
        return result
    distance = ndimage.distance_transform_edt(~mask[box], sampling=spacing_mm)
    result[box] = distance <= reach_mm + sum(spacing_mm) / 6
    return result


def _box(mask: Bool[np.ndarray, "z y x"], margin_mm: float, spacing_mm: _Spacing) -> tuple[slice, ...]:
    (box,) = ndimage.find_objects(mask.view(np.uint8))
    margins = [int(margin_mm / mm) + 2 for mm in spacing_mm]
    return tuple(
        slice(max(0, part.start - margin), part.stop + margin) for part, margin in zip(box, margins, strict=True)
    )


def _between_lungs(labels: UInt8[np.ndarray, "z y x"]) -> Bool[np.ndarray, "z y x"]:
    """Where the right lung lies to the right and the left lung to the left, in the same row of the same slice."""
    from_right = np.logical_or.accumulate(np.isin(labels, RIGHT_LUNG), axis=2)
    from_left = np.logical_or.accumulate(np.isin(labels[:, :, ::-1], LEFT_LUNG), axis=2)[:, :, ::-1]
    return from_right & from_left


def _above_diaphragm(labels: UInt8[np.ndarray, "z y x"], chest: Bool[np.ndarray, "z y x"]) -> Bool[np.ndarray, "z y x"]:
    """Above the lowest voxel of lung or heart, in the column itself where an abdominal organ lies below it.

    Other columns take the nearest of these columns' height: under a lung that ends on the mediastinum is no diaphragm.
    Where no abdominal organ is labelled, every column with lung or heart counts.
    """
    columns, lowest = np.asarray(chest.any(axis=0)), np.argmax(chest, axis=0)
    abdomen = np.isin(labels, ABDOMEN)
    on_abdomen = columns & abdomen.any(axis=0) & (np.argmax(abdomen, axis=0) < lowest)
    if on_abdomen.any():
        columns = on_abdomen
    if not columns.any():
        return np.zeros_like(chest)
    _, nearest = ndimage.distance_transform_edt(~columns, return_indices=True)
    height = lowest[tuple(nearest)]
    return np.asarray(np.arange(len(labels))[:, None, None] >= height)


def _next_to_abdomen(
    labels: UInt8[np.ndarray, "z y x"], among: Bool[np.ndarray, "z y x"], spacing_mm: _Spacing
) -> Bool[np.ndarray, "z y x"]:
    """Where, up to the highest abdominal organ, the nearest label is that of an abdominal organ.

    Where a scan begins in the upper abdomen, the lungs' lowest voxels alone do not tell fat around the stomach from
    mediastinum.
    """
    result = np.zeros_like(among)
    levels = np.flatnonzero(np.isin(labels, ABDOMEN).any(axis=(1, 2)))
    low = among.copy()
    low[int(levels[-1]) + 1 if len(levels) else 0 :] = False
    if low.any():
        box = _box(low, NEXT_MM, spacing_mm)
        part = labels[box]
        _, nearest = ndimage.distance_transform_edt(part == 0, sampling=spacing_mm, return_indices=True)
        result[box] = np.isin(part[tuple(nearest)], ABDOMEN)
    return result


def _filled(inside: Bool[np.ndarray, "z y x"]) -> Bool[np.ndarray, "z y x"]:
    """With what lies between two voxels of a row or of a column of a slice."""
    row, column = (
        np.logical_or.accumulate(inside, axis=axis)
        & np.flip(np.logical_or.accumulate(np.flip(inside, axis), axis=axis), axis)
        for axis in (2, 1)
    )
    return np.asarray(row | column)


def _levels(mask: Bool[np.ndarray, "z y x"], reach: int) -> slice:
    """The slices that the mask reaches, and some more at both ends."""
    rows = np.flatnonzero(mask.any(axis=(1, 2)))
    return slice(max(0, int(rows[0]) - reach), int(rows[-1]) + reach + 1)


def _body(hu: Int16[np.ndarray, "z y x"], inside: Bool[np.ndarray, "z y x"]) -> Bool[np.ndarray, "z y x"]:
    """The patient; ``inside`` belongs to it whatever its HU, so that nothing within the chest changes its wall."""
    pieces, count = ndimage.label(ndimage.binary_opening((hu > BODY_ABOVE_HU) | inside))
    if count == 0:
        return np.zeros(hu.shape, dtype=bool)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray(pieces == int(sizes.argmax()))


def _spread(
    found: UInt8[np.ndarray, "kz ky kx"], labels: UInt8[np.ndarray, "z y x"], strides: Sequence[int]
) -> UInt8[np.ndarray, "z y x"]:
    """The labels with what was found on the coarse grid, each voxel taking that of the coarse voxel around it."""
    becomes = np.tile(np.arange(256, dtype=np.uint8), (CHEST_WALL + 1, 1))
    becomes[DERIVED, 0] = DERIVED
    for shell in (PLEURA, PERICARDIUM):
        becomes[shell, LUNGS] = shell
    z, y, x = (
        np.minimum(np.arange(size) // stride, coarse - 1)
        for size, stride, coarse in zip(labels.shape, strides, found.shape, strict=True)
    )
    result = np.empty_like(labels)
    for plane, coarse_plane in enumerate(z):
        result[plane] = becomes[found[coarse_plane][y[:, None], x], labels[plane]]
    return result
