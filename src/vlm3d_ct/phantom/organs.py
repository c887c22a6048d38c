"""Organs other than the lungs: heart, vessels, airways, bones, gullet, thyroid, upper abdomen."""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Field, Triple, ellipsoid_depth
from vlm3d_ct.phantom.patient import Heart, Patient
from vlm3d_ct.phantom.thorax import HEART_AXES, MEDIASTINUM, PLEURA, diaphragm_surface, spine_y

AIRWAYS, HEART, PERICARDIUM, AORTA, GREAT_VESSELS = 6, 8, 9, 10, 11
ESOPHAGUS, THYROID, SPINE, BONES, LIVER, SPLEEN, UPPER_ABDOMEN = 13, 14, 15, 16, 18, 19, 20
LUNGS = (1, 2, 3, 4, 5, PLEURA)
EPICARDIAL_FAT_MM = 4.0
PERICARDIUM_MM = 4.0
"""Thickness of the pericardial shell in the mask, at least a voxel."""

AORTA_PATH: list[Triple] = [
    (-12, -22, 0), (12, -24, -10), (38, -20, -14), (52, -8, -6), (57, 8, 8), (53, 24, 19), (40, 38, 24),
    (20, 45, 25), (-60, 47, 24), (-110, 46, 16), (-165, 42, 10),
]  # fmt: skip
"""Centreline: root, ascending part, arch, descending part."""
ARCH = slice(2, 7)
DESCENDING = slice(7, 11)


def aorta_path(patient: Patient) -> list[Triple]:
    """The aorta's centreline; its root moves with the heart."""
    dz, dy, dx = (c - ref for c, ref in zip(patient.heart.centre_mm, (-33, -20, 19), strict=True))
    root = [(z + 0.6 * dz, y + 0.6 * dy, x + 0.6 * dx) for z, y, x in AORTA_PATH[:2]]
    return root + AORTA_PATH[2:]


def aorta_radius(patient: Patient) -> float:
    """Radius of the aorta in mm."""
    return 13.5 * patient.heart.scale


def heart_depth(canvas: Canvas, heart: Heart, margin_mm: float) -> tuple[tuple[slice, slice, slice], Field]:
    """Depth inside the heart on a box that reaches ``margin_mm`` beyond it."""
    box = canvas.grid.box_around(heart.centre_mm, (heart.reach_mm + margin_mm,) * 3)
    return box, ellipsoid_depth(canvas.grid.crop(box), heart.centre_mm, heart.half_mm, HEART_AXES)


def paint_heart(canvas: Canvas, heart: Heart, blood_hu: float, *, labelled: bool) -> None:
    """Paint pericardium, epicardial fat and heart; ``labelled`` also sets the region ids (healthy anatomy only)."""
    shell = max(PERICARDIUM_MM, canvas.grid.edge_mm)
    box, depth = heart_depth(canvas, heart, shell + 4)
    free = canvas.is_in(box, (*LUNGS, MEDIASTINUM, LIVER, UPPER_ABDOMEN, HEART, PERICARDIUM, 0))
    if labelled:
        canvas.labels[box][(depth > -shell) & (depth <= 0) & free] = PERICARDIUM
    canvas.paint(box, depth + 1.5, tissue.MUSCLE, where=free)
    canvas.paint(box, depth, tissue.FAT, where=free)
    canvas.paint(box, depth - EPICARDIAL_FAT_MM, blood_hu, where=free)
    if labelled:
        canvas.labels[box][(depth > 0) & free] = HEART


def paint_vessels(canvas: Canvas, patient: Patient) -> None:
    """Paint the aorta and the great vessels."""
    blood = patient.blood_hu
    free = (MEDIASTINUM, *LUNGS, 0, 17, PERICARDIUM, GREAT_VESSELS)
    veins: list[tuple[list[Triple], float]] = [
        ([(74, -15, -24), (0, -12, -30), (-20, -10, -28)], 9),  # superior vena cava
        ([(74, -15, -24), (88, -20, -36), (104, -18, -56)], 6.5),
        ([(76, -18, -22), (84, -30, 4), (92, -26, 36), (104, -18, 56)], 6),
        ([(56, -4, -4), (84, -6, -12), (110, -2, -26), (150, 0, -30)], 6),  # brachiocephalic trunk, right carotid
        ([(57, 8, 8), (90, 4, 18), (150, 0, 26)], 5),  # left carotid
        ([(55, 18, 15), (84, 16, 28), (104, 8, 58)], 5),  # left subclavian
        ([(-8, -38, 16), (12, -24, 17), (20, -8, 15)], 12),  # pulmonary trunk
        ([(20, -8, 15), (14, 4, -10), (8, 8, -42)], 9),
        ([(20, -8, 15), (20, 10, 34), (12, 14, 44)], 9),
        ([(-165, 16, -18), (-60, 4, -24)], 10),  # inferior vena cava
    ]
    for points, radius in veins:
        canvas.rod(points, radius * patient.heart.scale, blood, label=GREAT_VESSELS, within=free)
    canvas.rod(aorta_path(patient), aorta_radius(patient), blood, label=AORTA, within=(*free, HEART))


