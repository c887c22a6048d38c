"""The upper abdomen: diaphragm, liver, gallbladder, spleen, stomach, bowel, pancreas, adrenals, kidneys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Box, Field, Number, Triple, ellipsoid_depth
from vlm3d_ct.phantom.landmarks import aorta_path, diaphragm_surface, spine_y
from vlm3d_ct.phantom.patient import Patient
from vlm3d_ct.phantom.region_ids import LIVER, OUTSIDE, SPLEEN, UPPER_ABDOMEN
from vlm3d_ct.phantom.tubes import joined, paint_tubes, polyline
from vlm3d_ct.seeding import random_stream

DIAPHRAGM_MM = 2.5
GAS_BEFORE_MM = 10.0
"""In the supine patient gas fills the stomach in front of a level this far before its centre."""
LIVER_VESSELS: list[tuple[list[Triple], list[Number]]] = [
    ([(-8, 4, -20), (-14, -6, -48), (-26, -10, -84)], [4.5, 3.5, 2]),  # right hepatic vein
    ([(-8, 0, -18), (-12, -30, -34), (-24, -56, -44)], [4.5, 3.2, 2]),
    ([(-8, -2, -14), (-14, -36, -6), (-26, -62, 4)], [4, 3, 2]),
    ([(-66, -6, -10), (-48, -14, -34), (-40, -8, -66), (-44, 10, -92)], [6, 5.5, 4, 2]),  # portal vein
    ([(-48, -14, -34), (-36, -42, -20), (-36, -58, 12)], [5, 3.5, 2]),
]
"""From the average central tendon (z), the midline and mid chest."""


@dataclass(frozen=True)
class Cavity:
    """The space below the diaphragm on a canvas: its box, and the depth below diaphragm and abdominal wall there."""

    box: Box
    depth: Field


def paint_abdomen(canvas: Canvas, patient: Patient) -> None:
    """Paint the organs below the diaphragm, and set their region ids."""
    grid = canvas.grid
    surface = diaphragm_surface(patient, grid)
    box = grid.box((-1e4, -1e4, -1e4), (float(surface.max()) + 6, 1e4, 1e4))
    part = grid.crop(box)
    if 0 in part.shape:
        return
    below = Cavity(box=box, depth=np.minimum(canvas.cavity_depth[box], (surface - part.z) * np.float32(0.8)))
    free = canvas.labels[box] == OUTSIDE
    layer = np.minimum(below.depth + np.float32(0.5), np.float32(DIAPHRAGM_MM) - below.depth)
    canvas.paint(box, layer, patient.muscle_hu, where=free)
    _paint_kidneys(canvas, patient, below)
    _paint_spleen(canvas, patient, below)
    _paint_stomach(canvas, patient, below)
    _paint_bowel(canvas, patient)
    _paint_liver(canvas, patient, below)
    _paint_small_organs(canvas, patient)


def _body(
    canvas: Canvas, below: Cavity, centre: Triple, half: Triple, inset_mm: Number = DIAPHRAGM_MM
) -> tuple[Box, Field]:
    """Box and depth of an ellipsoid below the diaphragm."""
    margin = canvas.grid.edge_mm
    box = canvas.grid.box_around(centre, (half[0] + margin, half[1] + margin, half[2] + margin))
    z = slice(min(box[0].start, below.box[0].stop), min(box[0].stop, below.box[0].stop))
    box = (z, box[1], box[2])
    depth = ellipsoid_depth(canvas.grid.crop(box), centre, half)
    return box, np.minimum(depth, below.depth[box] - np.float32(inset_mm))


def _fill(canvas: Canvas, box: Box, depth: Field, hu: Number, label: int, within: tuple[int, ...] = (OUTSIDE,)) -> None:
    if 0 not in depth.shape:
        canvas.paint(box, depth, hu, label=label, where=canvas.is_in(box, within))


def _wide(patient: Patient) -> float:
    return patient.cavity_half_width / 122


def _paint_kidneys(canvas: Canvas, patient: Patient, below: Cavity) -> None:
    """Cortex, pyramids and sinus fat; the right kidney lower than the left."""
    arterial = patient.phase == "arterial"
    outer = tissue.ENHANCED_KIDNEY if patient.enhanced else tissue.KIDNEY
    inner = 0.45 * outer if arterial else outer
    for side, low in ((-1, 84), (1, 76)):
        z = patient.diaphragm_z - low
        centre = (z, float(spine_y(patient, z)) - 8, side * 54 * _wide(patient))
        box, depth = _body(canvas, below, centre, (50, 26, 26))
        _fill(canvas, box, depth, outer, UPPER_ABDOMEN)
        if 0 not in depth.shape:
            mine = canvas.labels[box] == UPPER_ABDOMEN
            canvas.paint(box, depth - np.float32(7), inner, where=mine)
        sinus = (centre[0], centre[1] - 4, centre[2] - side * 12)
        canvas.ellipsoid(sinus, (22, 8, 11), tissue.FAT, within=(UPPER_ABDOMEN,))


def _paint_spleen(canvas: Canvas, patient: Patient, below: Cavity) -> None:
    """A crescent under the left dome, hollow towards the stomach."""
    hu = tissue.ENHANCED_SPLEEN if patient.enhanced else tissue.SPLEEN
    z, wide = patient.diaphragm_z, _wide(patient)
    box, depth = _body(canvas, below, (z - 42, 34, 84 * wide), (48, 44, 40))
    part = canvas.grid.crop(box)
    if 0 in part.shape:
        return
    hollow = ellipsoid_depth(part, (z - 40, 4, 52 * wide), (52, 46, 38))
    _fill(canvas, box, np.minimum(depth, -hollow), hu, SPLEEN)


def _paint_stomach(canvas: Canvas, patient: Patient, below: Cavity) -> None:
    """Wall, fluid, and gas in front of a level."""
    rng = random_stream("phantom stomach", patient.seed)
    wide, size = _wide(patient), rng.uniform(0.7, 1.3)
    z, y, x = patient.diaphragm_z - 34, -16.0, 56 * wide
    box, depth = _body(canvas, below, (z, y, x), (42 * size, 44 * size, 34 * size), 4)
    _fill(canvas, box, depth, tissue.MUSCLE - 8, UPPER_ABDOMEN)
    if 0 in depth.shape:
        return
    level = np.float32(y - GAS_BEFORE_MM + rng.uniform(-34, 14)) - canvas.grid.crop(box).y
    content = tissue.STOMACH + rng.uniform(-26, 20)
    mine = canvas.labels[box] == UPPER_ABDOMEN
    canvas.paint(box, depth - np.float32(4), content, where=mine)
    canvas.paint(box, np.minimum(depth - np.float32(4), level), tissue.GAS, where=mine)


def _paint_bowel(canvas: Canvas, patient: Patient) -> None:
    """The colon's left flexure and transverse part, with stool and gas, and loops of small bowel."""
    z, wide = patient.diaphragm_z, _wide(patient)
    rng = random_stream("phantom bowel", patient.seed)
    colon = polyline(
        [(z - 110, 10, 98 * wide), (z - 66, -14, 96 * wide), (z - 52, -44, 78 * wide), (z - 82, -66, 40),
         (z - 96, -70, -20), (z - 104, -52, -70 * wide)], 15,
    )  # fmt: skip
    paint_tubes(canvas, colon, tissue.BOWEL + 15, label=UPPER_ABDOMEN, within=(OUTSIDE,))
    inner = colon.widened(-3)
    values = np.where(rng.random(len(inner)) < 0.45, tissue.GAS, tissue.STOOL + 90).astype(np.float32)
    paint_tubes(canvas, inner, values, within=(UPPER_ABDOMEN,))
    loops = [polyline(rng.normal(size=(5, 3)) * (12, 14, 26) + (z - 98, -26, 26), 11) for _ in range(2)]
    paint_tubes(canvas, joined(loops), tissue.BOWEL, label=UPPER_ABDOMEN, within=(OUTSIDE,))


