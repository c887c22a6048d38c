"""Medical material: pacemaker, port, wires of a sternotomy, a valve."""

from __future__ import annotations

import numpy as np

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.finding import Finding, Kind, Side, Situation
from vlm3d_ct.phantom.grid import Triple
from vlm3d_ct.phantom.patient import Heart, Patient
from vlm3d_ct.phantom.region_ids import BONES, CHEST_WALL, HEART

PACEMAKER, PORT, WIRES, VALVE = "pacemaker", "port catheter", "sternal wires", "prosthetic heart valve"
SIZES_MM = {PACEMAKER: 46.0, PORT: 26.0, WIRES: 24.0, VALVE: 30.0}
WIRE_HEIGHTS = (-22.0, 0.0, 22.0, 44.0, 66.0)
STERNUM_MM, RIB_CAGE_MM = 5.0, 13.0
"""From the cavity to the middle of the sternum, and to the muscle in front of the ribs."""
DEVICE_Z, DEVICE_X = 62.0, 78.0
"""Height and distance from the midline of what is implanted below the clavicle."""


def place_device(situation: Situation) -> list[Finding]:
    """One device; a valve only without contrast medium, which would hide it."""
    patient, side = situation.patient, "none"
    forms = [PACEMAKER, PORT, WIRES] if patient.enhanced else [PACEMAKER, PORT, WIRES, VALVE]
    form = forms[situation.rng.integers(len(forms))]
    regions: tuple[int, ...] = (BONES,)
    loops = tuple((z, situation.front_of_cavity(z, 0) - STERNUM_MM, 0.0) for z in WIRE_HEIGHTS)
    centre: Triple = loops[len(loops) // 2]
    if form in (PACEMAKER, PORT):
        side, regions = ("left", "right")[situation.rng.integers(2)], (CHEST_WALL,)
        centre = _below_skin(situation, -DEVICE_X if side == "right" else DEVICE_X)
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
            paths=(loops,) if form == WIRES else (),
        )
    ]


def _below_skin(situation: Situation, x: float) -> Triple:
    """A point in front of the chest muscle at the height of the devices."""
    front = situation.front_of_cavity(DEVICE_Z, x)
    return DEVICE_Z, front - RIB_CAGE_MM - situation.patient.muscle - 5, x


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
    size = canvas.visible((half, 5, 0.9 * half))
    canvas.ellipsoid(finding.centre_mm, size, tissue.METAL)
    z, y, x = heart.centre_mm
    _lead(canvas, [*_to_vena_cava(finding.centre_mm), (z - 22, y - 12, x + 14)])


def _paint_port(canvas: Canvas, finding: Finding, heart: Heart) -> None:
    half = finding.size_mm / 2
    canvas.ellipsoid(finding.centre_mm, canvas.visible((half, 6, half)), tissue.METAL - 1500)
    _lead(canvas, _to_vena_cava(finding.centre_mm))


def _paint_wires(canvas: Canvas, finding: Finding, heart: Heart) -> None:
    """Loops around the sternum, twisted together in front of it."""
    half = finding.size_mm / 2
    thick = 0.6 * canvas.grid.edge_mm if canvas.coarse else 0.7
    angles = np.linspace(0, 2 * np.pi, 13)
    for z, y, x in finding.paths[0]:
        loop: list[Triple] = [
            (z + 2.0 * float(np.sin(a)), y - 0.8 * half * float(np.cos(a)), x + half * float(np.sin(a))) for a in angles
        ]
        canvas.rod(loop, thick, tissue.METAL)
        knot = canvas.visible((2.0, 2.5, 2.5), share=0.8)
        canvas.ellipsoid((z, y - 0.8 * half, x), knot, tissue.METAL)


def _paint_valve(canvas: Canvas, finding: Finding, heart: Heart) -> None:
    z, y, x = _valve_centre(heart)
    radius = finding.size_mm / 2 - 2
    bead = canvas.visible((2.5, 2.5, 2.5), share=0.7)
    for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False):
        across, up = radius * float(np.cos(angle)), radius * float(np.sin(angle))
        canvas.ellipsoid((z + 0.7 * up, y + 0.7 * up, x + across), bead, tissue.METAL)


DEVICES = (Kind(abnormality="Medical material", weight=1.2, place=place_device, paint=paint_device),)
