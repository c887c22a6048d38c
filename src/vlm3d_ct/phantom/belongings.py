"""What patients wear in the scanner: electrodes with their cables, a necklace, hooks and press studs.

Metal on the skin is no medical material within the body. It is worn whatever the findings are, so that metal alone
does not tell a pacemaker.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Number, Triple
from vlm3d_ct.phantom.patient import Patient
from vlm3d_ct.phantom.region_ids import OUTSIDE
from vlm3d_ct.phantom.thorax import POLE_Y
from vlm3d_ct.phantom.tubes import Tubes, joined, paint_tubes, polyline
from vlm3d_ct.phantom.wall import body_radius
from vlm3d_ct.seeding import random_stream

NECKLACE_SHARE, ELECTRODES_SHARE, HOOKS_SHARE, STUDS_SHARE = 0.2, 0.3, 0.35, 0.2
"""Of the patients; hooks only of women."""
ELECTRODES = ((78.0, 2.45), (78.0, -2.45), (-104.0, 1.9), (-104.0, -1.9))
"""Height and direction (0 back, pi front, positive left) of electrodes."""
CABLE_END: Triple = (-140.0, -60.0, 130.0)
"""Cables leave the chest towards the patient's left side."""
OFF_SKIN_MM = 2.5
CABLE_MM = 1.2


def paint_belongings(canvas: Canvas, patient: Patient) -> None:
    """Paint what the patient wears, in the air around the body; it has no region id."""
    rng = random_stream("phantom belongings", patient.seed)
    worn = list(_worn(patient, rng, _least_mm(canvas)))
    if worn:
        values = np.concatenate([np.full(len(tubes), hu, dtype=np.float32) for tubes, hu in worn])
        paint_tubes(canvas, joined([tubes for tubes, _ in worn]), values, within=(OUTSIDE,))


def _least_mm(canvas: Canvas) -> float:
    """Radius below which a solid piece would be lost on a coarse grid."""
    return 0.9 * canvas.grid.edge_mm if canvas.coarse else 0.0


def _worn(patient: Patient, rng: np.random.Generator, least_mm: float) -> Iterator[tuple[Tubes, float]]:
    """Pieces and their intensity; the draws are the same on every grid."""
    share = rng.random(4)
    density = rng.uniform(0.45, 1.0, size=4) * tissue.METAL
    if share[0] < NECKLACE_SHARE:
        turns = np.linspace(-2.4, 2.4, 16)
        chain = [_on_skin(patient, 112 - 26 * float(np.cos(turn / 2)), float(np.pi + turn)) for turn in turns]
        yield polyline(chain, 0.8), float(density[0])
        yield _knob(chain[len(chain) // 2], max(rng.uniform(3, 8), least_mm)), float(density[0])
    if share[1] < ELECTRODES_SHARE:
        for z, turn in ELECTRODES:
            place = _on_skin(patient, z, turn)
            yield _knob(place, max(rng.uniform(3.5, 5), least_mm)), float(density[1])
            yield polyline([place, CABLE_END], CABLE_MM), 600.0
    if share[2] < HOOKS_SHARE and patient.sex == "female":
        for step in range(3):
            hook = _on_skin(patient, -30 + 9.0 * step, 0.0)
            yield _knob(hook, max(2.5, 0.7 * least_mm)), float(density[2])
    if share[3] < STUDS_SHARE:
        for turn in (1.3, 1.75, -1.3, -1.75):
            stud = _on_skin(patient, 88 + rng.uniform(-6, 6), turn)
            yield _knob(stud, max(4.0, 0.8 * least_mm)), float(density[3])


def _knob(place: Triple, radius_mm: Number) -> Tubes:
    return polyline([place, place], radius_mm)


def _on_skin(patient: Patient, z: float, turn: float) -> Triple:
    """A point just outside the skin at a height, in a direction from the axis of the trunk."""
    level, direction = np.full((1, 1), z, dtype=np.float32), np.full((1, 1), turn, dtype=np.float32)
    radius = float(body_radius(patient, level, direction)[0, 0]) + OFF_SKIN_MM
    return z, POLE_Y + radius * float(np.cos(turn)), radius * float(np.sin(turn))