def paint_airways(canvas: Canvas) -> None:
    """Paint trachea and main bronchi with their walls."""
    trunk: list[Triple] = [(160, 4, 0), (110, 12, 0), (26, 24, 0)]
    branches: list[tuple[list[Triple], float]] = [
        ([(26, 24, 0), (12, 22, -20), (2, 18, -40)], 6.5),
        ([(2, 18, -40), (-28, 26, -50)], 4.5),
        ([(2, 18, -40), (22, 14, -56)], 4),
        ([(26, 24, 0), (8, 24, 24), (0, 20, 44)], 6),
        ([(0, 20, 44), (-30, 28, 54)], 4.5),
        ([(0, 20, 44), (20, 10, 58)], 4),
    ]
    free = (MEDIASTINUM, *LUNGS, AIRWAYS, 17)
    canvas.rod(trunk, 11, tissue.AIRWAY_WALL, label=AIRWAYS, within=free)
    for points, radius in branches:
        canvas.rod(points, radius + 2, tissue.AIRWAY_WALL, label=AIRWAYS, within=free)
    canvas.rod(trunk, 9, tissue.AIR + 20, within=(AIRWAYS,))
    for points, radius in branches:
        canvas.rod(points, radius, tissue.AIR + 20, within=(AIRWAYS,))


def paint_bones(canvas: Canvas, patient: Patient) -> None:
    """Paint ribs, sternum, clavicles, scapulae and the spine."""
    _paint_ribs(canvas, patient)
    front = -patient.cavity_half_depth
    canvas.ellipsoid((28, front - 5, 0), (62, 7, 19), tissue.RIB - 80, label=BONES)
    for side in (-1, 1):
        canvas.rod([(96, -48, side * 22), (112, -20, side * 138)], 7, tissue.RIB, label=BONES, within=(17,))
        canvas.ellipsoid((66, 68, side * 104), (52, 5, 38), tissue.RIB, label=BONES, within=(17,))
        canvas.ellipsoid((112, 6, side * 148), (24, 20, 18), tissue.BONE_SPONGE + 60, label=BONES, within=(17,))
    _paint_spine(canvas, patient)


def _paint_ribs(canvas: Canvas, patient: Patient) -> None:
    """Ribs are bands of the shell outside the cavity; they fall by 0.45 mm per mm towards the front."""
    grid = canvas.grid
    shell = (canvas.cavity_depth > -13) & (canvas.cavity_depth < 1)
    iz, iy, ix = np.nonzero(shell)
    z, y, x = grid.z[iz, 0, 0], grid.y[0, iy, 0], grid.x[0, 0, ix]
    turns = (z - np.float32(0.45) * y - np.float32(patient.rib_phase)) / np.float32(24)
    along = 6 - np.abs(turns - np.round(turns)) * 24 * np.float32(0.9)
    depth = np.minimum(along, 5 - np.abs(canvas.cavity_depth[iz, iy, ix] + 6))
    depth[(np.abs(x) < 14) | (z > patient.apex_z + 8)] = -99
    cover = np.clip(depth / np.float32(grid.edge_mm) + np.float32(0.5), 0, 1)
    value = np.where(y < -0.72 * patient.cavity_half_depth, np.float32(tissue.CARTILAGE), np.float32(tissue.RIB))
    old = canvas.hu[iz, iy, ix]
    canvas.hu[iz, iy, ix] = old + cover * (value - old)
    chosen = depth > 0
    canvas.labels[iz[chosen], iy[chosen], ix[chosen]] = BONES


