"""Saving in the background: exact, one at a time, on time, and loud when the disk refuses."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from tiny import tiny_config
from vlm3d_ct.checkpoint import load_checkpoint
from vlm3d_ct.config import Config
from vlm3d_ct.data.dataset import CaseDataset
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.models import VisionLanguageModel
from vlm3d_ct.training.keeper import Keeper, newest_checkpoint
from vlm3d_ct.training.optimizer import build_optimizer, full_state_dict
from vlm3d_ct.training.run import train
from vlm3d_ct.training.saver import Saver
from vlm3d_ct.training.snapshot import Snapshot
from vlm3d_ct.training.trainer import Stopping, Validate

CALLS = ("open", "write", "fsync", "replace", "symlink", "unlink")
"""Whatever may fail while a checkpoint is saved."""


def content(value: float) -> dict[str, Any]:
    return {"step": int(value), "model": {"a": torch.full((70,), value)}, "list": [torch.tensor(value), "text"]}


def saver_of(folder: Path, every_minutes: float = 0.0) -> Saver:
    return Saver(Keeper(folder, keep_best=1, keep_last=1), every_minutes)


class HeldDisk:
    """An `os.fsync` that waits until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.reached, self.go = threading.Event(), threading.Event()
        fsync = os.fsync

        def held(descriptor: int) -> None:
            self.reached.set()
            assert self.go.wait(60)
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", held)


def test_the_state_is_saved_as_it_was_when_the_save_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    disk, saver, state = HeldDisk(monkeypatch), saver_of(tmp_path), content(1.0)
    saver.save(state, 1, None)
    assert disk.reached.wait(60)  # the training goes on, nothing is on the disk yet
    assert newest_checkpoint(tmp_path) is None
    state["model"]["a"].fill_(2.0)
    state["list"][0].fill_(2.0)
    disk.go.set()
    saver.settle()
    saved = load_checkpoint(tmp_path / "checkpoint_last.pth")
    assert torch.equal(saved["model"]["a"], torch.full((70,), 1.0))
    assert (float(saved["list"][0]), saved["list"][1]) == (1.0, "text")


def test_a_second_save_waits_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    disk, saver = HeldDisk(monkeypatch), saver_of(tmp_path)
    saver.save(content(1.0), 1, 0.5)
    assert disk.reached.wait(60)
    second = threading.Thread(target=saver.save, args=(content(2.0), 2, 0.4))
    second.start()
    second.join(0.05)
    assert second.is_alive()
    disk.go.set()
    second.join()
    saver.settle()
    assert [load_checkpoint(tmp_path / f"checkpoint_step_0000000{n}.pth")["model"]["a"][0] for n in (1, 2)] == [1, 2]


def test_a_snapshot_needs_its_memory_once():
    snapshot, state = Snapshot(), content(1.0)
    first = snapshot.take(state)
    state["model"]["a"].fill_(3.0)
    second = snapshot.take(state)
    assert first["model"]["a"].data_ptr() == second["model"]["a"].data_ptr() != state["model"]["a"].data_ptr()
    assert float(second["model"]["a"][0]) == 3.0
    assert snapshot.take({"model": {"a": torch.zeros(3)}})["model"]["a"].shape == (3,)


def test_the_state_that_is_rehearsed_has_the_form_of_the_later_one():
    module = torch.nn.Linear(3, 2)
    optimizer = build_optimizer((module,), tiny_config().training)
    rehearsed = full_state_dict(optimizer)
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    later = full_state_dict(optimizer)

    def form(state: dict[str, Any]) -> dict[Any, Any]:
        return {n: {k: (v.shape, v.dtype) for k, v in moments.items()} for n, moments in state["state"].items()}

    assert form(rehearsed) == form(later)
    assert len(form(later)) == 2


def test_a_save_is_due_after_so_many_minutes(tmp_path: Path):
    assert not saver_of(tmp_path).wants_attention()
    assert not saver_of(tmp_path, every_minutes=100.0).wants_attention()
    saver = saver_of(tmp_path, every_minutes=1e-9)
    assert saver.wants_attention()


