"""Reading slices and lesion masks."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm3d_ct.errors import DataError
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.volumes.slices import read_lesion_masks, read_slices

RAMP = np.linspace(0, 255, 30 * 40).reshape(30, 40).astype(np.uint8)


def _save(path: Path, grey: np.ndarray) -> Path:
    Image.fromarray(grey).convert("RGB").save(path, quality=95)
    return path


def _code(path: Path, *more: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_slices([*more, path])
    (problem,) = caught.value.problems
    assert problem.file == str(path)
    assert problem.remedy
    return problem.code


def test_slices_are_grey_in_the_given_order_and_may_repeat(tmp_path: Path) -> None:
    first, second = _save(tmp_path / "0.jpg", RAMP), _save(tmp_path / "1.png", RAMP[::-1])
    stack = read_slices([first, first, second, second])
    assert stack.dtype == np.uint8
    np.testing.assert_array_equal(stack[0], stack[1])
    np.testing.assert_allclose(stack[1].astype(int), RAMP, atol=6)
    np.testing.assert_array_equal(stack[3], RAMP[::-1])


def test_a_lossy_lesion_mask_is_binarised_at_half(tmp_path: Path) -> None:
    lesion = np.zeros((30, 40), np.uint8)
    lesion[5:19, 7:22] = 255
    path = tmp_path / "m.jpg"
    Image.fromarray(lesion).save(path, quality=60)
    assert len(np.unique(np.asarray(Image.open(path)))) > 2
    np.testing.assert_array_equal(read_lesion_masks([path], RAMP[None]), lesion // 255)


def test_several_lesions_of_an_image_are_united(tmp_path: Path) -> None:
    lesions = [np.zeros((30, 40), np.uint8) for _ in range(3)]
    lesions[0][5:19, 7:22] = 255
    lesions[1][10:25, 15:30] = 200  # a mask that was saved too dark is still more than half white
    paths = [_save(tmp_path / f"{i}.png", lesion) for i, lesion in enumerate(lesions)]  # the last one shows none
    united = read_lesion_masks(paths, RAMP[None])
    np.testing.assert_array_equal(united, np.maximum(lesions[0], lesions[1]) >= 128)
    assert united.dtype == np.uint8
    assert not read_lesion_masks(paths[2:], RAMP[None]).any()


@pytest.mark.parametrize("classes", [1, 3, 127])
def test_a_mask_of_numbered_classes_is_refused_rather_than_read_as_empty(tmp_path: Path, classes: int) -> None:
    numbered = np.zeros((30, 40), np.uint8)
    numbered[3:9, 3:9] = classes
    with pytest.raises(DataError, match=f"0..{classes}: .*Write 255"):
        read_lesion_masks([_save(tmp_path / "m.png", numbered)], RAMP[None])


def test_all_bad_lesion_masks_are_reported_at_once(tmp_path: Path) -> None:
    paths = [_save(tmp_path / "size.jpg", RAMP[:, 1:]), tmp_path / "absent.jpg"]
    with pytest.raises(DataError, match="39x30") as caught:
        read_lesion_masks(paths, RAMP[None])
    assert [problem.code for problem in caught.value.problems] == ["mask-shape", "missing-file"]


def test_faulty_images_are_one_problem_each(tmp_path: Path) -> None:
    good = _save(tmp_path / "0.jpg", RAMP)
    assert _code(tmp_path / "absent.jpg") == "missing-file"
    assert _code(_save(tmp_path / "flat.png", np.zeros((30, 40), np.uint8))) == "constant"
    assert _code(_save(tmp_path / "size.jpg", RAMP[:, 1:]), good) == "slice-shape"
    (tmp_path / "text.jpg").write_text("no image")
    assert _code(tmp_path / "text.jpg") == "not-an-image"
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:-200])
    assert _code(tmp_path / "cut.jpg") == "damaged-image"
    Image.fromarray(RAMP).save(tmp_path / "other.tiff")
    assert _code(tmp_path / "other.tiff") == "not-an-image"


@pytest.mark.parametrize("side", [5000, 12_000, 40_000])
def test_image_bombs_are_refused_by_their_header(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    assert _code(tmp_path / "bomb.png") == "image-bomb"


def test_damaged_images_never_escape_as_other_errors(tmp_path: Path) -> None:
    random = random_stream(0, "image flips")
    for suffix in ("JPEG", "PNG"):
        buffer = io.BytesIO()
        Image.fromarray(RAMP).save(buffer, suffix)
        good = buffer.getvalue()
        for _ in range(150):
            content = bytearray(good)
            for position in random.integers(0, len(good), 3).tolist():
                content[position] = int(random.integers(256))
            (tmp_path / "x.jpg").write_bytes(content)
            try:
                read_slices([tmp_path / "x.jpg"])
            except DataError:
                continue


def test_more_than_8_bits_a_pixel_are_refused_instead_of_clipped_to_white(tmp_path: Path) -> None:
    deep = np.linspace(0, 4000, 30 * 40).reshape(30, 40).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert _code(tmp_path / "deep.png") == "image-depth"
