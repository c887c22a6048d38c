"""Laws of the healthy anatomy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vlm3d_ct.phantom.anatomy import paint_anatomy
from vlm3d_ct.phantom.bones import paint_bones, rib_lines
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Grid
from vlm3d_ct.phantom.heart import CORONARY_SHARE, coronary_paths, paint_heart
from vlm3d_ct.phantom.landmarks import HEART_AXES, spine_y
from vlm3d_ct.phantom.mediastinum import normal_nodes
from vlm3d_ct.phantom.patient import Arms, Blood, Patient, draw_patient
from vlm3d_ct.phantom.pulmonary import draw_tree
from vlm3d_ct.phantom.region_ids import AORTA, BONES, CHEST_WALL, GREAT_VESSELS, HEART, LIVER, LUNGS, SPINE, SPLEEN
from vlm3d_ct.phantom.scan import SCOUT_SHAPE, draw_subject, grid_over, paint_healthy, paint_scan
from vlm3d_ct.phantom.spine import CANAL_BEHIND_MM, VERTEBRA_MM
from vlm3d_ct.phantom.thorax import find_lungs, paint_cavity, paint_fissures
from vlm3d_ct.phantom.vessels import paint_vessels
from vlm3d_ct.phantom.wall import paint_wall
from vlm3d_ct.seeding import random_stream

SHAPE = (32, 96, 96)
GRID = Grid(origin_mm=(-150.0, -160.0, -190.0), spacing_mm=(8.0, 4.0, 4.0), shape=(36, 80, 95))
FINE = Grid(origin_mm=(-150.0, -145.0, -190.0), spacing_mm=(4.0, 2.0, 2.0), shape=(74, 140, 190))
SCANNED = Grid(origin_mm=(-150.0, -145.0, -190.0), spacing_mm=(8.0, 1.4, 1.4), shape=(36, 200, 270))
"""Thin slices, far apart, with the pixels of the real scans."""
RIGHT_LOBES, LEFT_LOBES = (1, 2, 3), (4, 5)
REAL_HU = {
    "lung": (-896, 158),
    "heart": (407, 191),
    "vertebra": (260, 217),
    "muscle": (47, 22),
    "fat": (-103, 24),
}
"""Mean and standard deviation in two public CT scans: lung (mask), muscle and fat (soft tissue between 0 and 100 and
between -150 and -50 HU off the lungs) of the chest CT in elastix's tests; heart (above -20 HU) and vertebra T12 of the
arterial CT among TotalSegmentator's reference files."""


@pytest.fixture(scope="module")
def healthy() -> list[tuple[Grid, Canvas]]:
    painted = []
    for index in range(14):
        subject = draw_subject("anatomy", index, smallest_mm=18.0, count=0)
        grid = grid_over(subject.patient, SHAPE)
        painted.append((grid, paint_healthy(grid, subject)))
    return painted


def mean_place(grid: Grid, canvas: Canvas, *labels: int) -> np.ndarray:
    return np.argwhere(np.isin(canvas.labels, labels)).mean(0) * grid.spacing_mm


def test_every_patient_has_background_and_all_twenty_regions(healthy: list[tuple[Grid, Canvas]]) -> None:
    for _, canvas in healthy:
        assert np.unique(canvas.labels).tolist() == list(range(21))


def test_left_is_at_larger_x_and_the_heart_left_of_the_spine(healthy: list[tuple[Grid, Canvas]]) -> None:
    for grid, canvas in healthy:
        spine_x = mean_place(grid, canvas, SPINE)[2]
        assert mean_place(grid, canvas, *LEFT_LOBES)[2] > spine_x + 30
        assert mean_place(grid, canvas, *RIGHT_LOBES)[2] < spine_x - 30
        assert mean_place(grid, canvas, HEART)[2] > spine_x + 5
        assert mean_place(grid, canvas, LIVER)[2] < spine_x < mean_place(grid, canvas, SPLEEN)[2]


