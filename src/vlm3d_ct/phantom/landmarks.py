"""Where the large structures run, in mm in the patient's frame: what several rooms must agree on."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64

from vlm3d_ct.phantom.grid import Field, Grid, Number, Triple, unit_axes
from vlm3d_ct.phantom.patient import Heart, Patient
from vlm3d_ct.phantom.rounded import exponential

SPINE_Y = 57.0
"""Where the vertebral bodies' centres are at mid chest, at the mean depth of the cavity."""
HEART_AXES = unit_axes((-0.35, -0.5, 0.8))
"""Directions of the heart's half axes: the long one points down, forwards and to the left."""
ATRIUM_FROM_CENTRE_MM: Triple = (4, 6, -36)
ATRIUM_HALF_MM: Triple = (33, 27, 25)
"""The right atrium makes the heart's right border: its centre from the heart's, its half axes."""
HILA: dict[str, Triple] = {"right": (4, 10, -40), "left": (8, 14, 44)}
"""Where bronchi and vessels enter the lungs."""
CARINA: Triple = (26, 21, 0)
TRACHEA: list[Triple] = [(170, -4, 0), (110, 6, 0), (60, 15, 1), CARINA]
ASCENDING_AORTA: list[Triple] = [(-12, -22, 0), (12, -24, -10), (38, -20, -14)]
AORTIC_ARCH: list[Triple] = [(52, -8, -6), (57, 8, 8), (53, 24, 19), (40, 38, 24)]
DESCENDING_AORTA = ((20, -14, 26), (-60, -18, 24), (-110, -26, 16), (-175, -31, 8))
"""z, distance in front of the vertebral bodies' centres (y), x."""
REFERENCE_HEART_MM: Triple = (-33, -20, 19)
"""The heart's centre in the average patient, for whom the vessels' roots are given."""


def spine_y(patient: Patient, z: Field | Number) -> Float32[np.ndarray, "..."]:
    """Distance of the vertebral bodies' centres behind mid chest at heights z: the spine is bent backwards."""
    middle = SPINE_Y + 0.8 * (patient.cavity_half_depth - 84)
    bend = ((np.asarray(z, dtype=np.float32) - np.float32(10)) / np.float32(120)) ** 2
    return np.asarray(np.float32(middle) - np.float32(patient.kyphosis) * np.minimum(bend, np.float32(2)))


def heart_bodies(heart: Heart) -> tuple[tuple[Triple, Triple, Float64[np.ndarray, "3 3"]], ...]:
    """Centre, half axes and directions of the ellipsoids that make a heart: all of it, and the right atrium's bulge."""
    z, y, x = heart.centre_mm
    dz, dy, dx = (heart.scale * step for step in ATRIUM_FROM_CENTRE_MM)
    half = (heart.scale * ATRIUM_HALF_MM[0], heart.scale * ATRIUM_HALF_MM[1], heart.scale * ATRIUM_HALF_MM[2])
    return (heart.centre_mm, heart.half_mm, HEART_AXES), ((z + dz, y + dy, x + dx), half, np.eye(3))


def with_the_heart(heart: Heart, points_mm: list[Triple], share: Number = 1.0) -> list[Triple]:
    """Points near the average heart, moved along by this share of the way that the heart is off its average place."""
    dz, dy, dx = (share * (c - ref) for c, ref in zip(heart.centre_mm, REFERENCE_HEART_MM, strict=True))
    return [(z + dz, y + dy, x + dx) for z, y, x in points_mm]


def aorta_path(patient: Patient) -> list[Triple]:
    """The aorta's centreline: root (0), ascending part (1, 2), arch (3 to 6), descending part (7 to 10).

    Its root moves with the heart, its descending part with the spine.
    """
    root = with_the_heart(patient.heart, ASCENDING_AORTA[:2], 0.6)
    descending: list[Triple] = [(z, float(spine_y(patient, z)) + front, x) for z, front, x in DESCENDING_AORTA]
    return [*root, ASCENDING_AORTA[2], *AORTIC_ARCH, *descending]


def aorta_radius(patient: Patient) -> float:
    """Mean radius of the aorta in mm: it widens by some 0.1 mm in diameter a year (Wolak et al., JACC Cardiovasc
    Imaging 1, 2008)."""
    return 13.3 * patient.heart.scale + 0.04 * (patient.age_years - 57)


def diaphragm_surface(patient: Patient, grid: Grid) -> Float32[np.ndarray, "1 y x"]:
    """Height of the diaphragm at each (y, x): two domes that fall off to the wall, deepest at the back."""
    qx, qy = grid.x / np.float32(patient.cavity_half_width), grid.y / np.float32(patient.cavity_half_depth)
    fall = qx**2 + np.where(qy > 0, np.float32(1.1), np.float32(0.72)) * qy**2
    surface = patient.diaphragm_z - 55 * np.minimum(fall, np.float32(1.4)) ** 2
    for side, rise in ((-1, patient.dome_right), (1, patient.dome_left)):
        dome = exponential(-(((grid.x - side * 66) / 42) ** 2) - ((grid.y - 5) / 60) ** 2)
        surface = surface + rise * dome
    return np.asarray(surface, dtype=np.float32)
