"""A scan is the same however it is cut into slabs, and thick slices are the means of what they hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vlm3d_ct.phantom.acquisition import Acquisition, draw_acquisition
from vlm3d_ct.phantom.noise import HU_RANGE
from vlm3d_ct.phantom.scan import Subject, draw_subject, grid_over, paint_scan, render, slice_profile
from vlm3d_ct.phantom.table import paint_table
from vlm3d_ct.seeding import random_stream


@pytest.fixture(scope="module")
def subject() -> Subject:
    return draw_subject("scan", 3, smallest_mm=6.0, count=4)


def clean(subject: Subject, *, slices: int, slice_mm: float, thickness_mm: float) -> Acquisition:
    """Without noise, table and padding, in the middle of the chest."""
    drawn = draw_acquisition(random_stream("scan"), subject.patient, "full")
    return replace(
        drawn,
        shape=(slices, 64, 64),
        view_z_mm=slices * slice_mm,
        slice_thickness_mm=thickness_mm,
        kernel="standard",
        noise_hu=0.0,
        padding_hu=None,
        table=False,
    )


def test_slabs_join_without_a_seam(subject: Subject) -> None:
    acquisition = replace(clean(subject, slices=14, slice_mm=3.0, thickness_mm=4.0), noise_hu=10.0)
    whole, parts = render(acquisition, subject), render(acquisition, subject, slab_voxels=9 * 64 * 64)
    assert (np.abs(whole.voxels_hu.astype(int) - parts.voxels_hu) > 1).mean() < 1e-3
    assert (whole.labels != parts.labels).mean() < 1e-3
    assert (whole.lesions != parts.lesions).mean() < 1e-3
    assert whole.lesions.any()


def test_a_thick_slice_is_the_mean_of_its_planes_and_has_the_ids_of_most(subject: Subject) -> None:
    acquisition = clean(subject, slices=8, slice_mm=4.5, thickness_mm=4.5)
    assert acquisition.planes_per_slice == 3
    fine = replace(acquisition, shape=(24, 64, 64), slice_thickness_mm=1.5)
    assert fine.planes_per_slice == 1
    planes = paint_scan(fine.grid, subject)
    mean = np.clip(planes.hu.reshape(8, 3, 64, 64).mean(1), *HU_RANGE)
    scan = render(acquisition, subject)
    noise_floor = 6.0  # the scanner has a least noise of 1 HU
    assert np.abs(scan.voxels_hu - mean).max() < noise_floor
    for ids, painted in ((scan.labels, planes.labels), (scan.lesions, planes.lesions)):
        counts = np.stack([(painted.reshape(8, 3, 64, 64) == value).sum(1) for value in range(32)])
        decided = counts.max(0) >= 2
        assert decided.mean() > 0.98
        np.testing.assert_array_equal(ids[decided], counts.argmax(0)[decided])


def test_slice_profile_is_a_box_of_the_stated_thickness(subject: Subject) -> None:
    thin = clean(subject, slices=8, slice_mm=1.0, thickness_mm=1.0)
    np.testing.assert_allclose(slice_profile(thin), [1.0])
    np.testing.assert_allclose(slice_profile(replace(thin, slice_thickness_mm=1.5)), [1 / 6, 2 / 3, 1 / 6], rtol=1e-6)
    thick = clean(subject, slices=8, slice_mm=3.0, thickness_mm=3.0)
    np.testing.assert_allclose(slice_profile(thick), [1 / 3] * 3, rtol=1e-6)
    np.testing.assert_allclose(slice_profile(replace(thick, slice_thickness_mm=4.0)), [1 / 8, *[1 / 4] * 3, 1 / 8])


def test_the_table_is_behind_the_patient_and_touches_nothing_of_them(subject: Subject) -> None:
    grid = grid_over(subject.patient, (20, 160, 160))
    canvas = paint_scan(grid, subject)
    before, labels = canvas.hu.copy(), canvas.labels.copy()
    paint_table(canvas, subject.patient)
    changed = np.abs(canvas.hu - before) > 20
    assert changed.sum() > 1000
    assert (before[changed] < -900).all()
    assert (labels[changed] == 0).all()
    np.testing.assert_array_equal(canvas.labels, labels)
    assert np.broadcast_to(grid.y, changed.shape)[changed].min() > 0.6 * subject.patient.body_half_depth
    assert (paint_scan(grid, subject, table=True).lesions == canvas.lesions).all()


def test_findings_and_anatomy_are_the_same_whatever_the_acquisition() -> None:
    one, other = (draw_subject("any", 5, smallest_mm=18.0) for _ in range(2))
    assert one == other
    hard = draw_subject("any", 5, smallest_mm=18.0, hard=True)
    assert hard.patient.phase == "arterial"
    assert replace(hard.patient, phase=one.patient.phase, blood=one.patient.blood).cavity_half_width == (
        one.patient.cavity_half_width
    )
    phases = {draw_subject("phases", i, smallest_mm=18.0, count=0).patient.phase for i in range(12)}
    assert phases == {"plain", "venous"}
