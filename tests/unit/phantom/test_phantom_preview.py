"""The picture of a cohort."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm3d_ct.cli.main import run as main
from vlm3d_ct.phantom.preview import shown_voxel


def test_a_preview_has_a_row_for_each_case(tmp_path: Path):
    sizes = []
    for patients in (1, 2):
        picture = tmp_path / f"{patients}.png"
        arguments = ["phantom", str(tmp_path / str(patients)), "--patients", str(patients), "--workers", "1"]
        assert main([*arguments, "--preview", str(picture)]) == 0
        with Image.open(picture) as opened:
            sizes.append(opened.size)
            assert np.ptp(np.asarray(opened.convert("L"))) > 200
    assert sizes[1] == (sizes[0][0], 2 * sizes[0][1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--preview", "picture.jpg"], "ends in .png"),
        (["--preview", "absent/picture.png"], "does not exist"),
        (["--preview", "picture.png", "--headers", "blank"], "true headers"),
    ],
)
def test_a_picture_that_cannot_be_is_refused_before_anything_is_written(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["phantom", "cohort", "--patients", "1", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "cohort").exists()


def test_the_section_goes_through_the_largest_lesion():
    lesions = np.zeros((5, 6, 7), dtype=np.uint8)
    assert shown_voxel(lesions) == (2, 3, 3)
    lesions[0, 0, 0] = 1
    lesions[3, 4, 4:7] = 2
    assert shown_voxel(lesions) == (3, 4, 5)
