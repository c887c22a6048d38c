"""The audit: every seeded fault is found in one pass, and nothing else is."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_folders import (
    SHAPE,
    SPACING_MM,
    chest,
    slice_record,
    volume_record,
    write_ctrate,
    write_grey,
    write_omniabnorm,
    write_records,
    write_volume,
)

from vlm3d_ct.audit.verify import verify_directory
from vlm3d_ct.volumes.nifti import write_nifti


def _patch_header(path: Path, offset: int, values: object, dtype: str) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    data = np.atleast_1d(np.asarray(values, dtype)).tobytes()
    content[offset : offset + len(data)] = data
    path.write_bytes(gzip.compress(bytes(content)))


def _labels(change: Callable[[np.ndarray], None], dtype: str = "uint8") -> Callable[[Path, Path], None]:
    def write(volume: Path, mask: Path) -> None:
        labels = np.zeros(SHAPE, dtype)
        change(labels)
        write_nifti(mask, labels, SPACING_MM, dtype)

    return write


def _voxels(change: Callable[[np.ndarray], None]) -> Callable[[Path, Path], None]:
    def write(volume: Path, mask: Path) -> None:
        voxels = chest().astype(np.float32)
        change(voxels)
        content = bytearray(gzip.decompress(volume.read_bytes())[:352])
        content[70:74] = np.array([16, 32], "<i2").tobytes()
        volume.write_bytes(gzip.compress(bytes(content) + voxels.tobytes()))

    return write


FAULTS: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "missing mask link": (lambda v, m: (m.unlink(), m.symlink_to("nowhere")), "missing-file"),
    "truncated": (lambda v, m: v.write_bytes(v.read_bytes()[:-40]), "truncated"),
    "cut header": (lambda v, m: v.write_bytes(v.read_bytes()[:30]), "truncated"),
    "empty file": (lambda v, m: v.write_bytes(b""), "not-gzip"),
    "an error page": (lambda v, m: v.write_bytes(b"<html>403</html>"), "not-gzip"),
    "trailing bytes": (lambda v, m: v.write_bytes(v.read_bytes() + b"x"), "trailing-bytes"),
    "bad checksum": (lambda v, m: v.write_bytes(v.read_bytes()[:-8] + bytes(4) + v.read_bytes()[-4:]), "damaged-gzip"),
    "damaged mask": (lambda v, m: m.write_bytes(m.read_bytes()[:-8] + bytes(4) + m.read_bytes()[-4:]), "damaged-gzip"),
    "no nifti": (lambda v, m: v.write_bytes(gzip.compress(bytes(1000))), "not-nifti"),
    "four axes": (lambda v, m: _patch_header(v, 40, [4, 8, 10, 3, 2], "<i2"), "not-3d"),
    "wrong length": (lambda v, m: _patch_header(v, 42, [8, 10, 5], "<i2"), "length"),
    "huge": (lambda v, m: _patch_header(v, 42, [30000, 30000, 30000], "<i2"), "gzip-bomb"),
    "complex": (lambda v, m: _patch_header(v, 70, [32, 64], "<i2"), "voxel-type"),
    "nan spacing": (lambda v, m: _patch_header(v, 80, np.nan, "<f4"), "spacing"),
    "zero spacing": (lambda v, m: _patch_header(v, 88, 0, "<f4"), "spacing"),
    "giant spacing": (lambda v, m: _patch_header(v, 280 + 8, 700, "<f4"), "spacing"),
    "nan affine": (lambda v, m: _patch_header(v, 280, np.nan, "<f4"), "affine"),
    "no orientation": (lambda v, m: _patch_header(v, 252, [0, 0], "<i2"), "no-orientation"),
    "nan voxel": (_voxels(lambda a: a.__setitem__((0, 0, 0), np.nan)), "not-finite"),
    "infinite voxel": (_voxels(lambda a: a.__setitem__((5, 9, 7), np.inf)), "not-finite"),
    "constant": (_voxels(lambda a: a.fill(-1000)), "constant"),
    "zeros": (_voxels(lambda a: a.fill(0)), "constant"),
    "stored values": (_voxels(lambda a: np.add(a, 1024, out=a)), "not-hu"),
    "rescaled twice": (_voxels(lambda a: np.subtract(a, 8192, out=a)), "not-hu"),
    "mask of another shape": (lambda v, m: write_nifti(m, np.zeros((6, 10, 7)), SPACING_MM, "uint8"), "mask-shape"),
    "mask of another spacing": (lambda v, m: write_nifti(m, np.zeros(SHAPE), (3.0, 1.0, 1.0), "uint8"), "mask-grid"),
    "flipped mask": (lambda v, m: _patch_header(m, 280, [0.8, 0, 0, 0], "<f4"), "mask-grid"),
    "label 21": (_labels(lambda a: a.__setitem__((1, 1, 1), 21)), "label-range"),
    "label 255": (_labels(lambda a: a.__setitem__((1, 1, 1), 255)), "label-range"),
    "label -1": (_labels(lambda a: a.__setitem__((1, 1, 1), -1), "int16"), "label-range"),
    "label 1.5": (_labels(lambda a: a.__setitem__((1, 1, 1), 1.5), "float32"), "label-fraction"),
}


def test_every_seeded_fault_is_found_and_nothing_else(tmp_path: Path) -> None:
    stems = write_ctrate(tmp_path, len(FAULTS) + 5)
    expected = []
    for stem, (damage, code) in zip(stems, FAULTS.values(), strict=False):
        damage(tmp_path / "volumes" / f"{stem}.nii.gz", tmp_path / "masks" / f"{stem}.nii.gz")
        expected.append((code, stem))
    write_volume(tmp_path, "train_999_a_1")
    expected.append(("volume-without-text", "train_999_a_1"))
    write_records(tmp_path, [volume_record("train_998_a_1"), {"volumename": stems[-1]}], "more.json")
    (tmp_path / "cot" / "broken.json").write_text('[{"volumename": ')
    expected += [("text-without-volume", "more"), ("record-fields", "more"), ("json", "broken")]
    report = verify_directory(tmp_path, workers=0)
    found = [(problem.code, Path(problem.file).name.split(".")[0]) for problem in report.problems]
    assert sorted(found) == sorted(expected)
    assert (report.num_cases, report.num_usable) == (len(stems), 5)
    for problem in report.problems:
        assert all(problem.as_dict().values())


def test_good_folders_raise_no_alarm(tmp_path: Path) -> None:
    write_ctrate(tmp_path / "ct_rate", 3)
    write_omniabnorm(tmp_path / "omniabnorm", 3)
    report = verify_directory(tmp_path, workers=2)
    assert (report.num_cases, report.num_usable, report.problems) == (6, 6, ())
    assert list(report.render()) == [*report.description.splitlines(), "6 cases, 6 usable, 0 problems"]


def test_faulty_slices_are_found(tmp_path: Path) -> None:
    first, second, third, _ = write_omniabnorm(tmp_path, 4)
    (tmp_path / "images" / first / "0.jpg").write_bytes(b"no image")
    write_grey(tmp_path / "masks" / f"{second}.jpg", np.zeros((8, 8), np.uint8))
    write_grey(tmp_path / "images" / third / "1.jpg", np.eye(9, dtype=np.uint8))
    assert verify_directory(tmp_path, workers=0).counts == {"mask-shape": 1, "not-an-image": 1, "slice-shape": 1}


def test_the_report_counts_by_code_and_shortens_for_people_only(tmp_path: Path) -> None:
    write_records(tmp_path, [volume_record(f"train_{n}_a_1") for n in range(1, 31)])
    report = verify_directory(tmp_path, workers=0)
    content = json.loads(json.dumps(report.as_dict()))
    assert content["counts"] == {"text-without-volume": 30}
    assert len(content["problems"]) == 30
    assert set(content["problems"][0]) == {"code", "file", "field", "value", "message", "remedy"}
    lines = list(report.render())
    assert len([line for line in lines if "[" in line]) == 20
    assert lines[-1] == "  ... and 10 more; --json lists all of them"


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_without_anything_is_one_problem(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    report = verify_directory(tmp_path / name, workers=0)
    assert report.num_cases == 0
    assert len(report.problems) == 1


def test_a_slice_record_without_image_is_a_problem_of_the_record(tmp_path: Path) -> None:
    write_records(tmp_path, [slice_record("973_1_0_177")])
    assert verify_directory(tmp_path, workers=0).counts == {"missing-slice": 1}
