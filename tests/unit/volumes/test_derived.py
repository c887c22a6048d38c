"""Derived regions: against the truth of phantoms, against distances by brute force, and where something is missing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from vlm3d_ct.phantom.acquisition import draw_acquisition
from vlm3d_ct.phantom.cohort import SMALLEST_LESION_MM
from vlm3d_ct.phantom.scan import draw_subject, render
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.volumes import derived
from vlm3d_ct.volumes.derived import CHEST_WALL, DERIVED, HEART, LUNGS, MEDIASTINUM, PERICARDIUM, PLEURA
from vlm3d_ct.volumes.derived import add_derived_regions as add
from vlm3d_ct.volumes.volume import RegionMask, Volume

NAMES = {
    "AIRWAYS": "trachea and bronchi",
    "PLEURA": "pleura",
    "HEART": "heart",
    "PERICARDIUM": "pericardium",
    "AORTA": "aorta",
    "GREAT_VESSELS": "great vessels",
    "MEDIASTINUM": "mediastinum and lymph nodes",
    "ESOPHAGUS": "esophagus and hiatus",
    "SPINE": "spine",
    "CHEST_WALL": "chest wall, breast and axilla",
}
SEED = 4017


@cache
def phantom(index: int) -> tuple[Volume, np.ndarray]:
    """A small phantom's scan and its true regions."""
    subject = draw_subject(SEED, index, smallest_mm=SMALLEST_LESION_MM["small"])
    acquisition = draw_acquisition(random_stream(SEED, index, "acquisition"), subject.patient, "small")
    scan = render(acquisition, subject)
    volume = Volume(voxels_hu=scan.voxels_hu, spacing_mm=acquisition.spacing_mm, source=Path("phantom"))
    return volume, scan.labels


def as_segmented(truth: np.ndarray, spacing_mm: tuple[float, float, float]) -> RegionMask:
    """The truth as TotalSegmentator would see it: no derived region, lobes that reach the chest wall."""
    labels = np.where(np.isin(truth, DERIVED), 0, truth).astype(np.uint8)
    nearest = ndimage.distance_transform_edt(~np.isin(labels, LUNGS), spacing_mm, False, True)
    labels = np.where(truth == PLEURA, labels[tuple(nearest)], labels)
    return RegionMask(labels=labels, source=Path("mask"))


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other)))


def block(*box: slice, label: int, shape: tuple[int, int, int] = (20, 30, 40)) -> np.ndarray:
    labels = np.zeros(shape, np.uint8)
    labels[box] = label
    return labels


def derive(labels: np.ndarray, spacing_mm: tuple[float, float, float] = (2.0, 2.0, 2.0), hu: int = 40) -> np.ndarray:
    volume = Volume(voxels_hu=np.full(labels.shape, hu, np.int16), spacing_mm=spacing_mm, source=Path("volume"))
    return add(RegionMask(labels=labels, source=Path("mask")), volume).labels


def test_the_ids_are_those_of_the_region_table():
    table = load_region_table()
    assert {name: table.names[getattr(derived, name) - 1] for name in NAMES} == NAMES
    sides = {side: tuple(r.id for r in table.regions if r.lobe and r.side == side) for side in ("right", "left")}
    assert sides == {"right": derived.RIGHT_LUNG, "left": derived.LEFT_LUNG}
    assert [table.names[i - 1] for i in derived.ABDOMEN] == ["liver and gallbladder", "spleen", "other upper abdomen"]
    assert set(DERIVED) == {region.id for region in table.regions if region.derived}


def measured(count: int) -> Iterator[dict[int, float]]:
    for index in range(1, count + 1):
        volume, truth = phantom(index)
        labels = add(as_segmented(truth, volume.spacing_mm), volume).labels
        yield {region: dice(labels == region, truth == region) for region in DERIVED}


def check_against_truth(count: int) -> None:
    scores = list(measured(count))
    least = {PLEURA: 0.75, PERICARDIUM: 0.7, MEDIASTINUM: 0.78, CHEST_WALL: 0.9}
    mean = {region: float(np.mean([score[region] for score in scores])) for region in DERIVED}
    assert all(mean[region] > least[region] for region in DERIVED), mean


def test_derived_regions_are_those_of_the_phantom():
    check_against_truth(3)


@pytest.mark.long
def test_derived_regions_are_those_of_many_phantoms():
    check_against_truth(24)


def test_what_was_labelled_stays_but_for_the_rim_of_the_lungs():
    volume, truth = phantom(1)
    before = as_segmented(truth, volume.spacing_mm)
    after = add(before, volume).labels
    changed = after != before.labels
    assert set(np.unique(before.labels[changed])) <= {0, *LUNGS}
    assert set(np.unique(after[changed & (before.labels > 0)])) <= {PLEURA, PERICARDIUM}
    assert set(np.unique(after[changed])) == set(DERIVED)


