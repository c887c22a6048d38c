"""The thoracic cavity and the lungs in it, with their lobes: between mediastinum, diaphragm and chest wall."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Box, Field, Grid, Number, across_outline, polar, smoothstep, texture
from vlm3d_ct.phantom.landmarks import aorta_path, aorta_radius, diaphragm_surface, heart_bodies, spine_y
from vlm3d_ct.phantom.patient import Patient
from vlm3d_ct.phantom.region_ids import MEDIASTINUM, PLEURA
from vlm3d_ct.phantom.rounded import cosine, exponential, power, sine
from vlm3d_ct.phantom.tubes import Near, member, paint_near
from vlm3d_ct.seeding import random_stream

POLE_Y = 8.0
"""The axis around which cavity and trunk are described lies this far behind mid chest."""
PLEURA_MM = 4.0
"""Thickness of the pleural shell in the mask, at least a voxel; the anatomical pleura is far thinner."""
CAVITY_POWER = 2.2
SPINE_MARGIN_MM, HEART_MARGIN_MM, AORTA_MARGIN_MM = 21.0, 6.0, 3.0
"""From the centre of a vertebral body, the heart and the aorta to the lung."""
CAGE_MM, FAR_MM = 16.0, np.float32(-99)
"""Ribs and what is between them lie this close to the cavity; depths further out are not computed."""
RESOLUTION_MM = 1.3
"""Width over which a scanner with a standard kernel spreads an edge."""
TEXTURE_MM = 70.0
"""Wavelength of the slow changes of the lung's density."""


def cavity_radius(patient: Patient, z: Field, turn: Field) -> Float32[np.ndarray, "..."]:
    """Radius of the thoracic cavity from its axis at heights z, in directions (0 back, pi front, positive left).

    A superellipse whose front recedes towards the head, and which closes in a blunt dome at the apices.
    """
    t = np.clip((z + 20) / np.float32(patient.apex_z + 20), 0, 1)
    taper = np.sqrt(np.maximum(1 - power(t, 2.4), np.float32(1e-4)))
    shift = 10 * t * t - POLE_Y
    width = patient.cavity_half_width * taper * (1 + np.float32(0.04) * smoothstep(-z, 20, 90))
    front = patient.cavity_half_depth * taper * (1 - np.float32(0.16) * smoothstep(z, -40, 80)) - shift
    back = patient.cavity_half_depth * taper + shift
    return superellipse(width, front, back, turn, CAVITY_POWER)


def superellipse(width: Field, front: Field, back: Field, turn: Field, bend: Number) -> Float32[np.ndarray, "..."]:
    """Radius of a superellipse with these half axes (at least 0.5 mm), in directions as `cavity_radius` has them."""
    aside, behind = np.abs(sine(turn)), cosine(turn)
    halves = (width, np.where(behind < 0, front, back))
    across, depth = (power(np.maximum(half, np.float32(0.5)), -bend) for half in halves)
    return power(power(aside, bend) * across + power(np.abs(behind), bend) * depth, -1 / bend)


def cavity_depth(patient: Patient, grid: Grid) -> Field:
    """Depth inside the thoracic wall."""
    around = polar(grid, POLE_Y)
    level = np.zeros((1, 1), dtype=np.float32)
    across = across_outline(cavity_radius(patient, level, around.turn[None])[0])
    return around.depth(cavity_radius(patient, grid.z[:, :, 0], around.turn[None]), across)


def mediastinum_reach(patient: Patient, grid: Grid, side: int) -> Float32[np.ndarray, "z y"]:
    """How far the mediastinum reaches from the midline to one side (-1 right, 1 left) at each (z, y)."""
    z, y = grid.z[:, :, 0], grid.y[:, :, 0]
    high = smoothstep(z, -20, 35)
    half_width = 15 + (patient.mediastinum_half_width - 20) * high + 6 * smoothstep(z, 55, 95)
    inside = 1 - ((y - 18 + 26 * high) / (36 + 24 * high)) ** 2
    reach = (half_width + 2 * side) * np.sqrt(np.maximum(inside, 0))
    np.maximum(reach, np.where(y < -20, np.float32(1.2), np.float32(3)), out=reach)
    behind = y - spine_y(patient, z)
    spine = np.sqrt(np.maximum(np.float32(SPINE_MARGIN_MM**2) - behind * behind, 0))
    np.maximum(reach, np.where(behind > 0, SPINE_MARGIN_MM + np.float32(0.2) * behind, spine), out=reach)
    if side > 0:
        descending = np.array(aorta_path(patient)[7:], dtype=np.float32)[::-1]
        centre_y, centre_x = (np.interp(z, descending[:, 0], descending[:, axis]) for axis in (1, 2))
        radius = 0.93 * aorta_radius(patient) + AORTA_MARGIN_MM
        aorta = centre_x + np.sqrt(np.maximum(radius**2 - (y - centre_y) ** 2, 0))
        np.maximum(reach, np.where((np.abs(y - centre_y) < radius) & (z < 45), aorta, 0), out=reach)
    np.maximum(reach, _heart_reach(patient, z, y, side), out=reach)
    return np.asarray(reach, dtype=np.float32)


