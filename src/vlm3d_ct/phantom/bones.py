"""Ribs with their cartilage, sternum, clavicles, scapulae and upper arm bones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float32

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Number, Triple
from vlm3d_ct.phantom.landmarks import spine_y
from vlm3d_ct.phantom.patient import Patient
from vlm3d_ct.phantom.region_ids import BONES
from vlm3d_ct.phantom.rounded import cosine, power, sine
from vlm3d_ct.phantom.spine import VERTEBRA_MM
from vlm3d_ct.phantom.thorax import POLE_Y, cavity_radius
from vlm3d_ct.phantom.tubes import Tubes, joined, near_tubes, paint_near, paint_tubes, polyline, polylines
from vlm3d_ct.phantom.wall import arm_path
from vlm3d_ct.seeding import random_stream

RIB_COUNT = 12
RIB_RADIUS_MM, RIB_HALF_THICKNESS_MM, RIB_CENTRE_MM = 5.6, 3.4, 6.5
"""Half height of a rib, half its thickness, and its middle's distance outside the cavity."""
RIB_CORTEX_MM = 1.1
OFF_CAGE_MM = 30.0
"""Further than this outside the cavity, at the spine and over the apices, ribs are round."""
SPINE_TURN = np.float32(0.33)
FRONT_TURN = np.array([2.62, 2.55, 2.5, 2.42, 2.36, 2.3, 2.22, 2.14, 2.06, 1.95, 1.55, 1.1], dtype=np.float32)
"""Direction (0 back, pi front) in which each rib's bone begins on the cage, and ends in front."""
FALL_MM = np.array([22, 38, 50, 60, 68, 74, 78, 80, 80, 74, 56, 38], dtype=np.float32)
"""How far each rib falls from the spine to its front end."""
LAST_TRUE_RIB, LAST_JOINED_RIB = 7, 10
"""Ribs up to the seventh reach the sternum, up to the tenth the rib above."""
CARTILAGE_RISE_MM = np.array([0, 0, 14, 18, 23, 28, 32, 42, 42, 42], dtype=np.float32)
STERNUM_TURN, ARCH_TURN = 2.93, 2.55
RIB_STEPS, CARTILAGE_STEPS = 14, 4
STERNUM_MM = ((-40, 2), (-34, 5), (-28, 7), (-22, 14), (5, 18), (30, 15), (48, 14), (54, 20), (66, 23), (80, 27))
"""Height and half width from the xiphoid to the manubrium."""
STERNAL_JOINT_Z = 50.0
BLADE_TUBES, BLADE_RADIUS_MM = 24, 2.0


def rib_lines(patient: Patient) -> tuple[Float32[np.ndarray, "ribs points 3"], Float32[np.ndarray, "joined steps 3"]]:
    """Centrelines (z, y, x) of the left ribs' bones, and of the cartilages of the first ten."""
    top = patient.rib_phase + VERTEBRA_MM * np.floor((patient.apex_z + 4 - patient.rib_phase) / VERTEBRA_MM)
    head_z = (top - VERTEBRA_MM * np.arange(RIB_COUNT)).astype(np.float32)
    share = np.linspace(0, 1, RIB_STEPS, dtype=np.float32)
    z = head_z[:, None] - FALL_MM[:, None] * (np.float32(0.35) * share + np.float32(0.65) * power(share, 1.6))
    bones = _on_cage(patient, z, SPINE_TURN + share * (FRONT_TURN[:, None] - SPINE_TURN))
    back = spine_y(patient, head_z)
    bones[:, 0] = np.stack([head_z, back + 8, np.full_like(head_z, 20)], axis=1)
    bones[:, 1] = np.stack([head_z - 4, back + 26, np.full_like(head_z, 36)], axis=1)
    joined_ribs = slice(0, LAST_JOINED_RIB)
    rise = np.where(np.arange(LAST_JOINED_RIB) < 2, 0, CARTILAGE_RISE_MM)[:, None].astype(np.float32)
    onward = np.linspace(0, 1, CARTILAGE_STEPS, dtype=np.float32)
    start = FRONT_TURN[joined_ribs, None]
    goal = np.where(np.arange(LAST_JOINED_RIB) < LAST_TRUE_RIB, STERNUM_TURN, ARCH_TURN)[:, None].astype(np.float32)
    return bones, _on_cage(patient, z[joined_ribs, -1:] + rise * onward**2, start + onward * (goal - start))


