"""A disk that answers metrics with an I/O error: the run ends with a checkpoint, and goes on where it was."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tiny import tiny_config
from vlm3d_ct.config import Config
from vlm3d_ct.data.dataset import CaseDataset
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.models import VisionLanguageModel
from vlm3d_ct.training.keeper import newest_checkpoint
from vlm3d_ct.training.recorder import Recorder
from vlm3d_ct.training.run import train
from vlm3d_ct.training.stop import STOPPED_FILE, mark_stopped
from vlm3d_ct.training.trainer import Stopping, Validate

SMALL = ("training.batch_size=6", "training.num_epochs=2", "training.val_interval=1", "training.log_interval=1")
"""5 steps an epoch."""


@pytest.fixture
def broken() -> Iterator[int]:
    """A file descriptor that the kernel answers with EIO: a terminal whose other end has gone."""
    other_end, descriptor = os.openpty()
    os.close(other_end)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        os.write(descriptor, b"x")
    yield descriptor
    os.close(descriptor)


def break_open_file(path: Path, broken: int) -> None:
    """From now on this process's open file fails."""
    (number,) = [n for n in os.listdir("/proc/self/fd") if os.path.realpath(f"/proc/self/fd/{n}") == str(path)]  # noqa: PTH208
    os.dup2(broken, int(number))


def break_named_files(folder: Path, broken: int) -> None:
    """From now on what is opened under the names of this folder's files fails."""
    for path in folder.iterdir():
        path.unlink()
        path.symlink_to(f"/proc/self/fd/{broken}")


def scores_that(act: Callable[[], None]) -> Callable[[Config, CaseDataset, torch.device], Validate]:
    def validate(_model: VisionLanguageModel, _stopping: Stopping) -> dict[str, float]:
        act()
        return {"score": 0.5}

    return lambda _config, _dataset, _device: validate


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own thread
@pytest.mark.parametrize("place", ["metrics.jsonl", "event file"])
def test_a_run_whose_metrics_meet_an_io_error_ends_with_a_checkpoint_and_goes_on(
    place: str, broken: int, phantom_data: tuple[str, ...], tmp_path: Path
):
    out, events = tmp_path / "run", tmp_path / "tensorboard" / "run"
    config = tiny_config(*phantom_data, *SMALL)
    act: Callable[[], None] = (
        (lambda: break_open_file(out / "metrics.jsonl", broken))
        if place == "metrics.jsonl"
        else (lambda: break_named_files(events, broken))
    )
    with pytest.raises(ConfigError) as caught:
        train(config, out, None, scores_that(act))
    said = re.fullmatch(
        rf"{out}/metrics\.jsonl: the (?:metrics of step (\d+) \(\d+ bytes\)|last metrics) or their event file in "
        rf"{events} cannot be written: Input/output error\. .*",
        str(caught.value),
    )
    assert said is not None, caught.value
    found = newest_checkpoint(out)
    assert found is not None
    # TensorBoard's thread is heard of at a later record, at the latest when the run ends
    assert found[1]["step"] == int(said[1] or 10)
    assert place == "event file" or found[1]["step"] == 5
    break_nothing = scores_that(lambda: None)
    train(config, out, None, break_nothing)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 11))


def test_metrics_that_cannot_be_opened_are_refused_with_path_and_bytes(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    (tmp_path / "tensorboard").touch()  # a file where a folder is needed
    with pytest.raises(ConfigError, match=r"metrics\.jsonl: the metrics \(12 bytes so far\) or the event file in .*: "):
        Recorder(tmp_path, tmp_path / "tensorboard", 5)


def test_a_stop_is_a_stop_though_its_mark_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "run").touch()
    mark_stopped(tmp_path / "run", "stopped after step 3")
    captured = capsys.readouterr()
    assert f"{tmp_path}/run/{STOPPED_FILE}: its 21 bytes cannot be written: " in captured.out + captured.err
