"""The patient's table: a curved shell filled with foam, below the back."""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.patient import Patient

MATTRESS_MM = 9.0
"""Between the back and the table's surface."""
CURVATURE_MM = 800.0
"""Radius of the trough that the patient lies in."""
HALF_WIDTH_MM, THICKNESS_MM, SHELL_MM = 215.0, 46.0, 3.0
SHELL_HU, FOAM_HU = -120.0, -930.0
"""A thin carbon fibre shell and rigid foam, as such tables look in chest CTs."""
AIR_BELOW_HU = -900.0


def paint_table(canvas: Canvas, patient: Patient) -> None:
    """Paint the table where there is air behind the patient; it has no region id."""
    top = patient.body_half_depth + MATTRESS_MM
    rise = HALF_WIDTH_MM**2 / (2 * CURVATURE_MM)
    box = canvas.grid.box((-1e4, top - rise, -HALF_WIDTH_MM), (1e4, top + THICKNESS_MM, HALF_WIDTH_MM))
    part = canvas.grid.crop(box)
    if 0 in part.shape:
        return
    below = part.y - np.float32(top) + part.x**2 * np.float32(1 / (2 * CURVATURE_MM))
    depth = np.minimum(np.minimum(below, np.float32(THICKNESS_MM) - below), np.float32(HALF_WIDTH_MM) - np.abs(part.x))
    free = (canvas.hu[box] < AIR_BELOW_HU) & (canvas.labels[box] == 0)
    canvas.paint(box, depth, SHELL_HU, where=free)
    canvas.paint(box, depth - np.float32(SHELL_MM), FOAM_HU, where=free)