def _paint_spine(canvas: Canvas, patient: Patient) -> None:
    centre_y = spine_y(patient)
    grid = canvas.grid
    box = grid.box((-1e4, centre_y - 24, -46), (1e4, centre_y + 54, 46))
    part = grid.crop(box)
    if 0 in part.shape:
        return
    body = 18 - np.sqrt((part.x / np.float32(1.1)) ** 2 + (part.y - np.float32(centre_y)) ** 2)
    turns = (part.z - np.float32(patient.rib_phase)) / np.float32(25)
    disc = 2.6 - np.abs(turns - np.round(turns)) * 25
    canvas.paint(box, body, tissue.BONE_CORTEX, label=SPINE)
    canvas.paint(box, body - 2.5, tissue.BONE_SPONGE)
    canvas.paint(box, np.minimum(body, disc), tissue.DISC)
    arch = 15 - np.sqrt(part.x**2 + (part.y - np.float32(centre_y + 27)) ** 2)
    process = np.minimum(4 - np.abs(part.x), 20 - np.abs(part.y - np.float32(centre_y + 32)))
    wings = np.minimum(5 - np.abs(part.y - np.float32(centre_y + 26)), 34 - np.abs(part.x))
    wings = np.minimum(wings, 6 - np.abs(turns - np.round(turns) + 0.3) * 25)
    bone = np.maximum(np.maximum(arch, process), wings)
    trunk = canvas.labels[box] != 0
    canvas.paint(box, bone, tissue.RIB, label=SPINE, where=trunk)
    canvas.paint(box, arch - 6, tissue.SPINAL_CANAL)


def paint_neck(canvas: Canvas) -> None:
    """Paint the thyroid and the gullet."""
    for side in (-1, 1):
        canvas.ellipsoid((132, -2, side * 19), (20, 10, 10), tissue.THYROID, label=THYROID, within=(17, MEDIASTINUM))
    free = (MEDIASTINUM, 17, 0, *LUNGS, PERICARDIUM)
    path: list[Triple] = [(160, 22, 3), (100, 32, 4), (20, 40, 4), (-40, 36, 8), (-80, 28, 14), (-100, 8, 30)]
    canvas.rod(path, 7, tissue.ESOPHAGUS, label=ESOPHAGUS, within=free)
    canvas.rod(path, 1.8, tissue.GAS, within=(ESOPHAGUS,))


def paint_abdomen(canvas: Canvas, patient: Patient) -> None:
    """Paint liver, gallbladder, spleen, stomach and kidneys below the diaphragm."""
    grid, z0 = canvas.grid, patient.diaphragm_z
    surface = diaphragm_surface(patient, grid)
    roof = np.minimum(canvas.cavity_depth, surface - grid.z)
    canvas.paint(canvas.whole(), np.minimum(roof + 1.5, 3 - roof), tissue.MUSCLE, where=canvas.labels == 0)
    below = (roof > 0) & (canvas.labels == 0)
    liver = tissue.ENHANCED_LIVER if patient.enhanced else tissue.LIVER
    spleen = tissue.ENHANCED_SPLEEN if patient.enhanced else tissue.SPLEEN
    kidney = tissue.ENHANCED_KIDNEY if patient.enhanced else tissue.KIDNEY
    width = patient.cavity_half_width / 122
    organs: list[tuple[Triple, Triple, float, int]] = [
        ((z0 - 38, -20, 58 * width), (42, 40, 40), tissue.STOMACH, UPPER_ABDOMEN),
        ((z0 - 32, -52, 52 * width), (26, 13, 26), tissue.GAS, UPPER_ABDOMEN),
        ((z0 - 40, 38, 90 * width), (46, 36, 32), spleen, SPLEEN),
        ((z0 - 78, 48, -52 * width), (42, 22, 24), kidney, UPPER_ABDOMEN),
        ((z0 - 72, 48, 52 * width), (42, 22, 24), kidney, UPPER_ABDOMEN),
        ((z0 - 36, -8, -52 * width), (64, 76, 92), liver, LIVER),
        ((z0 - 72, -42, -40 * width), (24, 13, 13), tissue.BILE, LIVER),
    ]
    for centre, half, hu, label in organs:
        box = grid.box_around(centre, (half[0] + 4, half[1] + 4, half[2] + 4))
        part = grid.crop(box)
        if 0 in part.shape:
            continue
        depth = np.minimum(ellipsoid_depth(part, centre, half), roof[box])
        canvas.paint(box, depth, hu, label=label, where=below[box])
