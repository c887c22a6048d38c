"""The aorta with its arch and branches, the pulmonary arteries and veins, and the great veins."""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Number, Triple
from vlm3d_ct.phantom.landmarks import aorta_path, aorta_radius, spine_y, with_the_heart
from vlm3d_ct.phantom.patient import Patient
from vlm3d_ct.phantom.region_ids import (
    AORTA,
    CHEST_WALL,
    GREAT_VESSELS,
    HEART,
    LIVER,
    LUNGS,
    MEDIASTINUM,
    OUTSIDE,
    PERICARDIUM,
)
from vlm3d_ct.phantom.tubes import joined, paint_tubes, polyline

FREE = (MEDIASTINUM, *LUNGS, OUTSIDE, CHEST_WALL, PERICARDIUM, GREAT_VESSELS)
"""What a vessel may take the place of."""
AORTIC_TAPER = (1.0, 1.1, 1.08, 1.04, 1.0, 0.97, 0.95, 0.93, 0.92, 0.85, 0.72)
"""Radius along the aorta, relative to its mean."""

Vessel = tuple[list[Triple], Number | list[Number]]
"""Centreline and radius in mm, one for the vessel or one for each point."""

ARCH_BRANCHES: list[Vessel] = [
    ([(52, -8, -6), (84, -6, -14), (108, -2, -26), (170, 0, -32)], [6.5, 6, 4.5, 4]),  # to the right carotid
    ([(100, -3, -22), (112, -2, -44), (106, 4, -80), (100, 2, -120)], [5, 4.5, 4, 3.5]),  # right subclavian
    ([(55, 8, 7), (90, 4, 18), (170, 0, 28)], [5, 4, 4]),  # left carotid
    ([(53, 20, 15), (84, 18, 26), (112, 8, 50), (104, 4, 84), (100, 2, 120)], [5, 5, 4.5, 4, 3.5]),
]
UPPER_VEINS: list[Vessel] = [
    ([(74, -15, -24), (0, -12, -30), (-20, -10, -26)], [8.5, 9, 9.5]),  # superior vena cava
    ([(74, -15, -24), (90, -18, -32), (112, -12, -46), (170, -8, -42)], [7, 6.5, 5.5, 5.5]),
    ([(108, -14, -44), (104, -14, -82), (98, -8, -122)], [5, 4.5, 4]),
    ([(72, -18, -22), (82, -30, 4), (94, -26, 30), (112, -14, 46), (170, -8, 44)], [6.5, 6, 6, 5.5, 5.5]),
    ([(108, -16, 44), (104, -14, 82), (98, -8, 122)], [5, 4.5, 4]),
]
PULMONARY_ARTERIES: list[Vessel] = [
    ([(-10, -40, 14), (8, -30, 17), (20, -10, 16)], [12, 12.5, 12]),  # trunk
    ([(20, -8, 15), (15, 3, -8), (9, 8, -30), (2, 12, -43)], [10, 9.5, 9, 7]),
    ([(20, -8, 15), (26, 8, 30), (20, 17, 42), (4, 22, 48)], [10, 9.5, 8.5, 6.5]),
]
PULMONARY_VEINS: list[Vessel] = [
    ([(-20, 10, 0), (-10, 2, -22), (0, -3, -42)], [8, 6.5, 5]),
    ([(-20, 14, 0), (-24, 24, -20), (-30, 28, -42)], [8, 6.5, 5]),
    ([(-18, 8, 14), (-6, -2, 30), (4, -6, 42)], [8, 6.5, 5]),
    ([(-20, 14, 14), (-24, 26, 28), (-30, 30, 42)], [8, 6.5, 5]),
]
"""From the left atrium to the hila, given for the average heart."""
LOWER_CAVA: Vessel = ([(-175, 14, -16), (-100, 12, -20), (-66, 4, -24), (-46, -6, -20)], [10.5, 11, 11.5, 10])


def azygos_vein(patient: Patient) -> Vessel:
    """Up along the right front of the spine, and forwards over the right main bronchus."""
    points: list[Triple] = [(z, float(spine_y(patient, z)) - 21, 4.0) for z in (-170.0, -60.0, 20.0)]
    return [*points, (38, 30, -10), (44, 12, -25), (42, -10, -26)], 3.6


def paint_vessels(canvas: Canvas, patient: Patient) -> None:
    """Paint the aorta and the great vessels with the blood of the contrast phase, and set their region ids."""
    blood, heart = patient.blood, patient.heart
    groups: list[tuple[list[Vessel], float]] = [
        (ARCH_BRANCHES, blood.left),
        (UPPER_VEINS, blood.upper_veins),
        ([azygos_vein(patient), LOWER_CAVA], blood.lower_veins),
        (PULMONARY_ARTERIES, blood.right),
        ([(with_the_heart(heart, points, 0.7), radii) for points, radii in PULMONARY_VEINS], blood.left),
    ]
    tubes = [polyline(points, radii) for vessels, _ in groups for points, radii in vessels]
    values = [hu for vessels, hu in groups for points, _ in vessels for _ in points[1:]]
    scale = np.float32(heart.scale - 1)
    great = joined(tubes)
    great = great.widened(scale * great.start_radius_mm)
    paint_tubes(canvas, great, np.array(values, dtype=np.float32), label=GREAT_VESSELS, within=(*FREE, LIVER))
    radius = aorta_radius(patient)
    aorta = polyline(aorta_path(patient), [radius * taper for taper in AORTIC_TAPER])
    paint_tubes(canvas, aorta, blood.left, label=AORTA, within=(*FREE, HEART))
