"""What lies between the lungs besides heart and vessels: gullet, thyroid, thymus, and normal lymph nodes."""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Triple, ellipsoid_depth, texture
from vlm3d_ct.phantom.landmarks import spine_y
from vlm3d_ct.phantom.patient import Patient
from vlm3d_ct.phantom.region_ids import CHEST_WALL, ESOPHAGUS, LUNGS, MEDIASTINUM, OUTSIDE, PERICARDIUM, THYROID
from vlm3d_ct.phantom.tubes import Tubes, paint_tubes, polyline
from vlm3d_ct.seeding import random_stream

NODE_PLACES: tuple[Triple, ...] = (
    (46, 4, -22), (36, 6, -12), (30, 10, -18), (60, 2, -16), (34, -2, 22), (40, 2, 26), (8, 26, -4), (2, 28, 4),
    (48, -34, 4), (58, -30, -8), (72, -22, 14), (-20, 34, 0),
)  # fmt: skip
"""Stations where normal nodes are seen: paratracheal, aortopulmonary, subcarinal, prevascular, paraesophageal."""
NODE_SHORT_MM = (3.0, 7.0)
"""Short axis; nodes count as enlarged above 10 mm."""
ARMPIT_NODES = 3
THYMUS_AGE = 45.0
"""Thymic tissue is seen among the fat before the mediastinum until about this age."""


def esophagus_path(patient: Patient) -> list[Triple]:
    """The gullet's centreline, in front of the spine and left through the hiatus."""
    upper: list[Triple] = [(170, 16, 3), (100, 24, 4), (60, 31, 5)]
    z0 = patient.diaphragm_z
    places = ((15.0, 4.0), (-20.0, 6.0), (-48.0, 10.0))
    lower: list[Triple] = [(z, float(spine_y(patient, z)) - 27, x) for z, x in places]
    return [*upper, *lower, (z0 - 8, 20, 18), (z0 - 30, 4, 36)]


def paint_mediastinum(canvas: Canvas, patient: Patient) -> None:
    """Paint thymus, thyroid, normal nodes and the gullet; gullet and thyroid set their region ids."""
    if patient.age_years < THYMUS_AGE:
        _paint_thymus(canvas, patient)
    thyroid = tissue.ENHANCED_THYROID if patient.enhanced else tissue.THYROID
    for side in (-1, 1):
        lobe = (132, 0, side * 18)
        canvas.ellipsoid(lobe, (21, 11, 9), thyroid, label=THYROID, within=(CHEST_WALL, MEDIASTINUM))
    paint_tubes(canvas, polyline([(126, -9, -14), (126, -9, 14)], 3.5), thyroid, label=THYROID, within=(CHEST_WALL,))
    paint_tubes(canvas, normal_nodes(patient), tissue.NORMAL_NODE, within=(MEDIASTINUM, CHEST_WALL))
    free = (MEDIASTINUM, CHEST_WALL, OUTSIDE, *LUNGS, PERICARDIUM)
    gullet = polyline(esophagus_path(patient), 6.6)
    paint_tubes(canvas, gullet, tissue.ESOPHAGUS, label=ESOPHAGUS, within=free)
    paint_tubes(canvas, gullet.widened(-4.9), tissue.GAS, within=(ESOPHAGUS,))


def normal_nodes(patient: Patient) -> Tubes:
    """Small nodes of the mediastinum, and some in the armpits: normal, and to be told from enlarged ones."""
    rng = random_stream("phantom nodes", patient.seed)
    chosen = rng.permutation(len(NODE_PLACES))[: int(rng.integers(3, 8))]
    places = [np.array(NODE_PLACES[i]) for i in chosen]
    for _ in range(ARMPIT_NODES):
        aside = patient.cavity_half_width + rng.uniform(2, 14)
        places.append(np.array([rng.uniform(45, 85), rng.uniform(-22, 4), rng.choice((-1, 1)) * aside]))
    centre = np.array(places) + rng.normal(size=(len(places), 3)) * 1.5
    radius = rng.uniform(*NODE_SHORT_MM, size=len(places)) / 2
    long = rng.normal(size=(len(places), 3))
    long *= (radius * rng.uniform(0.1, 0.7, size=len(places)))[:, None] / np.linalg.norm(long, axis=1, keepdims=True)
    single = radius.astype(np.float32)
    return Tubes(
        start_mm=(centre - long).astype(np.float32),
        end_mm=(centre + long).astype(np.float32),
        start_radius_mm=single,
        end_radius_mm=single,
    )


def _paint_thymus(canvas: Canvas, patient: Patient) -> None:
    """A triangle of tissue that turns to fat with age."""
    centre, half = (42.0, -48.0, 2.0), (30.0, 9.0, 17.0)
    box = canvas.grid.box_around(centre, half)
    part = canvas.grid.crop(box)
    if 0 in part.shape:
        return
    share = np.float32(1.5 - (patient.age_years - 18) / (THYMUS_AGE - 18) * 2.2)
    strands = texture(part, random_stream("phantom thymus", patient.seed), 12.0)
    depth = np.minimum(ellipsoid_depth(part, centre, half), 3 * (strands + share))
    canvas.paint(box, depth, tissue.BLOOD, where=canvas.labels[box] == MEDIASTINUM, strength=0.8)
