"""Checkpoint files: whole or not at all, checked to the bit, and never executed."""

from __future__ import annotations

import hashlib
import io
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from vlm3d_ct.checkpoint import FORMAT_VERSION, load_checkpoint, point_to, save_checkpoint
from vlm3d_ct.errors import CheckpointError, ConfigError

CONTENT: dict[str, Any] = {
    "step": 7,
    "model": {"a.weight": torch.arange(300.0).view(20, 15), "b": torch.tensor([True, False])},
    "optimizer": {"state": {0: {"exp_avg": torch.linspace(-1, 1, 300)}}, "lr": 1e-4},
    "names": ["x", "y"],
    "score": None,
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "checkpoint.pth"
    save_checkpoint(path, CONTENT)
    return path


def assert_is_content(loaded: dict[str, Any]) -> None:
    assert torch.equal(loaded["model"]["a.weight"], CONTENT["model"]["a.weight"])
    assert torch.equal(loaded["optimizer"]["state"][0]["exp_avg"], CONTENT["optimizer"]["state"][0]["exp_avg"])
    assert {key: loaded[key] for key in ("step", "names", "score")} == {"step": 7, "names": ["x", "y"], "score": None}


def test_what_is_saved_is_loaded(saved: Path):
    loaded = load_checkpoint(saved)
    assert_is_content(loaded)
    assert loaded["format_version"] == FORMAT_VERSION
    assert loaded["versions"]["torch"] == str(torch.__version__)
    assert [path.name for path in saved.parent.iterdir()] == ["checkpoint.pth"]


def test_plain_torch_reads_it(saved: Path):
    assert_is_content(torch.load(saved, weights_only=True))


def test_no_flipped_bit_goes_unnoticed(saved: Path):
    whole = saved.read_bytes()
    flips = random.Random(0)
    positions = [flips.randrange(len(whole)) for _ in range(920)] + list(range(len(whole) - 80, len(whole)))
    silent = []
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << flips.randrange(8)
        saved.write_bytes(damaged)
        try:
            load_checkpoint(saved)
        except CheckpointError as error:
            if str(saved) in str(error):
                continue
        silent.append(position - len(whole))
    assert silent == []


def test_no_truncation_goes_unnoticed(saved: Path):
    whole = saved.read_bytes()
    cuts = random.Random(1)
    for length in [0, 1, 71, 73, len(whole) - 1, len(whole) - 71, *(cuts.randrange(len(whole)) for _ in range(194))]:
        saved.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"checkpoint\.pth: (carries no checksum|its SHA-256 differs)"):
            load_checkpoint(saved)


class Hostile:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def with_checksum(body: bytes) -> bytes:
    """A zip file's bytes with a comment as our own writer leaves it: whoever forges a file can do that, too."""
    assert body[-2:] == b"\0\0"
    comment = b"sha256=" + hashlib.sha256(body).hexdigest().encode()
    return body[:-2] + len(comment).to_bytes(2, "little") + comment


def test_a_hostile_pickle_is_refused_and_not_executed(tmp_path: Path):
    target, path = tmp_path / "executed", tmp_path / "hostile.pth"
    buffer = io.BytesIO()
    torch.save({"format_version": FORMAT_VERSION, "step": Hostile(target)}, buffer)
    for content in (buffer.getvalue(), with_checksum(buffer.getvalue())):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"hostile\.pth"):
            load_checkpoint(path)
    assert not target.exists()


def test_the_forged_checksum_of_that_test_is_a_good_one(tmp_path: Path):
    buffer = io.BytesIO()
    torch.save({"format_version": FORMAT_VERSION, "step": 3}, buffer)
    (tmp_path / "forged.pth").write_bytes(with_checksum(buffer.getvalue()))
    assert load_checkpoint(tmp_path / "forged.pth")["step"] == 3


@pytest.mark.parametrize(
    "content", [{"format_version": FORMAT_VERSION + 1}, {"format_version": 1}, {"step": 1}, [1, 2]]
)
def test_another_format_is_refused(content: Any, tmp_path: Path):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path = tmp_path / "other.pth"
    path.write_bytes(with_checksum(buffer.getvalue()))
    with pytest.raises(CheckpointError, match=f"this release reads {FORMAT_VERSION}"):
        load_checkpoint(path)


def test_a_disk_that_stores_something_else_is_noticed(saved: Path, monkeypatch: pytest.MonkeyPatch):
    before, write = saved.read_bytes(), os.write

    def flip(descriptor: int, data: memoryview) -> int:
        damaged = bytearray(data)
        damaged[len(damaged) // 2] ^= 1
        return write(descriptor, damaged)

    monkeypatch.setattr(os, "write", flip)
    with pytest.raises(ConfigError, match=r"checkpoint\.pth: the checkpoint of \d+ bytes reads back otherwise"):
        save_checkpoint(saved, {"step": 8})
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["checkpoint.pth"]


def test_the_size_that_is_told_is_that_of_the_file(saved: Path):
    assert save_checkpoint(saved, CONTENT) == saved.stat().st_size


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"absent\.pth: cannot be read: No such file or directory"):
        load_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="Is a directory"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_that_cannot_be_written_leaves_the_older_one_untouched(
    saved: Path, monkeypatch: pytest.MonkeyPatch
):
    before = saved.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match=r"cannot be written: No space left on device.*older checkpoints are"):
        save_checkpoint(saved, {"step": 8})
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["checkpoint.pth"]


def test_a_link_moves_in_one_piece_and_stays_true_when_the_folder_moves(saved: Path):
    link = saved.with_name("checkpoint_last.pth")
    point_to(link, saved)
    other = saved.with_name("other.pth")
    save_checkpoint(other, {"step": 8})
    point_to(link, other)
    moved = saved.parent.rename(saved.parent.with_name("moved"))
    assert load_checkpoint(moved / "checkpoint_last.pth")["step"] == 8
    assert sorted(path.name for path in moved.iterdir()) == ["checkpoint.pth", "checkpoint_last.pth", "other.pth"]