def failing(call: Callable[..., Any], when: Callable[[], bool], number: int) -> Callable[..., Any]:
    def perhaps(*arguments: Any, **named: Any) -> Any:
        if when():
            raise OSError(number, os.strerror(number))
        return call(*arguments, **named)

    return perhaps


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES], ids=lambda number: errno.errorcode[number])
def test_whatever_call_fails_the_last_good_checkpoint_stays(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls, fail_at = 0, 0

    def now() -> bool:
        nonlocal calls
        calls += 1
        return calls == fail_at

    for name in CALLS:
        monkeypatch.setattr(os, name, failing(getattr(os, name), now, number))

    def second_save(folder: Path) -> str:
        nonlocal calls
        calls = -1_000_000
        saver = saver_of(folder)
        saver.save(content(1.0), 1, 0.5)
        saver.settle()
        calls = 0
        saver.save(content(2.0), 2, 0.7)
        try:
            saver.settle()
        except ConfigError as error:
            return str(error)
        finally:
            calls = -1_000_000
        return ""

    assert second_save(tmp_path / "sound") == ""
    saver = saver_of(tmp_path / "count")
    calls = 0
    saver.save(content(1.0), 1, None)
    saver.settle()
    total = calls + 5
    assert total > 40
    refused = 0
    for fail_at in range(1, total):
        folder = tmp_path / f"{number} {fail_at}"
        said = second_save(folder)
        found = newest_checkpoint(folder)
        assert found is not None
        assert torch.equal(found[1]["model"]["a"], torch.full((70,), float(found[1]["step"])))
        if said:
            refused += 1
            assert os.strerror(number) in said
            assert str(folder / "checkpoint_step_00000002.pth") in said
            assert found[1]["step"] == 2 or " bytes cannot be written" in said
        else:
            assert found[1]["step"] == 2
    assert refused > 40


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel refuses to let any file grow beyond this: writes end in the middle, then fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_ends_at_any_byte_leaves_the_last_good_checkpoint(tmp_path: Path):
    saver = saver_of(tmp_path)
    saver.save(content(1.0), 1, None)
    saver.settle()
    size = (tmp_path / "checkpoint_step_00000001.pth").stat().st_size
    before = sorted(path.name for path in tmp_path.iterdir())
    for limit in range(0, size, 97):
        with largest_file(limit):
            saver = saver_of(tmp_path)
            saver.save(content(2.0), 2, None)
            with pytest.raises(ConfigError, match=rf"00000002\.pth: the checkpoint of {size}\d* bytes|of \d+ bytes"):
                saver.settle()
        assert sorted(path.name for path in tmp_path.iterdir()) == before
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found[1]["step"] == 1


def config_of(phantom_data: tuple[str, ...], *overrides: str) -> Config:
    """5 steps an epoch."""
    return tiny_config(
        *phantom_data, "training.batch_size=6", "training.num_epochs=2", "training.val_interval=1", *overrides
    )


def scores_that(act: Callable[[int], None]) -> Callable[[Config, CaseDataset, torch.device], Validate]:
    """A validation that does something each time, given how often it was called before."""
    called = 0

    def make_validate(_config: Config, _dataset: CaseDataset, _device: torch.device) -> Validate:
        def validate(_model: VisionLanguageModel, _stopping: Stopping) -> Mapping[str, float]:
            nonlocal called
            act(called)
            called += 1
            return {"score": 0.5}

        return validate

    return make_validate


def test_a_disk_that_is_too_small_is_noticed_before_the_first_step(phantom_data: tuple[str, ...], tmp_path: Path):
    out = tmp_path / "run"
    with (
        largest_file(100_000),
        pytest.raises(ConfigError, match=r"run.checkpoint_rehearsal\.pth: the checkpoint of 1\d{6} bytes cannot be"),
    ):
        train(config_of(phantom_data), out, None, scores_that(lambda _: None))
    assert sorted(path.name for path in out.iterdir()) == ["cases.json", "run.lock"]


def test_a_save_that_fails_in_the_background_ends_the_run(phantom_data: tuple[str, ...], tmp_path: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_the_disk(called: int) -> None:
        if called == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (900_000, hard))

    config = config_of(phantom_data, "training.num_epochs=4")
    try:
        with pytest.raises(ConfigError, match=r"step_00000010\.pth: the checkpoint of 1\d{6} bytes cannot be written"):
            train(config, tmp_path / "run", None, scores_that(fill_the_disk))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_checkpoint(tmp_path / "run" / "checkpoint_last.pth")["step"] == 5
    train(config, tmp_path / "run", None, scores_that(lambda _: None))
    assert load_checkpoint(tmp_path / "run" / "checkpoint_last.pth")["step"] == 20


def test_metrics_that_cannot_be_written_end_the_run_with_a_checkpoint(
    phantom_data: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    add_scalar = SummaryWriter.add_scalar

    def full(self: SummaryWriter, name: str, value: float, step: int) -> None:
        if step == 7:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        add_scalar(self, name, value, step)

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    with pytest.raises(ConfigError, match=r"metrics of step 7 .* cannot be written: No space left on device"):
        train(config_of(phantom_data, "training.log_interval=1"), tmp_path / "run", None, scores_that(lambda _: None))
    assert load_checkpoint(tmp_path / "run" / "checkpoint_last.pth")["step"] == 7


def test_checkpoints_by_the_clock_are_saved_between_the_epochs(phantom_data: tuple[str, ...], tmp_path: Path):
    config = config_of(phantom_data, "training.save_minutes=1e-6", "training.num_epochs=1", "training.keep_last=4")
    train(config, tmp_path / "run", None, scores_that(lambda _: None))
    kept = load_checkpoint(tmp_path / "run" / "checkpoint_last.pth")["kept"]
    assert [(entry["step"], entry["score"]) for entry in kept] == [(2, None), (3, None), (4, None), (5, 0.5)]
