"""No name in a file, no folder name and no link makes anything outside the data folder be opened (S2)."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from data_folders import slice_record, volume_record, write_ctrate, write_grey, write_omniabnorm

from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.data.load import load_case
from vlm3d_ct.errors import DataError

CANARY = "canary"
CLIMBS = (
    "..",
    "../..",
    "images/../..",
    "images/../../x/..",
    "./..",
    "images/./../..",
    "....//..",
    "..//",
    "a/b/../../..",
    "../data/..",
)
TARGETS = (f"{CANARY}", f"{CANARY}/0.jpg", f"{CANARY}/{CANARY}.nii.gz", f"{CANARY}/0")
SPELLINGS = {
    "plain": lambda name: name,
    "backslash": lambda name: name.replace("/", "\\"),
    "mixed": lambda name: name.replace("/", "\\", 1),
    "full width slash": lambda name: name.replace("/", "\uff0f"),
    "full width dots": lambda name: name.replace("..", "\uff0e\uff0e"),
    "two dot leader": lambda name: name.replace("..", "\u2025"),
    "percent": lambda name: name.replace("..", "%2e%2e"),
    "nul behind": lambda name: name + "\x00.jpg",
    "drive": lambda name: "C:" + name,
    "share": lambda name: "\\\\host\\" + name,
    "slash behind": lambda name: name + "/",
    "right to left": lambda name: "\u202e" + name,
    "white space": lambda name: f" {name} ",
}
OPENING = {"open", "os.listdir", "os.scandir", "glob.glob"}


def hostile_names(outside: Path) -> Iterator[str]:
    """More than 500 different names that try to reach ``outside / canary``."""
    for climb, target, spell in product(CLIMBS, TARGETS, SPELLINGS.values()):
        yield spell(f"{climb}/{target}")
    for target in TARGETS:
        yield from (f"{outside}/{target}", f"/{outside}/{target}", f"file://{outside}/{target}", f"link/{target}")
        yield from (f"images/link/{target}", f"~/{target}", f"$HOME/{target}", f"/proc/self/cwd/{target}")


class _Opened:
    """What this process opens while `active`, by an audit hook: it sees every open of Python, whoever asks for it."""

    def __init__(self) -> None:
        self.active = False
        self.paths: list[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.active and event in OPENING and arguments and isinstance(arguments[0], (str, bytes, Path)):
            name = arguments[0]
            self.paths.append(name.decode(errors="replace") if isinstance(name, bytes) else str(name))

    def outside(self, root: Path) -> list[str]:
        """Opened paths that end outside of a folder, links followed; the interpreter's own modules are none."""
        own = (str(Path(sys.prefix).resolve()), str(Path(sys.base_prefix).resolve()), str(Path(__file__).parents[3]))
        ends = [(name, str(Path(name).resolve())) for name in self.paths if "\x00" not in name]
        return [name for name, end in ends if not end.startswith((str(root.resolve()), *own))]


@pytest.fixture(scope="module")
def opened() -> _Opened:
    return _Opened()


def _read_all(root: Path, opened: _Opened) -> int:
    """Index a folder and read every case of it, with the hook watching; returns the number of problems."""
    opened.paths.clear()
    opened.active = True
    try:
        index = read_cases(root)
        for case in (*index.cases, *index.without_text, *index.no_chest):
            try:
                load_case(case)
            except DataError:
                continue
    finally:
        opened.active = False
    return len(index.problems)


def _write_canary(outside: Path) -> None:
    write_grey(outside / CANARY / "0.jpg", np.eye(8, dtype=np.uint8))
    (outside / CANARY / f"{CANARY}.nii.gz").write_bytes(b"canary")


def test_the_hook_sees_what_is_opened_outside(tmp_path: Path, opened: _Opened) -> None:
    _write_canary(tmp_path)
    (tmp_path / "data").mkdir()
    opened.paths.clear()
    opened.active = True
    (tmp_path / CANARY / "0.jpg").read_bytes()
    opened.active = False
    assert opened.outside(tmp_path / "data") == [str(tmp_path / CANARY / "0.jpg")]


def test_no_name_in_a_file_opens_anything_outside(tmp_path: Path, opened: _Opened) -> None:
    root = tmp_path / "data"
    _write_canary(tmp_path)
    write_ctrate(root, 2)
    write_omniabnorm(root, 2)
    (root / "images" / "link").symlink_to(tmp_path)
    names = list(hostile_names(tmp_path))
    assert len(set(names)) >= 500
    slices = [
        {**slice_record(f"{i}_1"), field: name} for i, name in enumerate(names) for field in ("image_path", "mask_path")
    ]
    slices += [{**slice_record("x"), "case_id": name} for name in names]
    published = {
        f"{i}_2": {"image": a, "mask": b, "context": [0], "abnormality": [{"id": c, "description": "x"}]}
        for i, name in enumerate(names)
        for a, b, c in ((name, "masks", 1), ("images/970_1_0_177", name, 1), ("images/970_1_0_177", "masks", name))
    }
    volumes = [{**volume_record("x"), "volumename": name} for name in names]
    (root / "cot" / "hostile.json").write_text(json.dumps([*slices, *volumes]))
    (root / "cot" / "published.json").write_text(json.dumps(published))
    with (root / "reports.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(name.replace("\x00", ""), "Findings.") for name in names]
        csv.writer(file).writerows([("VolumeName", "Findings_EN"), *rows])
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(name.replace("\x00", ""), "-1024", "1") for name in names]
        csv.writer(file).writerows([("VolumeName", "RescaleIntercept", "RescaleSlope"), *rows])
    (root / "no_chest_train.txt").write_text("\n".join(name.replace("\x00", "") for name in names))
    assert _read_all(root, opened) > len(names)
    assert opened.outside(root) == []


def test_no_mask_folder_and_no_link_opens_anything_outside(tmp_path: Path, opened: _Opened) -> None:
    root = tmp_path / "data"
    _write_canary(tmp_path)
    stems = write_ctrate(root, 3)
    target = tmp_path / CANARY / f"{CANARY}.nii.gz"
    for number, spell in enumerate(SPELLINGS.values()):
        for climb in CLIMBS:
            name = spell(f"seg_{climb}_{stems[0]}_{number}").replace("/", "\u2215").replace("\x00", "")
            (root / "masks" / name).mkdir(exist_ok=True)
            (root / "masks" / name / "heart.nii.gz").write_bytes(b"")
    (root / "masks" / f"seg_{stems[1]}").symlink_to(tmp_path / CANARY)
    (root / "masks" / f"seg_{stems[2]}").mkdir()
    links = ["volumes/train_90_a_1.nii.gz", "masks/train_90_a_1.nii.gz", f"masks/seg_{stems[2]}/heart.nii.gz"]
    links += ["cot/link.json", "reports.csv", "metadata.csv", "no_chest_train.txt", "volumes/loop.nii.gz"]
    for name in links:
        (root / name).symlink_to(root / name if "loop" in name else target)
    index = read_cases(root)
    refused = {problem.file for problem in index.problems if problem.code == "path-escapes"}
    assert refused == {str(root / name) for name in (*links, f"masks/seg_{stems[1]}")}
    _read_all(root, opened)
    assert opened.outside(root) == []
