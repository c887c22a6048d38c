"""Reading masks: on the volume's grid, with labels that exist."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nifti_bytes import ORIENTATIONS, hu, write_oriented, write_plain

from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.volumes.nifti import read_mask, read_volume

LABELS = random_stream(0, "labels").integers(0, 21, (5, 6, 7), dtype=np.uint8)


def _problem(path: Path, **arguments: object) -> Problem:
    with pytest.raises(DataError) as caught:
        read_mask(path, **arguments)  # type: ignore[arg-type]
    (problem,) = caught.value.problems
    assert problem.file == str(path)
    assert problem.remedy
    return problem


@pytest.mark.parametrize(("axes", "flips"), ORIENTATIONS[::5])
def test_a_mask_follows_its_own_header(tmp_path: Path, axes: tuple[int, ...], flips: tuple[bool, ...]) -> None:
    volume = read_volume(write_plain(tmp_path / "v.nii.gz", hu()))
    write_oriented(tmp_path / "m.nii.gz", LABELS, axes, flips)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.nii.gz", like=volume).labels, LABELS)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_labels_of_any_type_are_read(tmp_path: Path, dtype: str) -> None:
    path = write_plain(tmp_path / "m.nii.gz", LABELS.astype(dtype))
    np.testing.assert_array_equal(read_mask(path).labels, LABELS)


def test_another_shape_is_refused(tmp_path: Path) -> None:
    volume = read_volume(write_plain(tmp_path / "v.nii.gz", hu()))
    problem = _problem(write_plain(tmp_path / "m.nii.gz", LABELS[1:]), like=volume)
    assert (problem.code, problem.field) == ("mask-shape", "dim")
    assert "4x6x7 for 5x6x7" in problem.value


def test_another_spacing_is_refused(tmp_path: Path) -> None:
    volume = read_volume(write_plain(tmp_path / "v.nii.gz", hu()))
    path = write_plain(tmp_path / "m.nii.gz", LABELS, srow_z=[0, 0, 3.0, -300.0])
    assert (_problem(path, like=volume).code, _problem(path, like=volume).field) == ("mask-grid", "spacing")


def test_a_mask_that_lost_its_header_is_refused_rather_than_flipped(tmp_path: Path) -> None:
    volume = read_volume(write_plain(tmp_path / "v.nii.gz", hu()))
    path = write_plain(
        tmp_path / "m.nii.gz", LABELS, srow_x=[0.7, 0, 0, 0], srow_y=[0, 0.8, 0, 0], srow_z=[0, 0, 2.5, 0]
    )
    assert _problem(path, like=volume).code == "mask-grid"


def test_a_label_above_the_table_is_refused(tmp_path: Path) -> None:
    labels = LABELS.copy()
    labels[2, 3, 4] = 21
    path = write_plain(tmp_path / "m.nii.gz", labels)
    problem = _problem(path)
    assert (problem.code, problem.field, problem.value) == ("label-range", "voxels", "21 (1 voxels outside)")
    assert read_mask(path, max_label=117).labels[2, 3, 4] == 21


@pytest.mark.parametrize(("value", "code"), [(-1.0, "label-range"), (2.5, "label-fraction"), (np.nan, "not-finite")])
def test_labels_that_are_no_labels_are_refused(tmp_path: Path, value: float, code: str) -> None:
    labels = LABELS.astype(np.float32)
    labels[0, 0, 0] = value
    assert _problem(write_plain(tmp_path / "m.nii.gz", labels)).code == code
