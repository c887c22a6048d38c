"""The trunk: body wall, thoracic cavity, mediastinum, diaphragm, and the lungs with their lobes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Field, Grid, Number, ellipsoid_depth, unit_axes
from vlm3d_ct.phantom.patient import Patient

PLEURA, MEDIASTINUM, CHEST_WALL = 7, 12, 17
PLEURA_MM = 4.0
"""Thickness of the pleural shell in the mask, at least a voxel; the anatomical pleura is far thinner."""
SPINE_Y = 62.0
"""Where the vertebral bodies' centres are, at the mean depth of the cavity."""
BODY_POWER = 2.4
CAVITY_POWER = 2.2
HEART_AXES = unit_axes((-0.35, -0.5, 0.8))
"""Directions of the heart's half axes: the long one points down, forwards and to the left."""


def _smoothstep(value: Field, low: Number, high: Number) -> Field:
    t = np.clip((value - low) / (high - low), 0, 1).astype(np.float32)
    return np.asarray(t * t * (3 - 2 * t))


def spine_y(patient: Patient) -> float:
    """Distance of the vertebral bodies' centres behind mid chest, in mm."""
    return SPINE_Y + 0.8 * (patient.cavity_half_depth - 84)


def body_axes(patient: Patient, z: Field) -> tuple[Field, Field]:
    """Half width and half depth of the trunk at heights z: wider and flatter at the shoulders, narrow at the neck."""
    shoulder, neck = _smoothstep(z, 40, 95), _smoothstep(z, 105, 165)
    width = patient.body_half_width + 6 * shoulder - 70 * neck
    depth = patient.body_half_depth - 22 * shoulder - 18 * neck
    return width, depth


def body_depth(patient: Patient, grid: Grid) -> Field:
    """Depth below the skin, breasts included."""
    width, depth = body_axes(patient, grid.z)
    y = grid.y - 16 * _smoothstep(grid.z, 40, 95)
    q = np.abs(grid.x / width) ** BODY_POWER + np.abs(y / depth) ** BODY_POWER
    q **= np.float32(1 / BODY_POWER)
    trunk = (1 - q) * np.sqrt(width * depth)
    if patient.sex == "female":
        for side in (-1, 1):
            centre = (-5.0, -patient.body_half_depth + 14, side * 72.0)
            half = (58.0, 26.0 + 0.6 * patient.fat, 50.0)
            box = grid.box_around(centre, half)
            part = grid.crop(box)
            trunk[box] = np.maximum(trunk[box], ellipsoid_depth(part, centre, half))
    return np.asarray(trunk, dtype=np.float32)


def cavity_depth(patient: Patient, grid: Grid) -> Field:
    """Depth inside the thoracic wall: an ellipse that closes in a blunt dome at the apices."""
    t = np.clip((grid.z + 20) / np.float32(patient.apex_z + 20), 0, 1)
    taper = np.maximum((1 - t**2.4), 1e-4) ** np.float32(0.5)
    width, depth = patient.cavity_half_width * taper, patient.cavity_half_depth * taper
    y = grid.y - 10 * t * t
    q = np.abs(grid.x / width) ** CAVITY_POWER + np.abs(y / depth) ** CAVITY_POWER
    q **= np.float32(1 / CAVITY_POWER)
    return np.asarray((1 - q) * np.sqrt(width * depth), dtype=np.float32)


def mediastinum_depth(patient: Patient, grid: Grid) -> Field:
    """Depth inside what parts the lungs: a column of vessels and fat, the heart, the spine, the aorta."""
    half_width = patient.mediastinum_half_width + 8 * _smoothstep(grid.z, 40, 100)
    q2 = ((grid.x - 2) / half_width) ** 2 + ((grid.y + 8) / np.float32(62)) ** 2
    total = np.asarray((1 - np.sqrt(q2)) * half_width, dtype=np.float32)
    junction = np.minimum(5 - np.abs(grid.x - 1), -20 - grid.y)
    np.maximum(total, junction, out=total)
    spine = 22 - np.sqrt(grid.x**2 + (grid.y - np.float32(spine_y(patient))) ** 2)
    np.maximum(total, spine, out=total)
    descending = np.minimum(17 - np.sqrt((grid.x - 24) ** 2 + (grid.y - np.float32(46)) ** 2), 60 - grid.z)
    np.maximum(total, descending, out=total)
    heart, margin = patient.heart, 7.0
    half = (heart.half_mm[0] + margin, heart.half_mm[1] + margin, heart.half_mm[2] + margin)
    box = grid.box_around(heart.centre_mm, (max(half) + 10,) * 3)
    inside = ellipsoid_depth(grid.crop(box), heart.centre_mm, half, HEART_AXES)
    total[box] = np.maximum(total[box], inside)
    return total


def diaphragm_surface(patient: Patient, grid: Grid) -> Float32[np.ndarray, "1 y x"]:
    """Height of the diaphragm at each (y, x): two domes that fall off steeply towards the wall."""
    q2 = (grid.x / np.float32(patient.cavity_half_width)) ** 2 + (grid.y / np.float32(patient.cavity_half_depth)) ** 2
    surface = patient.diaphragm_z - 55 * np.minimum(q2, 1.4) ** 2
    for side, rise in ((-1, patient.dome_right), (1, patient.dome_left)):
        dome = np.exp(-(((grid.x - side * 66) / 42) ** 2) - ((grid.y - 5) / 60) ** 2)
        surface = surface + rise * dome
    return np.asarray(surface, dtype=np.float32)


