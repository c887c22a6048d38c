"""The healthy anatomy of a patient, in painting order."""

from __future__ import annotations

from vlm3d_ct.phantom.abdomen import paint_abdomen
from vlm3d_ct.phantom.airways import paint_airways
from vlm3d_ct.phantom.belongings import paint_belongings
from vlm3d_ct.phantom.bones import paint_bones
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.heart import paint_heart
from vlm3d_ct.phantom.mediastinum import paint_mediastinum
from vlm3d_ct.phantom.patient import Patient
from vlm3d_ct.phantom.pulmonary import Tree, paint_tree
from vlm3d_ct.phantom.spine import paint_spine
from vlm3d_ct.phantom.thorax import paint_cavity, paint_fissures
from vlm3d_ct.phantom.vessels import paint_vessels
from vlm3d_ct.phantom.wall import paint_wall


def paint_anatomy(canvas: Canvas, patient: Patient, tree: Tree) -> None:
    """Paint everything healthy on an empty canvas: intensities without noise, region ids, lobes and depths."""
    paint_wall(canvas, patient)
    paint_cavity(canvas, patient)
    paint_fissures(canvas, patient)
    paint_bones(canvas, patient)
    paint_spine(canvas, patient)
    paint_abdomen(canvas, patient)
    paint_heart(canvas, patient, patient.heart, labelled=True)
    paint_vessels(canvas, patient)
    paint_airways(canvas)
    paint_mediastinum(canvas, patient)
    paint_tree(canvas, tree, patient)
    paint_belongings(canvas, patient)