def _heart_reach(patient: Patient, z: Field, y: Field, side: int) -> Field:
    """How far the heart with its fat reaches to one side: the root of its ellipsoids' equations in x; 0 beside them."""
    reach = np.zeros(np.broadcast_shapes(z.shape, y.shape), dtype=np.float32)
    for (cz, cy, cx), half, axes in heart_bodies(patient.heart):
        scaled = axes / (np.array(half) + HEART_MARGIN_MM)[:, None]
        az, ay, ax = (column[:, None, None].astype(np.float32) for column in scaled.T)
        rest = az * (z - np.float32(cz)) + ay * (y - np.float32(cy))
        a, b, c = float((ax * ax).sum()), (ax * rest).sum(0), (rest * rest).sum(0) - 1
        inside = b * b - np.float32(a) * c
        found = np.where(inside > 0, side * (cx - b / a) + np.sqrt(np.maximum(inside, 0)) / a, 0)
        np.maximum(reach, found, out=reach)
    return reach


def mediastinum_depth(patient: Patient, grid: Grid) -> Field:
    """Depth inside what parts the lungs, along x: vessels and fat, the heart, the spine, the aorta."""
    total = np.empty(grid.shape, dtype=np.float32)
    left = int(np.searchsorted(grid.x[0, 0], 0))
    np.add(mediastinum_reach(patient, grid, -1)[:, :, None], grid.x[:, :, :left], out=total[:, :, :left])
    np.subtract(mediastinum_reach(patient, grid, 1)[:, :, None], grid.x[:, :, left:], out=total[:, :, left:])
    return total


def lung_depth(patient: Patient, grid: Grid, cavity: Field, mediastinum: Field) -> Field:
    """Depth inside the lungs: in the cavity, beside the mediastinum, above the diaphragm."""
    depth = grid.z - diaphragm_surface(patient, grid)
    depth *= np.float32(0.75)
    np.minimum(depth, cavity - np.float32(1), out=depth)
    return np.asarray(np.minimum(depth, -mediastinum, out=depth))


def oblique_surface(patient: Patient, grid: Grid, side: int) -> Float32[np.ndarray, "1 y x"]:
    """Height of the oblique fissure of the right (0) or left (1) lung: it rises to the back and falls to the side."""
    rise = patient.fissure_slope[side] * grid.y - np.float32(0.0012) * grid.y**2
    aside = np.abs(grid.x) - 55
    return np.asarray(patient.fissure_z[side] + rise - np.float32(0.12) * aside - np.float32(0.0012) * aside**2)


def horizontal_surface(patient: Patient, grid: Grid) -> Float32[np.ndarray, "1 y x"]:
    """Height of the horizontal fissure of the right lung, a shallow dome."""
    dome = ((grid.x + 60) / 60) ** 2 + ((grid.y + 30) / 60) ** 2
    return np.asarray(patient.horizontal_z + 4 + np.float32(0.06) * (grid.y + 40) - np.float32(5) * dome)


def lobe_ids(patient: Patient, grid: Grid) -> UInt8[np.ndarray, "z y x"]:
    """Lobe ids 1..5 by fissures and side alone, for every voxel of the grid."""
    ids = np.empty(grid.shape, dtype=np.uint8)
    middle = int(np.searchsorted(grid.x[0, 0], 0))
    right, left = (grid.crop((slice(0, grid.shape[0]), slice(0, grid.shape[1]), columns))
                   for columns in (slice(0, middle), slice(middle, grid.shape[2])))  # fmt: skip
    upper = np.where(grid.z > horizontal_surface(patient, right), np.uint8(1), np.uint8(2))
    ids[:, :, :middle] = np.where(grid.z > oblique_surface(patient, right, 0), upper, np.uint8(3))
    ids[:, :, middle:] = np.where(grid.z > oblique_surface(patient, left, 1), np.uint8(4), np.uint8(5))
    return ids


def find_lungs(canvas: Canvas, patient: Patient) -> tuple[Box, Field]:
    """Set the canvas's lobes, and its depths in the cavity and in the mediastinum, at least `FAR_MM`.

    Returns:
        The box of the rib cage, and the depth in the lungs there.
    """
    width, depth = 1.04 * patient.cavity_half_width + CAGE_MM, patient.cavity_half_depth + CAGE_MM
    box = canvas.grid.box((-1e4, -depth, -width), (patient.apex_z + CAGE_MM, depth + 10, width))
    part = canvas.grid.crop(box)
    for field in (canvas.cavity_depth, canvas.mediastinum_depth):
        field.fill(FAR_MM)
    canvas.lobes.fill(0)
    cavity, mediastinum = cavity_depth(patient, part), mediastinum_depth(patient, part)
    lungs = lung_depth(patient, part, cavity, mediastinum)
    np.maximum(cavity, FAR_MM, out=canvas.cavity_depth[box])
    np.maximum(mediastinum, FAR_MM, out=canvas.mediastinum_depth[box])
    np.multiply(lobe_ids(patient, part), lungs > 0, out=canvas.lobes[box])
    return box, lungs