def test_head_is_at_larger_z_and_back_at_larger_y(healthy: list[tuple[Grid, Canvas]]) -> None:
    for grid, canvas in healthy:
        z = [mean_place(grid, canvas, lobe)[0] for lobe in range(6)]
        assert z[1] > z[2]
        assert z[1] > z[3]
        assert z[4] > z[5]
        assert mean_place(grid, canvas, LIVER)[0] < mean_place(grid, canvas, HEART)[0]
        assert mean_place(grid, canvas, SPINE)[1] > mean_place(grid, canvas, HEART)[1] + 40
        assert mean_place(grid, canvas, 2)[1] < mean_place(grid, canvas, 3)[1]


def test_tissues_have_their_intensity(healthy: list[tuple[Grid, Canvas]]) -> None:
    for _, canvas in healthy:
        for lobe in range(1, 6):
            assert -950 < np.median(canvas.hu[canvas.labels == lobe]) < -730
        assert -10 < np.median(canvas.hu[canvas.labels == LIVER]) < 130
        assert 20 < np.median(canvas.hu[canvas.labels == HEART]) < 260
        assert np.median(canvas.hu[canvas.labels == SPINE]) > 100
        assert canvas.hu[canvas.labels == 6].min() < -850
        assert np.median(canvas.hu[canvas.labels == 0]) < -900


def test_patients_differ_in_build_and_heart_size(healthy: list[tuple[Grid, Canvas]]) -> None:
    litres = [(canvas.labels == HEART).sum() * np.prod(grid.spacing_mm) / 1e6 for grid, canvas in healthy]
    trunks = [(canvas.labels == CHEST_WALL).sum() * np.prod(grid.spacing_mm) / 1e6 for grid, canvas in healthy]
    assert min(litres) > 0.2
    assert max(litres) < 0.75
    assert max(litres) / min(litres) > 1.3
    assert max(trunks) / min(trunks) > 1.3


def test_slabs_join_without_a_seam() -> None:
    subject = draw_subject("slabs", 1, smallest_mm=18.0, count=4)
    grid = grid_over(subject.patient, (24, 48, 48))
    whole = paint_scan(grid, subject)
    for start in (0, 9):
        rows = slice(start, start + 9)
        part = paint_scan(grid.crop((rows, slice(0, 48), slice(0, 48))), subject)
        np.testing.assert_allclose(part.hu, whole.hu[rows], atol=1.0)
        assert (part.labels != whole.labels[rows]).mean() < 1e-4


def painted_noisily(patient: Patient, index: int) -> tuple[Canvas, np.ndarray]:
    scout = Canvas(grid_over(patient, SCOUT_SHAPE))
    find_lungs(scout, patient)
    canvas = Canvas(SCANNED)
    paint_anatomy(canvas, patient, draw_tree(random_stream("like real", index), scout, 9))
    return canvas, canvas.hu + random_stream(index).normal(size=SCANNED.shape) * 18


def test_lungs_heart_bone_muscle_and_fat_measure_as_in_real_scans() -> None:
    measured: dict[str, list[np.ndarray]] = {name: [] for name in REAL_HU}
    for index in range(3):
        drawn = draw_patient(random_stream("like real", index), ("plain",))
        # as deep a breath as the patient of the real lung scan held
        patient = replace(drawn, lung_hu=-932.0, lung_gradient=0.25, hypostasis=0.05, vascularity=1.0)
        canvas, hu = painted_noisily(patient, index)
        lung = np.isin(canvas.labels, LUNGS)
        measured["lung"].append(hu[lung & (canvas.lobes > 0)])
        measured["muscle"].append(hu[~lung & (hu > 0) & (hu < 100)])
        measured["fat"].append(hu[~lung & (hu > -150) & (hu < -50)])
        # as dense blood, as large a heart and as old a spine as those of the other scan
        blood = Blood(left=509.0, right=509.0, upper_veins=509.0, lower_veins=60.0)
        heart = replace(patient.heart, half_mm=(66.0, 50.0, 52.0))
        other = replace(
            patient, phase="arterial", blood=blood, heart=heart, sponge_hu=115.0, cortex=1.0, visceral_fat=0.3
        )
        canvas, hu = painted_noisily(other, index)
        measured["heart"].append(hu[(canvas.labels == HEART) & (hu > -20)])
        measured["vertebra"].append(hu[(canvas.labels == SPINE) & beside_the_discs_and_the_canal(other, SCANNED)])
    for name, (mean, spread) in REAL_HU.items():
        found = np.concatenate(measured[name])
        assert found.mean() == pytest.approx(mean, abs=30), name
        assert spread / 2 < found.std() < spread * 2, name