def test_findings_do_not_move_a_region():
    """Regions come from labels and the body's outline: fluid, masses and free air in the chest change nothing."""
    volume, truth = phantom(2)
    mask = as_segmented(truth, volume.spacing_mm)
    regions = add(mask, volume).labels
    inside = np.isin(regions, (*LUNGS, PLEURA, HEART, PERICARDIUM, MEDIASTINUM))
    for hu in (15, 300, -950):
        sick = Volume(
            voxels_hu=np.where(inside, np.int16(hu), volume.voxels_hu), spacing_mm=volume.spacing_mm, source=Path("v")
        )
        np.testing.assert_array_equal(add(mask, sick).labels, regions)


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0, 2.0), (2.5, 2.2, 2.2)])
def test_the_pericardium_is_a_shell_of_known_width(spacing_mm: tuple[float, float, float]):
    labels = block(slice(8, 12), slice(12, 18), slice(15, 25), label=HEART)
    expected = np.zeros(labels.shape, bool)
    heart = np.argwhere(labels == HEART) * spacing_mm
    for voxel in np.argwhere(labels == 0):
        centre_to_centre = np.sqrt(((heart - voxel * spacing_mm) ** 2).sum(1).min())
        expected[tuple(voxel)] = centre_to_centre <= derived.PERICARDIUM_MM + np.mean(spacing_mm) / 2
    np.testing.assert_array_equal(derive(labels, spacing_mm) == PERICARDIUM, expected)


def test_the_pleura_lines_the_chest_and_not_the_mediastinum():
    labels = block(slice(4, 16), slice(5, 25), slice(2, 14), label=1)
    labels |= block(slice(4, 16), slice(5, 25), slice(26, 38), label=4)
    found = derive(labels)
    middle = found[10, 15]
    assert (middle[2:4] == PLEURA).all()
    assert (middle[4:14] == 1).all()
    assert (middle[14:26] == MEDIASTINUM).all()
    assert (middle[26:36] == 4).all()
    assert (middle[36:38] == PLEURA).all()
    assert (found[10, 2] == CHEST_WALL).all()
    assert not (found[:4, 5:25, 14:26] == MEDIASTINUM).any()


def test_the_mediastinum_ends_where_the_abdomen_begins():
    labels = block(slice(10, 18), slice(5, 25), slice(2, 14), label=3)
    labels |= block(slice(10, 18), slice(5, 25), slice(26, 38), label=5)
    labels[4:18, 20:25, 2:14], labels[4:18, 20:25, 26:38] = 3, 5  # the bases reach down behind the liver
    labels[2:8, 5:19, 2:14] = 18
    found = derive(labels)
    assert (found[10:18, 5:15, 14:26] == MEDIASTINUM).all()
    assert not (found[:10, 5:15, 14:26] == MEDIASTINUM).any()


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ((), set()),
        ((HEART,), {PERICARDIUM}),
        (LUNGS, {PLEURA, MEDIASTINUM, CHEST_WALL}),
        (derived.RIGHT_LUNG, {PLEURA, CHEST_WALL}),
        ((4, HEART), {PLEURA, PERICARDIUM, CHEST_WALL}),
        ((15, 16, 18), set()),
    ],
)
def test_what_cannot_be_derived_is_absent(kept: tuple[int, ...], expected: set[int]):
    volume, truth = phantom(1)
    labels = as_segmented(truth, volume.spacing_mm).labels
    labels[~np.isin(labels, kept)] = 0
    mask = add(RegionMask(labels=labels, source=Path("m")), volume)
    assert set(mask.present) - set(kept) == expected


def test_any_part_of_a_scan_has_what_it_shows():
    """Fields of view of all sizes, down to two voxels: no crash, and no region beyond the whole scan's."""
    volume, truth = phantom(3)
    labels, random = as_segmented(truth, volume.spacing_mm).labels, random_stream(0, "crops")
    for _ in range(60):
        starts = [int(random.integers(0, size - 2)) for size in labels.shape]
        box = tuple(slice(s, s + int(random.integers(2, size - s + 1))) for s, size in zip(starts, labels.shape))  # noqa: B905
        spacing_mm = tuple(mm * float(random.choice([0.05, 0.3, 1.0])) for mm in volume.spacing_mm)
        part = Volume(voxels_hu=volume.voxels_hu[box].copy(), spacing_mm=spacing_mm, source=Path("v"))  # type: ignore[arg-type]
        before = RegionMask(labels=labels[box].copy(), source=Path("m"))
        after = add(before, part)
        assert after.labels.shape == part.voxels_hu.shape
        assert set(after.present) <= {*before.present, *DERIVED}


def test_a_region_that_the_source_labels_is_left_as_it_is():
    labels = block(slice(4, 16), slice(5, 25), slice(2, 14), label=1)
    labels |= block(slice(4, 16), slice(5, 25), slice(26, 38), label=4)
    for region, box in ((MEDIASTINUM, (9, 9, 20)), (PLEURA, (9, 4, 5))):
        given = labels.copy()
        given[box] = region
        assert np.argwhere(derive(given) == region).tolist() == [list(box)]
    given = labels.copy()
    given[9, 27, 20] = CHEST_WALL  # of which segmentations label a part only
    assert (derive(given) == CHEST_WALL).sum() == (derive(labels) == CHEST_WALL).sum()


def test_a_fine_grid_gives_the_regions_of_a_coarse_one():
    volume, truth = phantom(1)
    mask = as_segmented(truth, volume.spacing_mm)
    coarse = add(mask, volume).labels
    z, y, x = volume.spacing_mm
    fine = Volume(
        voxels_hu=volume.voxels_hu.repeat(5, 0).repeat(3, 2), spacing_mm=(z / 5, y, x / 3), source=Path("fine")
    )
    labels = add(RegionMask(labels=mask.labels.repeat(5, 0).repeat(3, 2), source=Path("fine")), fine).labels
    for region in (MEDIASTINUM, CHEST_WALL):
        assert dice(labels[2::5, :, 1::3] == region, coarse == region) > 0.9
