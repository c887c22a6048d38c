"""Medical material: pacemaker, port, wires of a sternotomy, a valve."""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.finding import Finding, Kind, Side, Situation
from vlm3d_ct.phantom.grid import Triple
from vlm3d_ct.phantom.organs import BONES, HEART
from vlm3d_ct.phantom.patient import Heart, Patient
from vlm3d_ct.phantom.thorax import BODY_POWER, CHEST_WALL, body_axes

PACEMAKER, PORT, WIRES, VALVE = "pacemaker", "port catheter", "sternal wires", "prosthetic heart valve"
SIZES_MM = {PACEMAKER: 46.0, PORT: 26.0, WIRES: 9.0, VALVE: 30.0}
DEVICE_Z, DEVICE_X = 62.0, 78.0
"""Height and distance from the midline of what is implanted below the clavicle."""


def place_device(situation: Situation) -> list[Finding]:
    """One device; a valve only without contrast medium, which would hide it."""
    patient, side = situation.patient, "none"
    forms = [PACEMAKER, PORT, WIRES] if patient.enhanced else [PACEMAKER, PORT, WIRES, VALVE]
    form = forms[situation.rng.integers(len(forms))]
    regions: tuple[int, ...] = (BONES,)
    centre: Triple = (20.0, -patient.cavity_half_depth - 5, 0.0)
    if form in (PACEMAKER, PORT):
        side, regions = ("left", "right")[situation.rng.integers(2)], (CHEST_WALL,)
        centre = _below_skin(patient, -DEVICE_X if side == "right" else DEVICE_X)
    elif form == VALVE:
        regions, centre = (HEART,), _valve_centre(patient.heart)
    checked: Side = "left" if side == "left" else "right" if side == "right" else "none"
    return [
        Finding(
            abnormality="Medical material",
            form=form,
            side=checked,
            regions=regions,
            centre_mm=centre,
            size_mm=SIZES_MM[form],
            severity="moderate",
            seed=situation.seed(),
        )
    ]


def _below_skin(patient: Patient, x: float) -> Triple:
    """A point in front of the chest muscle at the height of the devices."""
    z = np.array([DEVICE_Z], dtype=np.float32)
    width, depth = (float(axis[0]) for axis in body_axes(patient, z))
    front = -depth * (1 - (abs(x) / width) ** BODY_POWER) ** (1 / BODY_POWER)
    shift = 16 * min(1.0, max(0.0, (DEVICE_Z - 40) / 55)) ** 2
    return DEVICE_Z, front + shift + patient.fat + 6, x


def _valve_centre(heart: Heart) -> Triple:
    z, y, x = heart.centre_mm
    return z + 14, y + 8, x - 6


def paint_device(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """The device in metal, with its lead or catheter."""
    painters = {PACEMAKER: _paint_pacemaker, PORT: _paint_port, WIRES: _paint_wires, VALVE: _paint_valve}
    painters[finding.form](canvas, finding, heart)


def _lead(canvas: Canvas, points: list[Triple]) -> None:
    canvas.rod(points, max(1.0, 0.6 * canvas.grid.edge_mm), tissue.METAL)


def _to_vena_cava(start: Triple) -> list[Triple]:
    z, y, x = start
    side = 1 if x > 0 else -1
    return [start, (z + 36, y + 40, side * 58.0), (98.0, -18.0, side * 40.0), (76.0, -16.0, -20.0), (8.0, -12.0, -28.0)]


def _paint_pacemaker(canvas: Canvas, finding: Finding, heart: Heart) -> None:
    half = finding.size_mm / 2
    size = canvas.grid.at_least_visible((half, 5, 0.9 * half))
    canvas.ellipsoid(finding.centre_mm, size, tissue.METAL)
    z, y, x = heart.centre_mm
    _lead(canvas, [*_to_vena_cava(finding.centre_mm), (z - 22, y - 12, x + 14)])


def _paint_port(canvas: Canvas, finding: Finding, heart: Heart) -> None:
    half = finding.size_mm / 2
    canvas.ellipsoid(finding.centre_mm, canvas.grid.at_least_visible((half, 6, half)), tissue.METAL - 1500)
    _lead(canvas, _to_vena_cava(finding.centre_mm))


def _paint_wires(canvas: Canvas, finding: Finding, heart: Heart) -> None:
    _, y, x = finding.centre_mm
    half = canvas.grid.at_least_visible((2.5, 4.5, 4.5), share=0.8)
    for z in (-22.0, 0.0, 22.0, 44.0, 66.0):
        canvas.ellipsoid((z, y, x), half, tissue.METAL)


def _paint_valve(canvas: Canvas, finding: Finding, heart: Heart) -> None:
    z, y, x = _valve_centre(heart)
    radius = finding.size_mm / 2 - 2
    bead = canvas.grid.at_least_visible((2.5, 2.5, 2.5), share=0.7)
    for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False):
        across, up = radius * float(np.cos(angle)), radius * float(np.sin(angle))
        canvas.ellipsoid((z + 0.7 * up, y + 0.7 * up, x + across), bead, tissue.METAL)


DEVICES = (Kind(abnormality="Medical material", weight=1.2, place=place_device, paint=paint_device),)
