from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from vlm3d_ct.pages.pictures import heat_picture, region_colours, sections, sections_picture, thumbnail

WINDOW = (40.0, 400.0)
SPACING_MM = (5.0, 2.0, 2.0)


def a_scan() -> tuple[np.ndarray, np.ndarray]:
    """Noise in HU, and a box of region 8 in it."""
    labels = np.zeros((16, 24, 20), dtype=np.uint8)
    labels[4:9, 3:12, 5:15] = 8
    return np.random.default_rng(0).integers(-900, 300, labels.shape).astype(np.int16), labels


def decode(uri: str) -> np.ndarray:
    head, data = uri.split(",", 1)
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
        return np.asarray(picture.convert("RGB"))


def test_sections_stand_as_a_radiologist_looks_at_them():
    voxels = np.zeros((10, 12, 14), dtype=np.int16)
    labels = np.zeros(voxels.shape, dtype=np.uint8)
    labels[7, 2, 3] = 4  # high up, in front, on the patient's right
    axial, coronal, sagittal = sections(voxels, labels, (5.0, 2.0, 1.0))
    assert np.argwhere(axial.labels).tolist() == [[2, 3]]  # rows from the front, columns from the patient's right
    assert np.argwhere(coronal.labels).tolist() == [[2, 3]]  # rows from the head: 9 - 7
    assert np.argwhere(sagittal.labels).tolist() == [[2, 2]]
    assert (axial.size_mm, coronal.size_mm, sagittal.size_mm) == ((24.0, 14.0), (50.0, 14.0), (50.0, 24.0))


def test_without_labels_the_middle_sections_are_taken():
    voxels = np.arange(10 * 12 * 14, dtype=np.int16).reshape(10, 12, 14)
    axial, coronal, sagittal = sections(voxels, None, (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(axial.voxels_hu, voxels[5])
    np.testing.assert_array_equal(coronal.voxels_hu, voxels[::-1, 6])
    np.testing.assert_array_equal(sagittal.voxels_hu, voxels[::-1, :, 7])


def test_a_slice_with_neighbours_is_shown_axially_only():
    grey = np.zeros((4, 32, 32), dtype=np.uint8)
    assert [section.title for section in sections(grey, None, (1.0, 1.0, 1.0))] == ["axial"]
    assert decode(thumbnail(grey, None, (1.0, 1.0, 1.0), window_hu=WINDOW)).size


def test_the_window_maps_its_ends_to_black_and_white():
    voxels = np.full((16, 40, 40), -160, dtype=np.int16)
    voxels[:, :, 20:] = 240
    for column, expected in ((0.12, 0), (0.38, 255)):
        picture = decode(thumbnail(voxels, None, (2.0, 1.0, 1.0), window_hu=WINDOW))
        middle = picture[picture.shape[0] // 3, int(picture.shape[1] * column)]
        assert middle.tolist() == [expected] * 3


def test_the_overlay_is_coloured_and_only_with_labels():
    voxels_hu, drawn = a_scan()
    arguments = {"window_hu": WINDOW, "region_names": ["name"] * 20}

    def is_coloured(labels: np.ndarray | None) -> bool:
        picture = decode(sections_picture(voxels_hu, labels, SPACING_MM, **arguments)).astype(int)
        return bool((picture.max(axis=2) - picture.min(axis=2) > 60).any())

    assert is_coloured(drawn)
    assert not is_coloured(None)
    assert not is_coloured(np.zeros_like(drawn))


def test_regions_have_colours_of_their_own():
    colours = region_colours()
    assert colours[0, 3] == 0
    distance = np.linalg.norm(colours[1:21, None, :3] - colours[None, 1:21, :3], axis=2)
    assert distance[~np.eye(20, dtype=bool)].min() > 0.15


@pytest.mark.parametrize("label", [20, 21, 255])
def test_a_label_beyond_the_names_is_drawn_too(label: int):
    voxels_hu, drawn = a_scan()
    labels = (drawn > 0) * np.uint8(label)
    uri = sections_picture(voxels_hu, labels, SPACING_MM, window_hu=WINDOW, region_names=["a"] * 20)
    assert decode(uri).size


def _heat(heat: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    voxels = np.full(heat.shape, -1000, dtype=np.int16)
    return decode(heat_picture(voxels, heat.astype(np.float32), lesion, (4.0, 2.0, 2.0), window_hu=WINDOW)).astype(int)


def _yellow(picture: np.ndarray) -> np.ndarray:
    return (picture[..., 0] > 120) & (picture[..., 2] < picture[..., 0] - 20)


def test_heat_is_drawn_where_it_is_and_on_the_right_only():
    lesion = np.zeros((8, 16, 16), dtype=bool)
    lesion[2:4, 4:8, 4:8] = True
    hot, cold = _heat(lesion, lesion), _heat(np.zeros(lesion.shape), lesion)
    half = hot.shape[1] // 2
    assert not _yellow(hot[:, :half]).any()
    assert _yellow(hot[:, half:]).sum() > 100
    assert not _yellow(cold).any()
    everywhere = _yellow(_heat(np.ones(lesion.shape), lesion)).sum()
    assert everywhere > 5 * _yellow(hot).sum()


@pytest.mark.parametrize("shape", [(1, 16, 16), (8, 16, 16)])
def test_a_lesion_at_the_border_and_one_that_is_nowhere_are_drawn(shape: tuple[int, int, int]):
    lesion = np.zeros(shape, dtype=bool)
    assert _heat(np.full(shape, np.nan), lesion).size
    lesion[0, 0, :] = True
    outlined = _heat(np.zeros(shape), lesion)
    assert (outlined[..., 2] - outlined[..., 0] > 60).any()
