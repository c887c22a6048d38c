"""A scan: one patient with findings, seen on a voxel grid through a scanner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int16, UInt8

from vlm3d_ct.phantom.acquisition import Acquisition, centred_grid, ranges
from vlm3d_ct.phantom.anatomy import paint_anatomy
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.catalogue import draw_findings, paint_findings
from vlm3d_ct.phantom.findings.finding import COARSEST_MM, Finding, Situation
from vlm3d_ct.phantom.grid import Grid, Triple
from vlm3d_ct.phantom.noise import Scanner
from vlm3d_ct.phantom.patient import Patient, draw_patient
from vlm3d_ct.phantom.pulmonary import Tree, draw_tree
from vlm3d_ct.phantom.table import paint_table
from vlm3d_ct.phantom.thorax import find_lungs
from vlm3d_ct.seeding import random_stream

SCOUT_SHAPE = (28, 60, 60)
"""Voxels of the coarse grid in which findings and vessels are placed."""
SLAB_VOXELS = 2**22
"""What is painted at a time; the allocator keeps arrays of this size, larger ones cost more time than they save."""
COARSE_GENERATIONS, FINE_GENERATIONS = 7, 10
"""Of vessels within a lobe: what is thinner cannot be seen."""
SCOUT_LENGTH_MM, SCOUT_LEAST_WIDTH_MM, SCOUT_MARGIN_MM = 308.0, 354.0, 8.0


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A phantom patient with everything that a scan of them needs.

    Attributes:
        patient: the healthy anatomy.
        tree: the bronchi and vessels in the lungs.
        findings: what is abnormal, in painting order.
        coordinates: of the random stream that the subject was drawn from.
    """

    patient: Patient
    tree: Tree
    findings: tuple[Finding, ...]
    coordinates: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What is known of every voxel of a scan.

    Attributes:
        voxels_hu: as the scanner stores them.
        labels: region ids 0..20 of the healthy anatomy; of a thick slice those of most of its painted planes.
        lesions: 1 + index of the finding that covers at least half of the voxel, 0 elsewhere.
    """

    voxels_hu: Int16[np.ndarray, "z y x"]
    labels: UInt8[np.ndarray, "z y x"]
    lesions: UInt8[np.ndarray, "z y x"]


def draw_subject(*coordinates: int | str, smallest_mm: float, count: int | None = None, hard: bool = False) -> Subject:
    """The subject of these coordinates (seed, index): a pure function of them.

    Args:
        coordinates: of the random stream.
        smallest_mm: diameter of the smallest lesion that the scan can show.
        count: number of kinds of findings, random if None.
        hard: give contrast medium as in the hard test set.
    """
    patient = draw_patient(random_stream(*coordinates, "patient"), ranges(hard).phases)
    scout = Canvas(grid_over(patient, SCOUT_SHAPE))
    find_lungs(scout, patient)
    generations = COARSE_GENERATIONS if smallest_mm > COARSEST_MM else FINE_GENERATIONS
    tree = draw_tree(random_stream(*coordinates, "vessels"), scout, generations)
    rng = random_stream(*coordinates, "findings")
    situation = Situation(rng=rng, patient=patient, scout=scout, smallest_mm=smallest_mm, tree=tree)
    findings = draw_findings(situation, count)
    return Subject(patient=patient, tree=tree, findings=findings, coordinates=coordinates)


def grid_over(patient: Patient, shape: tuple[int, int, int]) -> Grid:
    """The grid of the given shape that covers the patient's chest, whatever the acquisition."""
    width = max(2 * (patient.body_half_width + SCOUT_MARGIN_MM), SCOUT_LEAST_WIDTH_MM)
    spacing = (SCOUT_LENGTH_MM / shape[0], width / shape[1], width / shape[2])
    return centred_grid((0.0, 0.0, 0.0), spacing, shape)


def paint_healthy(grid: Grid, subject: Subject) -> Canvas:
    """The healthy anatomy without noise."""
    canvas = Canvas(grid)
    paint_anatomy(canvas, subject.patient, subject.tree)
    return canvas


