"""Rough masks have the faults that they list, and no others."""

from __future__ import annotations

import numpy as np
import pytest

from vlm3d_ct.phantom.rough_masks import Change, roughen
from vlm3d_ct.seeding import random_stream

SPACING_MM = (5.0, 1.0, 1.0)


def exact() -> np.ndarray:
    """Blocks of six regions side by side, within background."""
    labels = np.zeros((6, 40, 70), dtype=np.uint8)
    for region in range(1, 7):
        labels[1:5, 8:32, 10 * region - 5 : 10 * region + 5] = region
    return labels


def drawn(*coordinates: int | str) -> tuple[np.ndarray, tuple[Change, ...]]:
    return roughen(exact(), SPACING_MM, random_stream("rough", *coordinates))


def one(kind: str) -> tuple[np.ndarray, Change]:
    """The first mask whose last change is of this kind; earlier ones may have changed other regions."""
    for trial in range(200):
        rough, changes = drawn("kind", trial)
        if changes[-1].kind == kind:
            return rough, changes[-1]
    raise AssertionError(kind)


def test_the_mask_given_is_left_alone_and_faults_vary_from_case_to_case() -> None:
    labels = exact()
    found = [roughen(labels, SPACING_MM, random_stream("vary", trial))[1] for trial in range(60)]
    np.testing.assert_array_equal(labels, exact())
    assert {change.kind for changes in found for change in changes} == {"dilated", "eroded", "missing", "merged"}
    assert all(2 <= len(changes) <= 6 for changes in found)
    assert len(set(found)) > 50


def test_only_listed_regions_and_their_neighbours_are_touched() -> None:
    for trial in range(40):
        rough, changes = drawn("touched", trial)
        assert changes
        labels = exact()
        lost = {int(region) for region in np.unique(labels[rough != labels])}
        gained = {int(region) for region in np.unique(rough[rough != labels])}
        listed = {change.region for change in changes}
        assert gained <= listed | {change.into for change in changes} | {0}
        neighbours = {region + step for region in listed for step in (-1, 0, 1)}
        assert lost <= neighbours | {0}


def test_a_missing_region_is_missing_and_a_merged_one_bears_its_neighbours_id() -> None:
    rough, change = one("missing")
    assert change.region not in rough
    rough, change = one("merged")
    assert change.region not in rough
    assert change.into in set(range(1, 7)) - {change.region}
    assert (rough[exact() == change.region] == change.into).mean() > 0.9


@pytest.mark.parametrize("kind", ["dilated", "eroded"])
def test_a_border_moves_by_the_voxels_that_are_listed_within_its_slices(kind: str) -> None:
    rough, change = one(kind)
    rows = np.flatnonzero((rough == change.region).any((0, 2)))
    slices = np.flatnonzero((rough == change.region).any((1, 2)))
    moved = change.voxels if kind == "dilated" else -change.voxels
    assert 1 <= change.voxels <= 4
    assert (rows[0], rows[-1]) == (8 - moved, 31 + moved)
    assert slices.tolist() == [1, 2, 3, 4]


def test_faults_are_a_function_of_the_stream() -> None:
    (one_mask, one_list), (other_mask, other_list) = drawn("same"), drawn("same")
    assert one_list == other_list
    np.testing.assert_array_equal(one_mask, other_mask)
