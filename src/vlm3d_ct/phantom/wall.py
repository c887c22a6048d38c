"""The chest wall: skin, fat beneath it, muscles over the ribs, breasts, shoulders, and arms beside the body."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Box, Field, Grid, Triple, across_outline, ellipsoid_depth, polar, smoothstep, texture
from vlm3d_ct.phantom.patient import Patient
from vlm3d_ct.phantom.region_ids import CHEST_WALL
from vlm3d_ct.phantom.rounded import exponential, sine
from vlm3d_ct.phantom.thorax import POLE_Y, cavity_radius, superellipse
from vlm3d_ct.phantom.tubes import joined, near_tubes, polyline
from vlm3d_ct.seeding import random_stream

BODY_POWER = 2.4
SKIN_MM = 2.0
RIB_CAGE_MM = 12.0
"""Ribs and intercostal muscles lie this deep outside the cavity."""
MUSCLES = (
    # direction and spread in degrees (0 back, 180 front), thickness in mm, from and to a height in mm (fading over 30)
    (24, 13, 27, -400, 130),  # erector spinae
    (48, 22, 9, -30, 130),  # trapezius, rhomboids
    (68, 20, 15, -110, 70),  # latissimus, teres
    (62, 18, 12, 15, 100),  # infraspinatus and subscapularis
    (95, 30, 5, -140, 40),  # serratus
    (143, 17, 13, 0, 105),  # pectoralis
    (165, 25, 6, -400, -60),  # abdominal wall
)
SHOULDERS_MM = (62.0, 100.0)
"""Between these heights the wall becomes shoulder: muscle up to the fat beneath the skin."""
ARM_RADIUS_MM = 37.0
"""Of the upper arm without its fat."""
LEVEL = np.zeros((1, 1), dtype=np.float32)
"""Height at which the slope of an outline is taken: it hardly changes along the trunk."""
BREAST_REACH_MM = 24.0
"""The breasts, and the belly, reach at most this far in front of the chest."""
BREAST_BLEND_MM = np.float32(14)
"""Over this distance the breast's surface flows into the chest's."""
MARBLING_MM = 26.0
"""Wavelength of the fat in muscle."""
GLAND_MM = 9.0
"""Wavelength of the strands of breast gland."""


def body_axes(patient: Patient, z: Field) -> tuple[Field, Field]:
    """Half width and half depth of the trunk at heights z: wider and flatter at the shoulders, narrow at the neck.

    With the arms up the shoulders rise with them and take the place of the neck.
    """
    shoulder, neck = smoothstep(z, 40, 95), smoothstep(z, 105, 165)
    narrowing = 75 if patient.arms == "down" else 20
    width = patient.body_half_width + (22 if patient.arms == "down" else 10) * shoulder - narrowing * neck
    depth = patient.body_half_depth - 22 * shoulder - 14 * neck - 8 * smoothstep(z, -40, 70)
    return width, depth


def body_shift(z: Field) -> Field:
    """How far the trunk's middle lies behind mid chest at heights z."""
    return np.asarray(16 * smoothstep(z, 40, 95))


def body_radius(patient: Patient, z: Field, turn: Field) -> Float32[np.ndarray, "..."]:
    """Radius of the trunk without breasts from the axis of the cavity, in directions as `cavity_radius` has them."""
    width, depth = body_axes(patient, z)
    shift = body_shift(z) - np.float32(POLE_Y)
    belly = (4 + 18 * patient.visceral_fat) * smoothstep(-z, 75, 175)
    radius = superellipse(width + np.float32(0.4) * belly, depth - shift + belly, depth + shift, turn, BODY_POWER)
    groove = exponential(-((turn / np.float32(0.16)) ** 2)) * (5 + 3 * smoothstep(z, -80, 40))
    return np.asarray(radius - groove, dtype=np.float32)


def _under_skin_mm(patient: Patient) -> float:
    """Skin and fat over the muscles of the shoulder."""
    return max(0.75 * patient.fat, SKIN_MM + 1.5)


