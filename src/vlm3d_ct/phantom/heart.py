"""The heart: pericardium, fat, muscle, the blood in its four chambers, and the coronary arteries."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float32

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Box, Field, Triple, ellipsoid_depth
from vlm3d_ct.phantom.landmarks import HEART_AXES, heart_bodies
from vlm3d_ct.phantom.patient import Heart, Patient
from vlm3d_ct.phantom.region_ids import HEART, LIVER, LUNGS, MEDIASTINUM, OUTSIDE, PERICARDIUM, UPPER_ABDOMEN
from vlm3d_ct.phantom.rounded import exponential
from vlm3d_ct.phantom.tubes import Tubes, joined, paint_tubes, polyline

ATRIUM_BLEND_MM = 8.0
"""Over this distance the right atrium's surface flows into the heart's."""
PERICARDIUM_MM = 4.0
"""Thickness of the pericardial shell in the mask, at least a voxel; the membrane itself is 1.5 mm thick."""
LEFT_WALL_MM, RIGHT_WALL_MM = 7.0, 2.5
GROOVE_AT, GROOVE_WIDTH, GROOVE_MM = -0.12, 0.08, 4.0
"""Fat between atria and ventricles: place and width along the heart's axis, in half axes, and depth."""
CORONARY_SHARE = 0.93
"""Share of the way from the heart's centre to its surface at which the coronary arteries run."""
CORONARIES: dict[str, tuple[Triple, ...]] = {
    "left main": ((0.62, -0.3, -0.1), (0.75, -0.45, 0.25)),
    "left anterior descending": ((0.75, -0.6, 0.3), (0.4, -0.78, 0.55), (-0.1, -0.8, 0.75), (-0.4, -0.65, 0.8)),
    "left circumflex": ((0.75, -0.35, 0.45), (0.5, 0.45, 0.85), (0.1, 0.55, 0.95), (-0.4, 0.5, 0.85)),
    "right": ((0.6, -0.5, -0.35), (0.4, -0.7, -0.7), (-0.2, -0.6, -0.8), (-0.7, -0.35, -0.6), (-0.9, 0.1, -0.2)),
}
"""Points of each artery as directions (z, y, x) from the heart's centre."""


SEPTUM_CENTRE, SEPTUM_HALF = (0.24, 0.28, 0.05), (0.72, 0.64, 0.74)
"""The ellipsoid by which the left ventricle bulges into the right one, in half axes along the heart's axes: to the
apex, to the back and left, down and to the right."""
RIGHT_REACH = 0.15
"""How far to the back and left the right ventricle reaches, in half axes."""
SEPTUM_NORMAL, SEPTUM_MIDDLE = (-0.09, 0.93, -0.36), (-0.52, -0.04, 0.04)
"""The plane between the atria: the left one lies where its normal points."""
VALVES_MM, SEPTUM_MM = 1.2, 1.2
"""Half thickness of what parts atria from ventricles, and the atria from each other."""


def heart_depth(canvas: Canvas, heart: Heart, margin_mm: float) -> tuple[Box, Field]:
    """Depth inside the heart on a box that reaches ``margin_mm`` beyond it."""
    box = canvas.grid.box_around(heart.centre_mm, (heart.reach_mm + margin_mm,) * 3)
    part = canvas.grid.crop(box)
    whole, atrium = (ellipsoid_depth(part, *body) for body in heart_bodies(heart))
    blend = np.maximum(np.float32(ATRIUM_BLEND_MM) - np.abs(whole - atrium), 0)
    return box, np.maximum(whole, atrium) + blend * blend * np.float32(0.25 / ATRIUM_BLEND_MM)


def epicardial_fat_mm(patient: Patient) -> float:
    """Thickness of the fat on the heart's muscle."""
    return 2.5 + 3.5 * patient.visceral_fat


def paint_heart(canvas: Canvas, patient: Patient, heart: Heart, *, labelled: bool) -> None:
    """Paint a heart of the patient, healthy or enlarged; ``labelled`` also sets the region ids (of healthy hearts)."""
    shell = max(PERICARDIUM_MM, canvas.grid.edge_mm)
    box, depth = heart_depth(canvas, heart, shell + 4)
    if 0 in depth.shape:
        return
    free = canvas.is_in(box, (*LUNGS, MEDIASTINUM, LIVER, UPPER_ABDOMEN, HEART, PERICARDIUM, OUTSIDE))
    if labelled:
        np.copyto(canvas.labels[box], np.uint8(PERICARDIUM), where=(depth > -shell) & free)
    canvas.paint(box, depth + np.float32(1.5), patient.muscle_hu, where=free)
    canvas.paint(box, depth, tissue.FAT, where=free)
    _paint_muscle_and_blood(canvas, patient, heart, box, depth, free)
    if labelled:
        np.copyto(canvas.labels[box], np.uint8(HEART), where=(depth > 0.75 * epicardial_fat_mm(patient)) & free)
    arteries = coronary_paths(heart)
    tubes = joined([_coronary(points) for points in arteries.values()])
    paint_tubes(canvas, tubes, patient.blood.left, within=(HEART, PERICARDIUM))


