"""Binary masks, one a structure: names, overlaps, grids, values."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from nifti_bytes import SHAPE, hu, write_plain

from vlm3d_ct.errors import DataError
from vlm3d_ct.text.regions import load_region_table, totalsegmentator_classes
from vlm3d_ct.volumes.nifti import read_volume
from vlm3d_ct.volumes.structures import read_structures
from vlm3d_ct.volumes.volume import Volume

LOOKUP = {"heart": 8, "mediastinum": 12, "lung upper lobe left": 4, "rib left 1": 16}


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return read_volume(write_plain(tmp_path / "volume.nii.gz", hu()))


def write_box(path: Path, *box: slice, value: int = 1) -> Path:
    mask = np.zeros(SHAPE, np.uint8)
    mask[box] = value
    return write_plain(path, mask)


def problems_of(paths: list[Path], volume: Volume) -> list[tuple[str, str]]:
    with pytest.raises(DataError) as caught:
        read_structures(paths, volume, LOOKUP)
    assert all(problem.remedy for problem in caught.value.problems)
    return [(problem.code, problem.file) for problem in caught.value.problems]


@pytest.mark.parametrize(
    "name", ["lung upper lobe left", "Lung_Upper_Lobe_Left", "left-upper-lobe lung", "LUNG  UPPER (lobe) left"]
)
def test_names_match_whatever_their_case_order_and_separators(tmp_path: Path, volume: Volume, name: str):
    mask = read_structures([write_box(tmp_path / f"{name}.nii.gz", slice(0, 2))], volume, LOOKUP)
    assert mask.present == (4,)
    assert mask.unknown == ()


def test_unknown_names_are_returned_and_their_files_not_even_read(tmp_path: Path, volume: Volume):
    known = write_box(tmp_path / "heart.nii.gz", slice(0, 1))
    for name in ("pleural effusion.nii.gz", "heart_lesion.nii.gz"):
        (tmp_path / name).write_bytes(b"no mask")
    mask = read_structures([*sorted(tmp_path.glob("*e*.nii.gz"))], volume, LOOKUP)
    assert mask.unknown == ("heart_lesion", "pleural effusion", "volume")
    assert mask.source == tmp_path
    np.testing.assert_array_equal(mask.labels, read_structures([known], volume, LOOKUP).labels)


def test_a_folder_in_which_no_name_is_known_is_refused(tmp_path: Path, volume: Volume):
    paths = [write_box(tmp_path / "mask_0.nii.gz"), write_box(tmp_path / "mask_1.nii.gz")]
    assert problems_of(paths, volume) == [("mask-structures", str(tmp_path))]
    assert problems_of([], volume) == [("mask-structures", ".")]


def test_the_part_has_the_voxels_that_its_whole_has_too(tmp_path: Path, volume: Volume):
    whole = write_box(tmp_path / "mediastinum.nii.gz", slice(1, 5), value=255)
    part = write_box(tmp_path / "heart.nii.gz", slice(2, 4), slice(1, 4))
    for paths in itertools.permutations([whole, part]):
        labels = read_structures(paths, volume, LOOKUP).labels
        assert (labels[2:4, 1:4] == 8).all()
        labels[2:4, 1:4] = 12
        assert (labels[1:5] == 12).all()
        assert not labels[0].any()


@settings(max_examples=40)
@given(masks=st.lists(arrays.arrays(np.bool_, (2, 3, 4)), min_size=3, max_size=3))
def test_overlaps_are_resolved_as_voxel_by_voxel(tmp_path_factory: pytest.TempPathFactory, masks: list[np.ndarray]):
    folder = tmp_path_factory.mktemp("structures")
    names = ("heart", "lung upper lobe left", "mediastinum")  # in the order of their sorted words
    paths = [write_plain(folder / f"{name}.nii.gz", m.astype(np.uint8)) for name, m in zip(names, masks, strict=True)]
    labels = read_structures(paths[::-1], None, LOOKUP).labels
    for voxel in np.ndindex(2, 3, 4):
        claims = [(mask.sum(), i) for i, mask in enumerate(masks) if mask[voxel]]
        assert labels[voxel] == (LOOKUP[names[min(claims)[1]]] if claims else 0)


def test_every_bad_file_is_reported_at_once(tmp_path: Path, volume: Volume):
    wrong_shape = write_plain(tmp_path / "heart.nii.gz", np.ones((5, 6, 8), np.uint8))
    wrong_grid = write_plain(tmp_path / "mediastinum.nii.gz", np.ones(SHAPE, np.uint8), srow_z=[0, 0, 3.0, -300.0])
    many = write_plain(tmp_path / "rib_left_1.nii.gz", np.arange(210, dtype=np.uint8).reshape(SHAPE) % 3)
    cut = tmp_path / "lung_upper_lobe_left.nii.gz"
    cut.write_bytes(many.read_bytes()[:-9])
    assert sorted(problems_of([wrong_shape, wrong_grid, many, cut], volume)) == sorted(
        [
            ("mask-shape", str(wrong_shape)),
            ("mask-grid", str(wrong_grid)),
            ("mask-binary", str(many)),
            ("truncated", str(cut)),
        ]
    )


@pytest.mark.parametrize("values", [(0, 1), (0, 255), (0,), (1,)])
def test_binary_masks_are_read_however_they_are_scaled(tmp_path: Path, volume: Volume, values: tuple[int, ...]):
    stored = np.resize(np.array(values, np.uint8), SHAPE)
    mask = read_structures([write_plain(tmp_path / "heart.nii.gz", stored)], volume, LOOKUP)
    np.testing.assert_array_equal(mask.labels, (stored > 0) * 8)


@settings(max_examples=60)
@given(stored=arrays.arrays(st.sampled_from([np.uint8, np.int16, np.float32]), SHAPE, fill=st.nothing()))
def test_any_values_are_a_mask_or_a_typed_error(tmp_path_factory: pytest.TempPathFactory, stored: np.ndarray):
    path = write_plain(tmp_path_factory.mktemp("fuzz") / "heart.nii.gz", stored)
    binary = set(np.unique(stored).tolist()) in ({0}, {1}, {0, 1}, {255}, {0, 255})
    try:
        labels = read_structures([path], None, LOOKUP).labels
    except DataError:
        assert not binary
    else:
        assert binary
        np.testing.assert_array_equal(labels, (stored != 0) * 8)


def test_files_of_totalsegmentator_make_the_mask_that_its_ids_make(tmp_path: Path, volume: Volume):
    table = load_region_table()
    for version in (1, 2):
        classes = totalsegmentator_classes(version)
        ids = np.zeros(SHAPE, np.uint8)
        ids.ravel()[: len(classes)] = np.arange(1, len(classes) + 1)
        folder = tmp_path / str(version)
        folder.mkdir()
        paths = [write_plain(folder / f"{n}.nii.gz", (ids == i).astype(np.uint8)) for i, n in enumerate(classes, 1)]
        lookup = table.totalsegmentator_lookup(version)
        mask = read_structures(paths, volume, table.structures)
        np.testing.assert_array_equal(mask.labels, lookup[ids])
        assert set(mask.unknown) == {name for i, name in enumerate(classes, 1) if lookup[i] == 0}
