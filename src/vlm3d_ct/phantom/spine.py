"""The spine: vertebral bodies with discs between them, pedicles, arches, processes, and the canal with its cord."""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Field
from vlm3d_ct.phantom.landmarks import spine_y
from vlm3d_ct.phantom.patient import Patient
from vlm3d_ct.phantom.region_ids import SPINE
from vlm3d_ct.phantom.tubes import Tubes, paint_tubes
from vlm3d_ct.seeding import random_stream

VERTEBRA_MM = 24.0
"""Distance from one disc to the next."""
CANAL_BEHIND_MM = 26.0
"""Centre of the canal behind that of the vertebral body."""
HALF_DISC_MM = 2.3
OSTEOPHYTE_AGE, OSTEOPHYTES_PER_YEAR = 38.0, 0.4


def paint_spine(canvas: Canvas, patient: Patient) -> None:
    """Paint the spine and set its region id."""
    grid = canvas.grid
    centre = spine_y(patient, grid.z)
    middle = float(spine_y(patient, 10.0))
    box = grid.box((-1e4, middle - 52, -46), (1e4, middle + 76, 46))
    part = grid.crop(box)
    if 0 in part.shape:
        return
    y, x = part.y - centre, np.abs(part.x)
    level = (part.z - np.float32(patient.rib_phase)) / np.float32(VERTEBRA_MM)
    place = level - np.floor(level)  # 0 and 1 at the discs' middles
    edge = (0.5 - np.abs(place - 0.5)) * np.float32(VERTEBRA_MM)
    _paint_bodies(canvas, patient, box, y, x, edge)
    _paint_arches(canvas, patient, box, y - np.float32(CANAL_BEHIND_MM), x, place)
    paint_tubes(canvas, osteophytes(patient), tissue.OSTEOPHYTE, label=SPINE)


def osteophytes(patient: Patient) -> Tubes:
    """Spurs that bridge the discs in front and beside them, from middle age on: normal at an age."""
    rng = random_stream("phantom osteophytes", patient.seed)
    count = int(rng.poisson(max(0.0, OSTEOPHYTES_PER_YEAR * (patient.age_years - OSTEOPHYTE_AGE))))
    level = (patient.rib_phase + VERTEBRA_MM * rng.integers(-7, 5, size=count)).astype(np.float32)
    turn = rng.uniform(-1.9, 1.9, size=count)
    reach = 16.5 + rng.uniform(0, 2.5, size=count)
    middle = np.stack([level, spine_y(patient, level) - reach * np.cos(turn), 1.1 * reach * np.sin(turn)], axis=1)
    half = np.zeros_like(middle)
    half[:, 0] = rng.uniform(2, 9, size=count)
    radius = rng.uniform(1.5, 4.5, size=count).astype(np.float32)
    return Tubes(
        start_mm=(middle - half).astype(np.float32),
        end_mm=(middle + half).astype(np.float32),
        start_radius_mm=radius,
        end_radius_mm=radius,
    )


def _paint_bodies(
    canvas: Canvas, patient: Patient, box: tuple[slice, slice, slice], y: Field, x: Field, edge: Field
) -> None:
    """Bodies are waisted and hollow behind; their end plates are as dense as their cortex."""
    waist = np.float32(2.2) * np.minimum(edge / 6, 1)
    body = np.float32(18.5) - waist - np.sqrt((x / np.float32(1.12)) ** 2 + y * y)
    np.minimum(body, np.float32(15) - y - waist, out=body)
    whole, cortex = body, min(1.6, 0.5 * canvas.grid.edge_mm + 0.6)
    canvas.paint(box, whole, patient.cortex * tissue.BONE_CORTEX, label=SPINE)
    inside = np.minimum(whole - np.float32(cortex), edge - np.float32(HALF_DISC_MM + cortex))
    canvas.paint(box, inside, patient.sponge_hu)
    canvas.paint(box, np.minimum(whole + np.float32(0.8), np.float32(HALF_DISC_MM) - edge), tissue.DISC)


def _paint_arches(
    canvas: Canvas, patient: Patient, box: tuple[slice, slice, slice], y: Field, x: Field, place: Field
) -> None:
    """Pedicles and transverse processes at the upper half of each vertebra, laminae like tiles, spinous processes."""
    mm = np.float32(VERTEBRA_MM)
    ring = np.sqrt(x * x + y * y)
    canvas.paint(box, np.float32(10) - ring, tissue.FAT, where=canvas.is_in(box, (SPINE, 17, 12, 0)))
    upper = np.float32(5.5) - np.abs(place - np.float32(0.66)) * mm
    pedicle = np.minimum(upper, np.minimum(4 - np.abs(x - 13), 11 - np.abs(y + 8)))
    tile = (place - np.float32(0.45) + y / np.float32(60)) * mm
    lamina = np.minimum(np.minimum(np.float32(3) - np.abs(ring - 13), y + 3), np.float32(9) - np.abs(tile))
    along = np.clip(y - 12, 0, 16)
    drop = (place - np.float32(0.42)) * mm + np.float32(0.45) * along
    drop -= mm * np.rint(drop / mm)
    spinous = np.minimum(np.minimum(np.float32(3.2) - x, np.float32(6) - np.abs(drop)), np.float32(9) - np.abs(y - 20))
    wing = np.minimum(np.float32(5) - np.abs(y - 2 - np.float32(0.35) * (x - 14)), np.float32(33) - x)
    wing = np.minimum(np.minimum(wing, x - 10), upper)
    bone = np.maximum(np.maximum(pedicle, lamina), np.maximum(spinous, wing))
    trunk = canvas.labels[box] != 0
    canvas.paint(box, bone, patient.cortex * tissue.BONE_CORTEX, label=SPINE, where=trunk)
    canvas.paint(box, bone - np.float32(1.8), patient.sponge_hu + 60, where=trunk)
    canvas.paint(box, np.float32(8.5) - ring, tissue.SPINAL_CANAL, label=SPINE, where=trunk)
    if not canvas.coarse:
        canvas.paint(box, np.float32(4.5) - np.sqrt((x / np.float32(1.25)) ** 2 + y * y), 36.0, where=trunk)