def _paint_liver(canvas: Canvas, patient: Patient, below: Cavity) -> None:
    """A wedge that fills the right dome and thins out to the left, with its vessels and the gallbladder."""
    z, wide = patient.diaphragm_z, _wide(patient)
    rise = {"plain": 0.0, "arterial": 12.0, "venous": tissue.ENHANCED_LIVER - tissue.LIVER}[patient.phase]
    hu = patient.liver_hu + rise
    box, depth = _body(canvas, below, (z - 30, -6, -62 * wide), (84, 92, 112), DIAPHRAGM_MM + 0.5)
    part = canvas.grid.crop(box)
    if 0 in part.shape:
        return
    under = part.z - np.float32(z - 62) - np.float32(0.6) * part.x - np.float32(0.45) * (part.y + 30)
    medial = np.float32(0.55) * (np.float32(26) - part.y) - part.x * np.float32(0.8) + 8
    depth = np.minimum(depth, np.minimum(np.float32(0.7) * under, medial))
    _fill(canvas, box, depth, hu, LIVER)
    moved: list[list[Triple]] = [[(z + dz, y, x * wide) for dz, y, x in points] for points, _ in LIVER_VESSELS]
    tubes = joined([polyline(points, radii) for points, (_, radii) in zip(moved, LIVER_VESSELS, strict=True)])
    paint_tubes(canvas, tubes, patient.blood.lower_veins + 40 * (patient.phase == "venous"), within=(LIVER,))
    canvas.ellipsoid((z - 78, -46, -44 * wide), (25, 14, 13), tissue.BILE, label=LIVER, within=(LIVER, OUTSIDE))


def _paint_small_organs(canvas: Canvas, patient: Patient) -> None:
    """Pancreas, adrenals, and the diaphragm's crura beside the aorta."""
    z, wide = patient.diaphragm_z, _wide(patient)
    pancreas = tissue.ENHANCED_PANCREAS if patient.enhanced else tissue.PANCREAS
    tail = polyline([(z - 84, -12, -22), (z - 70, -14, 4), (z - 58, 4, 34), (z - 52, 22, 62 * wide)], [10, 8, 8, 7])
    paint_tubes(canvas, tail, pancreas, label=UPPER_ABDOMEN, within=(OUTSIDE,))
    limbs = []
    for side, high in ((-1, 44), (1, 48)):
        back = float(spine_y(patient, z - high)) - 14
        limbs += [
            polyline([(z - high, back - 8, side * 26), (z - high - 14, back + 6, side * 30 + spread)], 2.2)
            for spread in (-5.0, 5.0)
        ]
    paint_tubes(canvas, joined(limbs), tissue.ADRENAL, label=UPPER_ABDOMEN, within=(OUTSIDE,))
    aorta = [point for point in aorta_path(patient)[7:] if point[0] < z]
    crura = joined([polyline([(zz, y - 4, x + side * 16.0) for zz, y, x in aorta], 4.5) for side in (-1, 1)])
    paint_tubes(canvas, crura, patient.muscle_hu, within=(OUTSIDE,))
