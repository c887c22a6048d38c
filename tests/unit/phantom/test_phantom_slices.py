"""Slices have the plan's format, and their masks lie on what the steps speak of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm3d_ct.phantom.cohort import write_cohort
from vlm3d_ct.phantom.findings.catalogue import KINDS
from vlm3d_ct.phantom.slices import APPEARANCES, CATEGORIES, FIRST_PATIENT

SLICES = 14


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("slices") / "demo"
    write_cohort(directory, patients=0, slices=SLICES, seed=4, workers=1)
    assert [path.name for path in directory.iterdir()] == ["omniabnorm"]
    return directory / "omniabnorm"


@pytest.fixture(scope="module")
def records(folder: Path) -> list[dict[str, object]]:
    loaded: list[dict[str, object]] = json.loads((folder / "cot" / "batch_0000.json").read_text())
    assert len(loaded) == SLICES
    return loaded


def test_records_have_the_plans_fields(records: list[dict[str, object]]) -> None:
    for number, record in enumerate(records, start=1):
        case_id = str(record["case_id"])
        assert case_id.startswith(f"{FIRST_PATIENT + number}_1_0_")
        assert record["image_path"] == f"images/{case_id}/0.jpg"
        assert record["mask_path"] == f"masks/{case_id}.jpg"
        assert record["region"] == "Chest"
        assert record["category"] in CATEGORIES.values()


def test_steps_are_objects_with_entities_or_plain_strings(records: list[dict[str, object]]) -> None:
    kinds = set()
    for record in records:
        steps = record["cot_reasoning"]
        assert isinstance(steps, list)
        assert len(steps) >= 3
        kinds.update(type(step) for step in steps)
        for step in steps:
            if isinstance(step, dict):
                assert step["text"]
                assert step["entities"]
    assert kinds == {str, dict}


def test_images_are_grey_rgb_jpegs_of_512_pixels(folder: Path, records: list[dict[str, object]]) -> None:
    missing = 0
    for record in records:
        paths = sorted((folder / str(record["image_path"])).parent.iterdir())
        assert {path.name for path in paths} <= {f"{offset}.jpg" for offset in range(-2, 3)}
        assert (folder / str(record["image_path"])).is_file()
        missing += 5 - len(paths)
        for path in paths:
            with Image.open(path) as picture:
                assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (512, 512))
                pixels = np.asarray(picture).astype(int)
            assert np.ptp(pixels, axis=2).max() <= 2
    assert 0 < missing < SLICES


def test_lesion_mask_is_a_part_of_the_body(folder: Path, records: list[dict[str, object]]) -> None:
    for record in records:
        with Image.open(folder / str(record["mask_path"])) as picture:
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "L", (512, 512))
            lesion = np.asarray(picture) >= 128
        assert 10 < lesion.sum() < 0.25 * lesion.size, record


def test_every_kind_of_finding_has_a_category_and_an_appearance() -> None:
    assert set(CATEGORIES) == set(APPEARANCES) == {kind.abnormality for kind in KINDS}
