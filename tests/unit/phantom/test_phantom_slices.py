"""Slices have the plan's format, in three planes, and their masks lie on what the steps speak of."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlm3d_ct.phantom.acquisition import draw_acquisition
from vlm3d_ct.phantom.cohort import write_cohort
from vlm3d_ct.phantom.findings.catalogue import KINDS
from vlm3d_ct.phantom.patient import draw_patient
from vlm3d_ct.phantom.planes import (
    PLANES,
    Plane,
    as_pictures,
    enlarge,
    enlarge_mask,
    jpeg,
    positions,
    stack_grid,
    to_grey,
)
from vlm3d_ct.phantom.scan import paint_healthy
from vlm3d_ct.phantom.scene import Scene, draw_scene
from vlm3d_ct.phantom.slices import CATEGORIES, CATEGORIES_OF_FORMS, SIZES
from vlm3d_ct.seeding import random_stream

SLICES, SEED = 18, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("slices") / "demo"
    write_cohort(directory, patients=0, slices=SLICES, seed=SEED, workers=1)
    assert {path.name for path in directory.iterdir()} == {"omniabnorm", "phantom.json"}
    return directory / "omniabnorm"


@pytest.fixture(scope="module")
def records(folder: Path) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((folder / "cot" / "batch_0000.json").read_text())
    assert len(loaded) == SLICES
    return loaded


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(11, number, hard=False) for number in range(18)]


def test_records_have_the_plans_fields(records: list[dict[str, Any]]) -> None:
    for number, record in enumerate(records, start=1):
        case_id = record["case_id"]
        assert case_id.startswith(f"{SEED * 1_000_000 + 500_000 + number}_1_")
        suffix = Path(record["image_path"]).suffix
        assert suffix in (".jpg", ".jpeg")
        assert record["image_path"] == f"images/{case_id}/0{suffix}"
        assert record["mask_path"] == f"masks/{case_id}{suffix}"
        assert record["region"] == "Chest"
        assert record["category"] in {*CATEGORIES.values(), *CATEGORIES_OF_FORMS.values()}
    assert {Path(record["image_path"]).suffix for record in records} == {".jpg", ".jpeg"}
    assert {PLANES[int(record["case_id"].split("_")[2])] for record in records} == set(PLANES)


def test_steps_are_objects_with_entities_or_plain_strings_and_name_the_plane(records: list[dict[str, Any]]) -> None:
    kinds = set()
    for record in records:
        steps = record["cot_reasoning"]
        assert len(steps) >= 3
        kinds.update(type(step) for step in steps)
        for step in steps:
            if isinstance(step, dict):
                assert step["text"]
                assert step["entities"]
        texts = " ".join(step if isinstance(step, str) else step["text"] for step in steps).casefold()
        plane = PLANES[int(record["case_id"].split("_")[2])]
        assert plane in texts
        assert not any(other in texts for other in PLANES if other != plane)
    assert kinds == {str, dict}


def test_images_are_grey_rgb_jpegs_of_one_size_a_case(folder: Path, records: list[dict[str, Any]]) -> None:
    missing = 0
    for record in records:
        key = folder / record["image_path"]
        paths = sorted(key.parent.iterdir())
        assert {path.name for path in paths} <= {f"{offset}{key.suffix}" for offset in range(-2, 3)}
        assert key.is_file()
        missing += 5 - len(paths)
        sizes = set()
        for path in paths:
            with Image.open(path) as picture:
                assert (picture.format, picture.mode) == ("JPEG", "RGB")
                red, green, blue = (np.asarray(channel) for channel in picture.split())
                sizes.add(picture.size)
            assert max(np.abs(np.subtract(red, other, dtype=np.int16)).max() for other in (green, blue)) <= 2
        assert len(sizes) == 1
        assert sizes < {*SIZES}
    assert 0 < missing < SLICES


def test_lesion_mask_is_a_lossy_picture_of_a_part_of_the_body(folder: Path, records: list[dict[str, Any]]) -> None:
    between = 0
    for record in records:
        with Image.open(folder / record["image_path"]) as picture:
            size = picture.size
        with Image.open(folder / record["mask_path"]) as picture:
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "L", size)
            grey = np.asarray(picture)
        between += int(((grey > 8) & (grey < 247)).sum())
        assert 10 < (grey >= 128).sum() < 0.35 * grey.size, record
    assert between


def test_a_lesion_changes_the_slice_where_its_mask_is(scenes: list[Scene]) -> None:
    for scene in scenes[:9]:
        healthy = paint_healthy(scene.grid, scene.subject).hu
        change = np.abs(as_pictures(scene.plane, scene.canvas.hu - healthy)[2])
        # of a mosaic the bright lobules change, too, and are not the lesion
        factor = 1 if scene.finding.abnormality == "Mosaic attenuation pattern" else 2
        assert change[scene.lesion].mean() > factor * change[~scene.lesion].mean(), scene.finding


@pytest.mark.parametrize("plane", PLANES)
def test_pictures_are_seen_from_the_feet_from_the_front_or_from_the_left(plane: Plane) -> None:
    patient = draw_patient(random_stream("planes"))
    acquisition = draw_acquisition(random_stream("planes acquisition"), patient, "small")
    grid = stack_grid(plane, acquisition, 12.0, slices=5, slice_mm=4.0, pixels=60)
    along = positions(plane, grid)
    np.testing.assert_allclose(along, 12.0 + 4.0 * np.arange(-2, 3), atol=1e-4)
    z, y, x = (np.broadcast_to(axis, grid.shape) for axis in (grid.z, grid.y, grid.x))
    down, right = {"axial": (y, x), "coronal": (-z, x), "sagittal": (-z, y)}[plane]
    assert (np.diff(as_pictures(plane, down), axis=1) > 0).all()
    assert (np.diff(as_pictures(plane, right), axis=2) > 0).all()
    pictures = as_pictures(plane, z)
    assert max(pictures.shape[1:]) == 60
    pixel = [grid.spacing_mm[axis] for axis in range(3) if axis != PLANES.index(plane)]
    assert pixel[0] == pixel[1]


def test_enlarging_centres_and_keeps_the_form() -> None:
    grey = np.full((30, 60), 200, dtype=np.uint8)
    large = enlarge(grey, 512, 512)
    assert large.shape == (512, 512)
    assert (large[:120] == 0).all()
    assert (large[-120:] == 0).all()
    assert (large[140:370] == 200).all()
    mask = np.zeros((30, 60), dtype=bool)
    mask[10:20, 20:40] = True
    placed = enlarge_mask(mask, 512, 512)
    assert set(np.unique(placed)) == {0, 255}
    assert (placed == 255).mean() == pytest.approx(mask.mean() / 2, rel=0.05)
    assert placed[256, 256] == 255


def test_windows_map_to_grey_and_jpeg_is_lossy() -> None:
    hu = np.array([[-2000, -160, 40, 240, 3000]], dtype=np.float32)
    assert to_grey(hu, (40.0, 400.0)).tolist() == [[0, 0, 128, 255, 255]]
    noise = random_stream("jpeg").integers(0, 256, (64, 64)).astype(np.uint8)
    assert len(jpeg(noise, 55, colour=False)) < len(jpeg(noise, 90, colour=False))


def test_every_kind_of_finding_has_a_category() -> None:
    assert set(CATEGORIES) == {kind.abnormality for kind in KINDS}
    assert {abnormality for abnormality, _ in CATEGORIES_OF_FORMS} <= set(CATEGORIES)


def test_slices_of_all_planes_and_many_categories_occur(scenes: list[Scene]) -> None:
    planes = Counter(scene.plane for scene in scenes)
    assert planes["axial"] > planes["coronal"] + planes["sagittal"] > 0
    assert len({scene.finding.abnormality for scene in scenes}) >= 8