def _muscle_radius(patient: Patient, z: Field, turn: Field, body: Field) -> Float32[np.ndarray, "z bins"]:
    """Radius of the outer surface of the muscles."""
    degrees = np.abs(turn) * np.float32(180 / math.pi)
    thickness = np.full(np.broadcast_shapes(z.shape, turn.shape), 1.5, dtype=np.float32)
    for direction, spread, most, low, high in MUSCLES:
        level = smoothstep(z, low - 15, low + 15) * (1 - smoothstep(z, high - 15, high + 15))
        thickness += most * level * exponential(-(((degrees - direction) / spread) ** 2))
    chest = cavity_radius(patient, z, turn) + RIB_CAGE_MM + np.float32(patient.muscle / 12.5) * thickness
    under_skin = np.float32(_under_skin_mm(patient))
    shoulder = smoothstep(z, *SHOULDERS_MM)
    mixed = (1 - shoulder) * chest + shoulder * (body - under_skin)
    return np.asarray(np.minimum(mixed, body - np.float32(SKIN_MM + 1.5)), dtype=np.float32)


def paint_wall(canvas: Canvas, patient: Patient) -> None:
    """Paint skin, fat and muscle of the trunk, breasts and upper arms, and set their region id."""
    reach = patient.body_half_depth + BREAST_REACH_MM
    box = canvas.grid.box((-1e4, -reach, -1e4), (1e4, reach, 1e4))
    part = canvas.grid.crop(box)
    around = polar(part, POLE_Y)
    z, turn = part.z[:, :, 0], around.turn[None]
    outline = body_radius(patient, z, turn)
    across = across_outline(body_radius(patient, LEVEL, turn)[0])
    body = around.depth(outline, across)
    muscle = around.depth(_muscle_radius(patient, z, turn, outline), across)
    if patient.sex == "female":
        _add_breasts(part, patient, body)
    _add_arms(part, patient, body, muscle)
    canvas.paint(box, body, tissue.SKIN, label=CHEST_WALL)
    body -= np.float32(SKIN_MM)
    canvas.paint(box, body, tissue.FAT)
    marbled = texture(part, random_stream("phantom marbling", patient.seed), MARBLING_MM)
    marbled *= np.float32(patient.marbling_hu)
    marbled += np.float32(patient.muscle_hu)
    canvas.paint(box, muscle, marbled)
    if not canvas.coarse:
        _paint_fat_planes(canvas, patient, box, muscle)
    _paint_armpits(canvas, patient)
    if patient.sex == "female":
        _paint_glands(canvas, patient)


def _paint_fat_planes(canvas: Canvas, patient: Patient, box: Box, muscle: Field) -> None:
    """Thin layers of fat between the muscles, at uneven depths; too thin for coarse grids."""
    part = canvas.grid.crop(box)
    around = polar(part, POLE_Y)
    z, turn = part.z[:, :, 0], around.turn[None]
    chest = cavity_radius(patient, z, turn) + np.float32(RIB_CAGE_MM)
    under_skin = body_radius(patient, z, turn) - np.float32(_under_skin_mm(patient))
    across = across_outline(cavity_radius(patient, LEVEL, turn)[0])
    wave = np.float32(2.5) * sine(3 * turn + z / 25) + np.float32(1.5) * sine(7 * turn - z / 17)
    half = np.float32(0.3 + 0.8 * patient.visceral_fat)
    uneven = np.float32(0.8) * texture(part, random_stream("phantom muscle", patient.seed), 40.0)
    shoulder = smoothstep(z, *SHOULDERS_MM)
    for offset, strength in ((1.5, 0.9), (11.0, 0.7)):
        middle = (1 - shoulder) * (chest + np.float32(offset)) + shoulder * (under_skin - np.float32(1.6 * offset + 8))
        plane = half + uneven - np.abs(around.depth(middle + wave, across))
        canvas.paint(box, np.minimum(plane, muscle - 2), tissue.FAT, strength=strength)