def _coronary(points: list[Triple]) -> Tubes:
    return polyline(points, [2.0 - 1.0 * i / (len(points) - 1) for i in range(len(points))])


def _paint_muscle_and_blood(
    canvas: Canvas, patient: Patient, heart: Heart, box: Box, depth: Field, free: Bool[np.ndarray, "z y x"]
) -> None:
    place = _in_heart(canvas, heart, box)
    fat = np.float32(epicardial_fat_mm(patient))
    groove = np.float32(GROOVE_MM) * exponential(
        -(((place[0] - np.float32(GROOVE_AT)) / np.float32(GROOVE_WIDTH)) ** 2)
    )
    muscle = depth - fat - groove
    canvas.paint(box, muscle, tissue.ENHANCED_MYOCARDIUM if patient.enhanced else tissue.MYOCARDIUM, where=free)
    thin = muscle - np.float32(RIGHT_WALL_MM)
    first, second, _ = place
    valves = (first - np.float32(GROOVE_AT)) * np.float32(heart.half_mm[0])
    bulge = _septum_depth(heart, place)
    right = np.minimum(-bulge, (np.float32(RIGHT_REACH) - second) * np.float32(heart.half_mm[1]))
    septum = np.zeros(1, dtype=np.float32)
    for axis, normal, middle in zip(place, SEPTUM_NORMAL, SEPTUM_MIDDLE, strict=True):
        septum = septum + (axis - np.float32(middle)) * np.float32(normal * heart.half_mm[1])
    ventricles, atria = valves - np.float32(VALVES_MM), np.minimum(-valves - np.float32(VALVES_MM), thin)
    bodies = (
        (np.minimum(np.minimum(-right, muscle) - np.float32(LEFT_WALL_MM), ventricles), patient.blood.left),
        (np.minimum(np.minimum(right, thin), ventricles), patient.blood.right),
        (np.minimum(atria, septum - np.float32(SEPTUM_MM)), patient.blood.left),
        (np.minimum(atria, -septum - np.float32(SEPTUM_MM)), patient.blood.right),
    )
    for body, hu in bodies:
        canvas.paint(box, body, hu, where=free)


def _in_heart(canvas: Canvas, heart: Heart, box: Box) -> tuple[Field, Field, Field]:
    """Coordinates along the heart's axes, in half axes from its centre."""
    part = canvas.grid.crop(box)
    z, y, x = (axis - np.float32(c) for axis, c in zip((part.z, part.y, part.x), heart.centre_mm, strict=True))
    rows = (HEART_AXES / np.array(heart.half_mm)[:, None]).astype(np.float32)
    first, second, third = ((z * row[0] + y * row[1]) + x * row[2] for row in rows)
    return first, second, third


def _septum_depth(heart: Heart, place: tuple[Field, Field, Field]) -> Field:
    """Depth inside the ellipsoid whose surface is the septum's right side."""
    q2 = np.zeros(1, dtype=np.float32)
    for axis, centre, half in zip(place, SEPTUM_CENTRE, SEPTUM_HALF, strict=True):
        q2 = q2 + ((axis - np.float32(centre)) * np.float32(1 / half)) ** 2
    mean_half = float(np.prod(SEPTUM_HALF) * np.prod(heart.half_mm)) ** (1 / 3)
    return np.asarray((1 - np.sqrt(q2)) * np.float32(mean_half))


def on_heart(heart: Heart, direction: Float32[np.ndarray, "3"] | np.ndarray, share: float) -> Triple:
    """The point in a direction from the heart's centre, at a share of the way to its surface."""
    along = HEART_AXES @ direction / np.array(heart.half_mm)
    z, y, x = np.array(heart.centre_mm) + direction * share / np.linalg.norm(along)
    return float(z), float(y), float(x)


def coronary_paths(heart: Heart) -> dict[str, list[Triple]]:
    """The coronary arteries' centrelines in the fat of a heart, from their origins on, by name."""
    paths = {}
    for name, directions in CORONARIES.items():
        corners = [np.array(direction, dtype=float) for direction in directions]
        between = [0.5 * (one + other) for one, other in pairwise(corners)]
        bent = [point for pair in zip(corners, between, strict=False) for point in pair] + [corners[-1]]
        paths[name] = [on_heart(heart, direction, CORONARY_SHARE) for direction in bent]
    return paths