def paint_scan(grid: Grid, subject: Subject, *, table: bool = False) -> Canvas:
    """The anatomy with its findings, without noise; region ids are those of the healthy anatomy."""
    canvas = paint_healthy(grid, subject)
    if table:
        paint_table(canvas, subject.patient)
    paint_findings(canvas, subject.patient, subject.findings)
    return canvas


def slice_profile(acquisition: Acquisition) -> Float32[np.ndarray, " m"]:
    """Shares of the painted planes in a slice, its middle plane in the middle: a box as wide as the slice is thick."""
    planes = acquisition.planes_per_slice
    half = acquisition.slice_thickness_mm / acquisition.spacing_mm[0] * planes / 2
    reach = max(0, int(np.ceil(half - 0.5 - 1e-6)))
    offsets = np.arange(-reach, reach + 1)
    shares = np.minimum(offsets + 0.5, half) - np.maximum(offsets - 0.5, -half)
    return np.asarray(shares / shares.sum(), dtype=np.float32)


def render(acquisition: Acquisition, subject: Subject, slab_voxels: int = SLAB_VOXELS) -> Scan:
    """The subject's scan, painted about ``slab_voxels`` voxels at a time to bound the memory."""
    grid, planes, profile = acquisition.grid, acquisition.planes_per_slice, slice_profile(acquisition)
    reach = len(profile) // 2
    scan = Scan(
        voxels_hu=np.empty(grid.shape, dtype=np.int16),
        labels=np.empty(grid.shape, dtype=np.uint8),
        lesions=np.empty(grid.shape, dtype=np.uint8),
    )
    scanner = Scanner(acquisition, subject.patient, random_stream(*subject.coordinates, "noise"))
    step = max(1, slab_voxels // (planes * grid.shape[1] * grid.shape[2]))
    for start in range(0, grid.shape[0], step):
        stop = min(start + step, grid.shape[0])
        canvas = paint_scan(_planes_of(grid, start, stop, planes, reach), subject, table=acquisition.table)
        for index in range(start, stop):
            middle = planes * (index - start) + reach
            mean = profile[0] * canvas.hu[middle - reach]
            for share, plane in zip(profile[1:], canvas.hu[middle - reach + 1 : middle + reach + 1], strict=True):
                mean += share * plane
            scan.voxels_hu[index] = scanner.store(mean, index)
        for target, ids in ((scan.labels, canvas.labels), (scan.lesions, canvas.lesions)):
            target[start:stop] = _most(ids, planes, reach)
    return scan


def _planes_of(grid: Grid, start: int, stop: int, planes: int, reach: int) -> Grid:
    """The planes of slices ``start`` to ``stop``, with ``reach`` planes beyond the middle of the first and the last."""
    z, y, x = grid.origin_mm
    step = grid.spacing_mm[0] / planes
    return Grid(
        origin_mm=(z + start * grid.spacing_mm[0] - reach * step, y, x),
        spacing_mm=(step, *grid.spacing_mm[1:]),
        shape=(planes * (stop - start - 1) + 2 * reach + 1, *grid.shape[1:]),
    )


def _most(ids: UInt8[np.ndarray, "p y x"], planes: int, reach: int) -> UInt8[np.ndarray, "z y x"]:
    """What at least two of the three middle planes of each slice say, its middle one where all differ."""
    middle = ids[reach : len(ids) - reach : planes]
    if planes == 1:
        return middle
    before, after = (ids[reach + side : len(ids) - reach + side : planes] for side in (-1, 1))
    return np.where(before == after, before, middle)


def voxel_of(grid: Grid, point_mm: Triple) -> tuple[int, int, int]:
    """The voxel nearest to a point, moved into the grid where the point lies outside."""
    index = grid.voxel(point_mm)
    z, y, x = (min(max(i, 0), size - 1) for i, size in zip(index, grid.shape, strict=True))
    return z, y, x