def beside_the_discs_and_the_canal(patient: Patient, grid: Grid) -> np.ndarray:
    place = (grid.z - patient.rib_phase) / VERTEBRA_MM
    from_disc = np.abs(place - np.rint(place)) * VERTEBRA_MM
    canal = np.hypot(grid.x, grid.y - spine_y(patient, grid.z) - CANAL_BEHIND_MM)
    return (from_disc > 3) & (canal > 9)


@pytest.mark.parametrize("arms", ["up", "down"])
def test_arms_are_where_they_are_held(arms: Arms) -> None:
    patient = replace(draw_patient(random_stream("arms")), arms=arms)
    grid = Grid(origin_mm=(-150.0, -150.0, -250.0), spacing_mm=(10.0, 5.0, 5.0), shape=(30, 60, 100))
    canvas = Canvas(grid)
    paint_wall(canvas, patient)
    paint_cavity(canvas, patient)
    paint_bones(canvas, patient)
    beside = (np.abs(grid.x) > patient.body_half_width + 15) & (grid.z < 0)
    assert (canvas.labels[np.broadcast_to(beside, grid.shape)] > 0).any() == (arms == "down")
    bone = canvas.labels == BONES
    for side in (-1, 1):
        outer = bone & (side * grid.x > 140)
        heights = grid.z[np.nonzero(outer)[0], 0, 0]
        assert (heights.min() < 0) == (arms == "down")


def test_women_have_breasts_and_only_they() -> None:
    woman = replace(draw_patient(random_stream("breasts")), sex="female", age_years=35.0)
    canvases = []
    for patient in (woman, replace(woman, sex="male")):
        canvases.append(Canvas(GRID))
        paint_wall(canvases[-1], patient)
    more = (canvases[0].labels > 0) & (canvases[1].labels == 0)
    assert not ((canvases[0].labels == 0) & (canvases[1].labels > 0)).any()
    z, y, _ = np.nonzero(more)
    assert more.sum() * np.prod(GRID.spacing_mm) > 100_000  # mm3
    assert (GRID.y[0, y, 0] < -60).all()
    assert (np.abs(GRID.z[z, 0, 0]) < 75).all()


def test_blood_shows_the_phase() -> None:
    patient = draw_patient(random_stream("phase"))
    means = {}
    for name, blood in {
        "left": Blood(left=400.0, right=40.0, upper_veins=40.0, lower_veins=40.0),
        "right": Blood(left=40.0, right=400.0, upper_veins=40.0, lower_veins=40.0),
        "upper": Blood(left=40.0, right=40.0, upper_veins=400.0, lower_veins=40.0),
    }.items():
        canvas = Canvas(GRID)
        paint_cavity(canvas, patient)
        paint_heart(canvas, replace(patient, blood=blood), patient.heart, labelled=True)
        paint_vessels(canvas, replace(patient, blood=blood))
        means[name] = {label: canvas.hu[canvas.labels == label] for label in (HEART, AORTA, GREAT_VESSELS)}
    assert np.median(means["left"][AORTA]) > 300
    assert np.median(means["right"][AORTA]) < 60
    for name in ("left", "right"):
        assert 0.1 < (means[name][HEART] > 200).mean() < 0.7
    assert (means["upper"][HEART] > 200).mean() < 0.02
    assert (means["upper"][GREAT_VESSELS] > 200).mean() > 0.1