def _on_cage(
    patient: Patient, z: Float32[np.ndarray, "lines points"], turn: Float32[np.ndarray, "lines points"]
) -> Float32[np.ndarray, "lines points 3"]:
    """Points in the middle of the rib cage at heights z in directions ``turn``."""
    radius = cavity_radius(patient, z, turn) + np.float32(RIB_CENTRE_MM)
    return np.stack([z, POLE_Y + radius * cosine(turn), radius * sine(turn)], axis=2).astype(np.float32)


def mirrored(points_mm: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Points (z, y, x) of the left on the right side."""
    return np.asarray(points_mm * np.array([1, 1, -1], dtype=np.float32))


def paint_bones(canvas: Canvas, patient: Patient) -> None:
    """Paint ribs, sternum and shoulder girdle, and set their region id."""
    _paint_ribs(canvas, patient)
    _paint_sternum(canvas, patient)
    left = _girdle(patient)
    right = replace(left, start_mm=mirrored(left.start_mm), end_mm=mirrored(left.end_mm))
    girdle = joined([left, right])
    paint_tubes(canvas, girdle, patient.cortex * tissue.RIB, label=BONES)
    paint_tubes(canvas, girdle.widened(-1.6), 0.75 * patient.sponge_hu + 40)
    _paint_arm_bones(canvas, patient)


def _paint_ribs(canvas: Canvas, patient: Patient) -> None:
    """Flat tubes along the cage: cortex, marrow, and cartilage with specks of calcium from middle age on."""
    bones, cartilage = (
        polylines(np.concatenate([lines, mirrored(lines)]), RIB_RADIUS_MM) for lines in rib_lines(patient)
    )
    outside = canvas.cavity_depth.reshape(-1)
    labels = canvas.labels.reshape(-1)
    for tubes, hu, inner in (
        (cartilage, tissue.CARTILAGE, None),
        (bones, patient.cortex * tissue.RIB, 0.6 * patient.sponge_hu + 70),
    ):
        near = near_tubes(canvas.grid, tubes)
        flat = np.float32(RIB_HALF_THICKNESS_MM) - np.abs(outside[near.voxel] + np.float32(RIB_CENTRE_MM))
        off_cage = outside[near.voxel] < -OFF_CAGE_MM
        near = near.limited(np.where(off_cage, near.depth_mm - 1, flat))
        paint_near(canvas, near, hu)
        labels[near.voxel[near.depth_mm > 0]] = BONES
        if inner is not None:
            paint_near(canvas, near.inset(RIB_CORTEX_MM), inner)
    _paint_cartilage_calcium(canvas, patient, cartilage)


def _paint_cartilage_calcium(canvas: Canvas, patient: Patient, cartilage: Tubes) -> None:
    """Specks along the rims of the cartilages: normal at an age."""
    rng = random_stream("phantom cartilage", patient.seed)
    count = int(len(cartilage) * 2 * patient.cartilage_calcium)
    owner = rng.integers(len(cartilage), size=max(count, 1))[:count]
    along = rng.random((count, 1)).astype(np.float32)
    spread = rng.normal(size=(count, 3)).astype(np.float32) * np.array([3.0, 1.2, 1.8], dtype=np.float32)
    spot = cartilage.start_mm[owner] + along * (cartilage.end_mm - cartilage.start_mm)[owner] + spread
    size = rng.uniform(0.7, 1.6, size=count).astype(np.float32)
    reach = rng.normal(size=(count, 3)).astype(np.float32) * 2
    specks = Tubes(start_mm=spot, end_mm=spot + reach, start_radius_mm=size, end_radius_mm=size)
    paint_tubes(canvas, specks, tissue.CARTILAGE_CALCIUM, within=(BONES,))


def manubrium_top(patient: Patient) -> Triple:
    """The upper end of the sternum."""
    z, y, _ = _on_cage(patient, np.full((1, 1), STERNUM_MM[-1][0], np.float32), np.full((1, 1), np.pi, np.float32))[
        0, 0
    ]
    return float(z), float(y), 0.0


def _paint_sternum(canvas: Canvas, patient: Patient) -> None:
    """A plate in front of the cavity: xiphoid, body, and the wide manubrium above a narrow joint."""
    heights, half_widths = (np.array(column, dtype=np.float32) for column in zip(*STERNUM_MM, strict=True))
    front = -patient.cavity_half_depth
    box = canvas.grid.box((STERNUM_MM[0][0], front - 30, -32), (STERNUM_MM[-1][0], 0, 32))
    part = canvas.grid.crop(box)
    if 0 in part.shape:
        return
    width = np.interp(part.z, heights, half_widths).astype(np.float32) - np.abs(part.x)
    ends = np.minimum(part.z - heights[0], heights[-1] - part.z)
    joint = np.abs(part.z - np.float32(STERNAL_JOINT_Z)) - np.float32(1.5)
    plate = np.float32(5) - np.abs(canvas.cavity_depth[box] + np.float32(RIB_CENTRE_MM + 1))
    depth = np.minimum(np.minimum(plate, width), np.minimum(ends, joint))
    forwards = (part.y < 0) & np.ones_like(depth, dtype=bool)
    canvas.paint(box, depth, patient.cortex * tissue.RIB, label=BONES, where=forwards)
    canvas.paint(box, depth - np.float32(1.5), 0.75 * patient.sponge_hu, where=forwards)


def _girdle(patient: Patient) -> Tubes:
    """Left clavicle and scapula: its blade is a fan of thin tubes from the joint to the inner border."""
    up = patient.arms == "up"
    joint = np.array(arm_path(patient, 1)[0]) - np.array([0, 2, 26])
    z, y, _ = manubrium_top(patient)
    clavicle: list[Triple] = [
        (z + 2, y, 24.0),
        (z + 12, y + 2, 60.0),
        (float(joint[0]) + 8, float(joint[1]) - 22, 106.0),
        (float(joint[0]) + 14, float(joint[1]) - 6, float(joint[2])),
    ]
    top = np.array([joint[0] - (18 if up else 4), 66, 78 if up else 64])
    tip = np.array([joint[0] - (108 if up else 118), 74, 112 if up else 84])
    border = top + np.linspace(0, 1, BLADE_TUBES)[:, None] * (tip - top)
    bulge = joint + 0.5 * (border - joint) + np.array([0, 5, 4])
    fan = np.stack([np.broadcast_to(joint, border.shape), bulge, border], axis=1).astype(np.float32)
    spine = np.stack([top + 0.2 * (tip - top), joint + np.array([6, 22, -14]), joint + np.array([14, 4, 10])])
    return joined(
        [
            polyline(clavicle, [7.5, 5.5, 5.5, 6.5]),
            polylines(fan, BLADE_RADIUS_MM),
            polyline(np.stack([joint, tip]), 3.6),
            polyline(spine, [3.0, 4.0, 5.5]),
            polyline(np.stack([joint, joint]), 11.0),
        ]
    )


def _paint_arm_bones(canvas: Canvas, patient: Patient) -> None:
    shafts: list[Tubes] = []
    heads: list[Tubes] = []
    for side in (-1, 1):
        line = arm_path(patient, side)
        heads.append(polyline([line[0], line[0]], 22))
        shafts.append(polyline(line, 10.5))
    _paint_long_bone(canvas, joined(shafts), patient.cortex * tissue.LONG_BONE_CORTEX, 3.5, tissue.FAT + 60)
    _paint_long_bone(canvas, joined(heads), patient.cortex * tissue.RIB, 1.5, 0.9 * patient.sponge_hu + 40)


def _paint_long_bone(canvas: Canvas, tubes: Tubes, cortex_hu: Number, cortex_mm: Number, inner_hu: Number) -> None:
    near = near_tubes(canvas.grid, tubes)
    paint_near(canvas, near, cortex_hu)
    paint_near(canvas, near.inset(cortex_mm), inner_hu)
    canvas.labels.reshape(-1)[near.voxel[near.depth_mm > 0]] = BONES