def lung_depth(patient: Patient, grid: Grid, cavity: Field, mediastinum: Field) -> Field:
    """Depth inside the lungs: in the cavity, beside the mediastinum, above the diaphragm."""
    above = (grid.z - diaphragm_surface(patient, grid)) * np.float32(0.75)
    depth = np.minimum(cavity - 1, above)
    return np.asarray(np.minimum(depth, -mediastinum, out=depth))


def oblique_height(patient: Patient, grid: Grid, side: int) -> Float32[np.ndarray, "z y 1"]:
    """Height above the oblique fissure of the right (0) or left (1) lung: it rises towards the back."""
    surface = patient.fissure_z[side] + patient.fissure_slope[side] * grid.y - 0.0012 * grid.y**2
    return np.asarray(grid.z - surface, dtype=np.float32)


def lobe_ids(patient: Patient, grid: Grid) -> np.ndarray:
    """Lobe ids 1..5 by fissures and side alone, for every voxel of the grid."""
    horizontal = grid.z - (patient.horizontal_z + 0.08 * (grid.y + 40))
    right_upper = np.where(horizontal > 0, 1, 2)
    right = np.where(oblique_height(patient, grid, 0) > 0, right_upper, 3)
    left = np.where(oblique_height(patient, grid, 1) > 0, 4, 5)
    return np.where(grid.x < 0, right, left).astype(np.uint8)


def find_lungs(canvas: Canvas, patient: Patient) -> Field:
    """Set the canvas's lobes and its depths in the cavity and in the mediastinum; returns the depth in the lungs."""
    grid = canvas.grid
    canvas.cavity_depth = cavity_depth(patient, grid)
    canvas.mediastinum_depth = mediastinum_depth(patient, grid)
    lungs = lung_depth(patient, grid, canvas.cavity_depth, canvas.mediastinum_depth)
    canvas.lobes = np.where(lungs > 0, lobe_ids(patient, grid), np.uint8(0))
    return lungs


def paint_trunk(canvas: Canvas, patient: Patient) -> None:
    """Paint skin, fat and muscle, the cavity's fat, and the lungs, and set their region ids."""
    grid, whole = canvas.grid, canvas.whole()
    body = body_depth(patient, grid)
    canvas.paint(whole, body, tissue.SKIN, label=CHEST_WALL)
    canvas.paint(whole, body - np.float32(2.5), tissue.FAT)
    canvas.paint(whole, body - np.float32(patient.fat), tissue.MUSCLE)
    for side in (-1, 1):  # supraclavicular fat
        canvas.ellipsoid((122, -8, side * 62), (26, 20, 30), tissue.FAT, within=(CHEST_WALL,))
    _paint_breasts(canvas, patient)
    lungs = find_lungs(canvas, patient)
    canvas.paint(whole, canvas.cavity_depth, tissue.FAT)
    aerated = np.float32(patient.lung_hu) + np.float32(tissue.LUNG_GRADIENT_PER_MM) * grid.y
    canvas.paint(whole, lungs, np.asarray(aerated))
    _label_trunk(canvas, patient, lungs)


def _label_trunk(canvas: Canvas, patient: Patient, lungs: Field) -> None:
    """Set the ids of mediastinum, lobes and pleura; what lies below the diaphragm becomes background."""
    labels, cavity = canvas.labels, canvas.cavity_depth
    height = canvas.grid.z - diaphragm_surface(patient, canvas.grid)
    inside = cavity > 0
    labels[inside] = 0
    labels[inside & (height > 0)] = MEDIASTINUM
    np.copyto(labels, canvas.lobes, where=canvas.lobes > 0)
    shell = max(PLEURA_MM, 1.2 * canvas.grid.edge_mm)
    near_wall = np.minimum(cavity, height * np.float32(0.75))
    labels[(near_wall < shell) & (lungs > 0)] = PLEURA
    labels[(near_wall <= 0) & (near_wall > -1.5) & (canvas.mediastinum_depth < -2) & (cavity > -1.5)] = PLEURA


def paint_fissures(canvas: Canvas, patient: Patient) -> None:
    """Paint the fissures as thin lines; on a coarse grid they fade as they do on thick slices."""
    grid = canvas.grid
    strength = min(1.0, 1.5 / grid.edge_mm)
    for side, lobes in ((0, (1, 2, 3)), (1, (4, 5))):
        line = 0.8 - 0.7 * np.abs(oblique_height(patient, grid, side))
        where = np.isin(canvas.lobes, lobes)
        canvas.paint(canvas.whole(), line, tissue.FISSURE, where=where, strength=strength)


def _paint_breasts(canvas: Canvas, patient: Patient) -> None:
    if patient.sex == "female":
        for side in (-1, 1):
            centre = (-5.0, -patient.body_half_depth + 4 - 0.3 * patient.fat, side * 74.0)
            canvas.ellipsoid(centre, (24.0, 10.0, 22.0), tissue.BREAST_GLAND, within=(CHEST_WALL,))