def paint_cavity(canvas: Canvas, patient: Patient) -> None:
    """Paint the cavity's fat and the lungs, and set their region ids; below the diaphragm is background."""
    box, lungs = find_lungs(canvas, patient)
    part = canvas.grid.crop(box)
    canvas.paint(box, canvas.cavity_depth[box], tissue.FAT)
    aerated = texture(part, random_stream("phantom lung", patient.seed), TEXTURE_MM)
    aerated *= np.float32(patient.lung_unevenness_hu)
    aerated += np.float32(patient.lung_hu) + np.float32(patient.lung_gradient) * part.y
    _add_hypostasis(canvas, patient, box, aerated)
    canvas.paint(box, lungs, aerated)
    _label_cavity(canvas, patient, box, lungs)


def _add_hypostasis(canvas: Canvas, patient: Patient, box: Box, aerated: Field) -> None:
    """Add the dense layer at the back of the supine patient's lungs, thickest at the bases: normal."""
    part = canvas.grid.crop(box)
    rng = random_stream("phantom hypostasis", patient.seed)
    reach = np.float32(rng.uniform(6, 16))
    behind = np.clip((part.y - 10) * np.float32(1 / 50), 0, 1) * np.clip((60 - part.z) * np.float32(1 / 130), 0, 1)
    share = exponential(np.maximum(canvas.cavity_depth[box], 0) * (-1 / reach))
    share *= behind * np.float32(patient.hypostasis)
    aerated += share * (tissue.HYPOSTATIC_LUNG - aerated)


def _label_cavity(canvas: Canvas, patient: Patient, box: Box, lungs: Field) -> None:
    labels, lobes, cavity = (field[box] for field in (canvas.labels, canvas.lobes, canvas.cavity_depth))
    part = canvas.grid.crop(box)
    above = part.z - diaphragm_surface(patient, part)
    np.copyto(labels, (above > 0) * np.uint8(MEDIASTINUM), where=cavity > 0)
    np.copyto(labels, lobes, where=lobes > 0)
    above *= np.float32(0.75)
    near_wall = np.minimum(cavity, above, out=above)
    shell = max(PLEURA_MM, 1.2 * part.edge_mm)
    np.copyto(labels, np.uint8(PLEURA), where=(near_wall < shell) & (lungs > 0))
    rim = (near_wall <= 0) & (near_wall > -1.5) & (canvas.mediastinum_depth[box] < -2)
    np.copyto(labels, np.uint8(PLEURA), where=rim)


def paint_fissures(canvas: Canvas, patient: Patient) -> None:
    """Paint the fissures as thin lines; on a coarse grid they fade as they do on thick slices."""
    grid = canvas.grid
    half_mm, hu = (1.5, tissue.PROMINENT_FISSURE) if patient.prominent_fissure else (0.5, tissue.FISSURE)
    strength = min(1.0, 2 * half_mm / max(grid.edge_mm, RESOLUTION_MM))
    sheets = (
        (oblique_surface(patient, grid, 0), (1, 2, 3), patient.fissure_slope[0]),
        (oblique_surface(patient, grid, 1), (4, 5), patient.fissure_slope[1]),
        (horizontal_surface(patient, grid), (1, 2), 0.25),
    )
    for surface, lobes, slope in sheets:
        near = _near_sheet(grid, surface[0], half_mm, slope)
        near = near.where(member(lobes)[canvas.lobes.reshape(-1)[near.voxel]])
        paint_near(canvas, near, hu, strength=strength)


def _near_sheet(grid: Grid, surface_mm: Float32[np.ndarray, "y x"], half_mm: Number, slope: Number) -> Near:
    """The voxels of the grid in a sheet of this half thickness along a surface of about this slope."""
    z0, dz = (np.float32(triple[0]) for triple in (grid.origin_mm, grid.spacing_mm))
    upright = np.float32((1 + slope**2) ** -0.5)
    place = (surface_mm - z0) / dz
    nearest = np.rint(place).astype(np.int64)
    reach = int(np.ceil((half_mm + grid.edge_mm / 2) / upright / grid.spacing_mm[0] - 0.5))
    plane = np.arange(place.size).reshape(place.shape)
    parts: list[tuple[Int64[np.ndarray, " n"], Field]] = []
    for step in range(-max(0, reach), max(0, reach) + 1):
        index = nearest + step
        depth = np.float32(half_mm) - np.abs(index - place).astype(np.float32) * dz * upright
        inside = (index >= 0) & (index < grid.shape[0]) & (depth > -grid.edge_mm / 2)
        parts.append(((index * place.size + plane)[inside], depth[inside]))
    voxel, depth = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Near(voxel=voxel, depth_mm=depth.astype(np.float32), tube=np.zeros_like(voxel))