def test_coronary_arteries_run_in_the_fat_of_the_heart() -> None:
    patient = draw_patient(random_stream("coronaries"))
    heart = patient.heart
    paths = coronary_paths(heart)
    assert set(paths) == {"left main", "left anterior descending", "left circumflex", "right"}
    for points in paths.values():
        inside = np.array([HEART_AXES @ (np.array(p) - heart.centre_mm) / heart.half_mm for p in points])
        np.testing.assert_allclose(np.linalg.norm(inside, axis=1), CORONARY_SHARE, atol=1e-6)
    right, left = (np.mean(np.array(paths[name])[:, 2]) for name in ("right", "left circumflex"))
    assert right < heart.centre_mm[2] < left


def test_normal_nodes_are_small_and_there_are_some() -> None:
    for index in range(40):
        nodes = normal_nodes(draw_patient(random_stream("nodes", index)))
        assert len(nodes) >= 5
        assert 2 * nodes.start_radius_mm.max() < 8
        length = np.linalg.norm(nodes.end_mm - nodes.start_mm, axis=1) + 2 * nodes.start_radius_mm
        assert length.max() < 13


def test_there_are_twelve_ribs_on_each_side_and_seven_reach_the_sternum() -> None:
    for index in range(20):
        patient = draw_patient(random_stream("ribs", index))
        bones, cartilages = rib_lines(patient)
        assert len(bones) == 12
        assert (np.diff(bones[:, :, 0], axis=0) < 0).all()  # each below the one above
        assert (bones[:, -1, 0] < bones[:, 0, 0]).all()  # falling to the front
        assert (bones[:, 0, 1] > 25).all()  # at the spine
        assert (np.abs(cartilages[:7, -1, 2]) < 30).all()
        assert (bones[10:, -1, 1] > -60).all()  # the last two end in the flank


def test_cartilage_calcifies_with_its_share_only() -> None:
    patient = draw_patient(random_stream("cartilage"))
    dense = []
    for share in (0.0, 0.8):
        canvas = Canvas(FINE)
        aged = replace(patient, cartilage_calcium=share)
        paint_cavity(canvas, aged)
        paint_bones(canvas, aged)
        front = np.broadcast_to((FINE.y < -30) & (np.abs(FINE.x) > 30), FINE.shape) & (canvas.labels == BONES)
        dense.append(canvas.hu[front])
    assert len(dense[0]) == len(dense[1])
    assert (dense[1] - dense[0]).max() > 80
    assert 0 < (np.abs(dense[1] - dense[0]) > 40).mean() < 0.1


def test_a_prominent_fissure_is_denser_than_a_plain_one() -> None:
    patient = draw_patient(random_stream("fissure"))
    hu = []
    for prominent in (False, True):
        canvas = Canvas(FINE)
        paint_cavity(canvas, patient)
        before = canvas.hu.copy()
        paint_fissures(canvas, replace(patient, prominent_fissure=prominent))
        hu.append((canvas.hu - before)[canvas.lobes > 0])
    assert 60 < hu[0].max() < 330
    assert hu[1].max() > 400
    assert (hu[1] > 50).mean() < 0.06


def test_depths_far_from_the_cavity_are_far_and_near_it_are_distances() -> None:
    patient = draw_patient(random_stream("cavity"))
    canvas = Canvas(FINE)
    find_lungs(canvas, patient)
    level = FINE.voxel((-20, 8, 0))[:2]
    row = canvas.cavity_depth[level]
    edge = np.flatnonzero(row > 0)[[0, -1]]
    for voxel, inwards in ((edge[0], 1), (edge[1], -1)):
        steps = np.diff(row[voxel : voxel + 8 * inwards : inwards])
        np.testing.assert_allclose(steps, FINE.spacing_mm[2], rtol=0.05)
    assert canvas.cavity_depth.min() == canvas.mediastinum_depth.min() == -99
    assert set(np.unique(canvas.lobes)) == {0, 1, 2, 3, 4, 5}
    assert (canvas.cavity_depth[canvas.lobes > 0] > 0).all()
    assert (canvas.mediastinum_depth[canvas.lobes > 0] < 0).all()