def _breasts(patient: Patient) -> list[tuple[Triple, Triple]]:
    """Centre and half axes of both breasts: in the supine patient they lie flat and to the side."""
    half = (50.0, 20.0 + 0.7 * patient.fat, 50.0)
    return [((-10.0, -patient.body_half_depth + 24, side * 80.0), half) for side in (-1, 1)]


def _add_breasts(grid: Grid, patient: Patient, body: Field) -> None:
    for centre, half in _breasts(patient):
        box = grid.box_around(centre, (half[0] + 16, half[1] + 16, half[2] + 16))
        breast = ellipsoid_depth(grid.crop(box), centre, half)
        blend = np.maximum(BREAST_BLEND_MM - np.abs(breast - body[box]), 0)
        body[box] = np.maximum(body[box], breast) + blend * blend * np.float32(0.25 / BREAST_BLEND_MM)


def _paint_glands(canvas: Canvas, patient: Patient) -> None:
    """Strands of gland in the breasts' fat, fewer with age."""
    share = np.float32(0.9 - 0.025 * (patient.age_years - 30))
    for side, ((z, y, x), half) in enumerate(_breasts(patient)):
        centre = (z, y - 0.45 * half[1], x)
        size = (0.55 * half[0], 0.42 * half[1], 0.55 * half[2])
        box = canvas.grid.box_around(centre, size)
        part = canvas.grid.crop(box)
        if 0 in part.shape:
            continue
        strands = texture(part, random_stream("phantom gland", patient.seed, side), GLAND_MM)
        depth = np.minimum(ellipsoid_depth(part, centre, size), 3 * (strands + share))
        canvas.paint(box, depth, tissue.BREAST_GLAND, where=canvas.labels[box] == CHEST_WALL, strength=0.8)


def _paint_armpits(canvas: Canvas, patient: Patient) -> None:
    """Fat of the armpits and above the clavicles, with strands of tissue in it."""
    aside = patient.cavity_half_width
    for side in (-1, 1):
        bodies: tuple[tuple[Triple, Triple], ...] = (
            ((68, -8, side * (aside + 8)), (34, 22, 13)),
            ((124, -4, side * 62), (24, 26, 24)),
        )
        for centre, half in bodies:
            box = canvas.grid.box_around(centre, half)
            part = canvas.grid.crop(box)
            if 0 not in part.shape:
                strands = texture(part, random_stream("phantom armpit", patient.seed, side), 18.0)
                depth = np.minimum(ellipsoid_depth(part, centre, half), 5 * (strands + 1))
                canvas.paint(box, depth, tissue.FAT, where=canvas.labels[box] == CHEST_WALL)


def arm_path(patient: Patient, side: int) -> list[Triple]:
    """From the shoulder's joint along the upper arm: up and outwards, or down beside the body."""
    if patient.arms == "up":
        return [(116.0, 8.0, side * 150.0), (150.0, -4.0, side * 166.0), (200.0, -18.0, side * 176.0)]
    aside = patient.body_half_width + 0.5 * patient.fat
    return [(92.0, 12.0, side * (aside + 8)), (30.0, 22.0, side * (aside + 40)), (-190.0, 30.0, side * (aside + 58))]


def _add_arms(grid: Grid, patient: Patient, body: Field, muscle: Field) -> None:
    """Both upper arms join the trunk; their bones are painted with the other bones."""
    layer = 0.5 * patient.fat
    arms = joined([polyline(arm_path(patient, side), ARM_RADIUS_MM + layer) for side in (-1, 1)])
    near = near_tubes(grid, arms)
    for depth, inset in ((body, 0.0), (muscle, SKIN_MM + layer)):
        flat = depth.reshape(-1)
        flat[near.voxel] = np.maximum(flat[near.voxel], near.depth_mm - np.float32(inset))
