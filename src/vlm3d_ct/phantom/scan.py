"""A scan: one patient with findings, seen on a voxel grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int16, UInt8

from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.catalogue import draw_findings, paint_findings
from vlm3d_ct.phantom.findings.finding import Finding, Situation
from vlm3d_ct.phantom.grid import Grid, Triple
from vlm3d_ct.phantom.organs import (
    paint_abdomen,
    paint_airways,
    paint_bones,
    paint_heart,
    paint_neck,
    paint_vessels,
)
from vlm3d_ct.phantom.patient import Patient, draw_patient
from vlm3d_ct.phantom.pulmonary import Branch, draw_tree, paint_tree
from vlm3d_ct.phantom.thorax import find_lungs, paint_fissures, paint_trunk
from vlm3d_ct.seeding import random_stream

SCOUT_SHAPE = (28, 60, 60)
"""Voxels of the coarse grid in which findings and vessels are placed."""
HU_RANGE = (-1024, 3071)
"""What a scanner stores."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A phantom patient with everything that a scan of them needs.

    Attributes:
        patient: the healthy anatomy.
        tree: the vessels in the lungs.
        findings: what is abnormal, in painting order.
        coordinates: of the random stream that the subject was drawn from.
    """

    patient: Patient
    tree: tuple[Branch, ...]
    findings: tuple[Finding, ...]
    coordinates: tuple[int | str, ...]


def draw_subject(*coordinates: int | str, smallest_mm: float, count: int | None = None) -> Subject:
    """The subject of these coordinates (seed, index): a pure function of them.

    Args:
        coordinates: of the random stream.
        smallest_mm: diameter of the smallest lesion that the scan can show.
        count: number of kinds of findings, random if None.
    """
    patient = draw_patient(random_stream(*coordinates, "patient"))
    scout = Canvas(grid_over(patient, SCOUT_SHAPE))
    find_lungs(scout, patient)
    rng = random_stream(*coordinates, "findings")
    situation = Situation(rng=rng, patient=patient, scout=scout, smallest_mm=smallest_mm)
    findings = draw_findings(situation, count)
    tree = draw_tree(random_stream(*coordinates, "vessels"), scout)
    return Subject(patient=patient, tree=tree, findings=findings, coordinates=coordinates)


def grid_over(patient: Patient, shape: tuple[int, int, int]) -> Grid:
    """The grid of the given shape that covers the patient's scan."""
    extent = (patient.view_z_mm, patient.view_xy_mm, patient.view_xy_mm)
    spacing = [length / size for length, size in zip(extent, shape, strict=True)]
    corner = [
        centre - step * (size - 1) / 2
        for centre, step, size in zip(patient.view_centre_mm, spacing, shape, strict=True)
    ]
    return Grid(
        origin_mm=(corner[0], corner[1], corner[2]), spacing_mm=(spacing[0], spacing[1], spacing[2]), shape=shape
    )


def paint_healthy(grid: Grid, subject: Subject) -> Canvas:
    """The healthy anatomy without noise."""
    canvas, patient = Canvas(grid), subject.patient
    paint_trunk(canvas, patient)
    paint_fissures(canvas, patient)
    paint_bones(canvas, patient)
    paint_abdomen(canvas, patient)
    paint_heart(canvas, patient.heart, patient.blood_hu, labelled=True)
    paint_vessels(canvas, patient)
    paint_airways(canvas)
    paint_neck(canvas)
    paint_tree(canvas, subject.tree, patient.blood_hu)
    return canvas


def paint_scan(grid: Grid, subject: Subject) -> Canvas:
    """The anatomy with its findings, without noise; region ids are those of the healthy anatomy."""
    canvas = paint_healthy(grid, subject)
    paint_findings(canvas, subject.patient, subject.findings)
    return canvas


def add_noise(
    hu: Float32[np.ndarray, "z y x"], sigma_hu: float, rng: np.random.Generator
) -> Int16[np.ndarray, "z y x"]:
    """Stored intensities: with noise that is correlated in plane, as reconstruction kernels leave it."""
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    smooth = noise[:, :, :-1] + noise[:, :, 1:]
    smooth = smooth[:, :-1] + smooth[:, 1:]
    noise[:, 1:, 1:] = smooth * np.float32(0.5)
    noise *= np.float32(sigma_hu)
    noise += hu
    return np.clip(np.rint(noise, out=noise), *HU_RANGE).astype(np.int16)


def render(
    grid: Grid, subject: Subject, slab: int = 32
) -> tuple[Int16[np.ndarray, "z y x"], UInt8[np.ndarray, "z y x"]]:
    """Intensities with noise, and region ids; painted ``slab`` slices at a time to bound the memory."""
    voxels = np.empty(grid.shape, dtype=np.int16)
    labels = np.empty(grid.shape, dtype=np.uint8)
    rng = random_stream(*subject.coordinates, "noise")
    for start in range(0, grid.shape[0], slab):
        rows = slice(start, min(start + slab, grid.shape[0]))
        box = (rows, slice(0, grid.shape[1]), slice(0, grid.shape[2]))
        canvas = paint_scan(grid.crop(box), subject)
        voxels[rows] = add_noise(canvas.hu, subject.patient.noise_hu, rng)
        labels[rows] = canvas.labels
    return voxels, labels


def voxel_of(grid: Grid, point_mm: Triple) -> tuple[int, int, int]:
    """The voxel nearest to a point, moved into the grid where the point lies outside."""
    index = grid.voxel(point_mm)
    z, y, x = (min(max(i, 0), size - 1) for i, size in zip(index, grid.shape, strict=True))
    return z, y, x
