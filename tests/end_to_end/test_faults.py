"""Two ranks under the launcher that lose one, are stopped, or are told to stop (R7, R9)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from commands import ROOT, TRAIN, as_flags, free_port, run, start, wait_for_steps

from tiny import OVERRIDES
from vlm3d_ct.checkpoint import load_checkpoint

pytestmark = pytest.mark.timeout(600)
TIMEOUT_S = 10
"""Of the process group: longer than a loaded machine keeps one rank from the other."""
ANSWER_S = 25
"""The launcher kills 30 s after it has passed a signal on."""
NUM_STEPS = 24
RUN = (
    *OVERRIDES,
    "preprocess.size=[8, 16, 16]",
    "model.attn_dropout=0",
    "text.max_len=32",
    "training.num_epochs=6",
    "training.batch_size=3",
    "training.accumulation_steps=1",
    "training.precision=fp32",
    "training.val_interval=2",
    "training.log_interval=1",
    f"training.timeout_minutes={TIMEOUT_S / 60}",
)
"""4 steps an epoch of 6 pairs of 21 volumes, dropout and augmentation included; a checkpoint every 8 steps."""


def train_command(output_dir: Path, data: tuple[str, ...], *overrides: str) -> list[str]:
    volumes = (entry for entry in data if not entry.startswith("data.omniabnorm_dir"))
    flags = as_flags((*RUN, *volumes, *overrides))
    config = str(ROOT / "configs/pretrain_ctrate.yaml")
    return [TRAIN[1], "--config", config, "--output_dir", str(output_dir), *flags]


def launcher(*options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", *options),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}"),
    ]


def descendants(pid: int) -> list[int]:
    """Processes below this one, children before grandchildren."""
    try:
        own = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return own + [below for child in own for below in descendants(child)]


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """The process ids of both ranks, rank 0 first."""

    def rank(pid: int) -> int:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return next(int(entry[5:]) for entry in environment if entry.startswith(b"RANK="))

    children = [pid for pid in descendants(process.pid)[:2] if b"training/train.py" in command_of(pid)]
    return sorted(children, key=rank)


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except FileNotFoundError:
        return False


@contextmanager
def launched(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A started command; what is left of it when a test fails is killed."""
    process = start(*command)
    try:
        yield process
    finally:
        for pid in (*descendants(process.pid), process.pid):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def wait_until(condition: Callable[[], bool], seconds: float) -> float:
    """How long it took; fails after so many seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it took too long"
        time.sleep(0.02)
    return time.monotonic() - began


def weights(folder: Path) -> dict[str, torch.Tensor]:
    content = load_checkpoint(folder / "checkpoint_last.pth")
    assert content["step"] == NUM_STEPS
    return {**content["model"], **content["objective"]}


def assert_same_end(folder: Path, straight: Path) -> None:
    expected, actual = weights(straight), weights(folder)
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())
    assert losses(folder) == losses(straight)


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["kind"] == "train"]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, phantom_data: tuple[str, ...]) -> Path:
    """Two ranks that nobody disturbed."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    finished = run(*launcher(), *train_command(folder, phantom_data))
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert not (folder / "stopped").exists()
    return folder


def test_two_ranks_draw_the_dropout_of_one_rank_that_accumulates(
    straight: Path, phantom_data: tuple[str, ...], tmp_path: Path
):
    accumulating = ("training.accumulation_steps=2", "training.num_epochs=2")
    done = run(sys.executable, *train_command(tmp_path / "run", phantom_data, *accumulating))
    assert done.returncode == 0, done.stderr[-3000:]
    # the rates of a shorter schedule differ after the warm-up only, and the warm-up is longer than these steps
    assert losses(tmp_path / "run") == pytest.approx(losses(straight)[:8], rel=1e-3)


@pytest.mark.parametrize("number", [signal.SIGSTOP, pytest.param(signal.SIGKILL, marks=pytest.mark.long)])
def test_without_one_rank_all_are_out_in_time_and_the_next_start_ends_alike(
    number: signal.Signals, straight: Path, phantom_data: tuple[str, ...], tmp_path: Path
):
    folder = tmp_path / "run"
    command = train_command(folder, phantom_data, "data.num_workers=1")
    with launched(*launcher(), *command) as process:
        wait_for_steps(process, folder / "metrics.jsonl", 10)
        everyone = [process.pid, *descendants(process.pid)]
        assert len(everyone) >= 5  # the launcher, two ranks, a loader worker each
        os.kill(ranks_of(process)[1], number)
        process.communicate(timeout=TIMEOUT_S + 30 + 10)  # the launcher itself polls and starts slowly
        wait_until(lambda: not any(map(is_alive, everyone)), 10)
    assert process.returncode == 1
    assert not (folder / "stopped").exists()
    continued = run(*launcher(), *train_command(folder, phantom_data))
    assert continued.returncode == 0, continued.stderr[-3000:]
    assert "continuing this run exactly" in continued.stdout
    assert_same_end(folder, straight)


@pytest.mark.long
def test_the_launcher_restarts_into_the_exact_state(straight: Path, phantom_data: tuple[str, ...], tmp_path: Path):
    folder = tmp_path / "run"
    with launched(*launcher("--max-restarts=1"), *train_command(folder, phantom_data)) as process:
        wait_for_steps(process, folder / "metrics.jsonl", 10)
        os.kill(ranks_of(process)[1], signal.SIGKILL)
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err[-3000:]
    assert "continuing this run exactly" in out
    assert_same_end(folder, straight)


@pytest.mark.parametrize(
    ("number", "workers"),
    [
        (signal.SIGTERM, 2),
        pytest.param(signal.SIGUSR1, 0, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, 1, marks=pytest.mark.long),
        pytest.param(signal.SIGINT, 2, marks=pytest.mark.long),
    ],
)
def test_two_ranks_answer_a_signal_in_time_with_a_checkpoint(
    number: signal.Signals, workers: int, straight: Path, phantom_data: tuple[str, ...], tmp_path: Path
):
    folder = tmp_path / "run"
    handled = "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
    command = train_command(folder, phantom_data, f"data.num_workers={workers}")
    with launched(*launcher(handled), *command) as process:
        wait_for_steps(process, folder / "metrics.jsonl", 5)
        everyone = [process.pid, *descendants(process.pid)]
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=ANSWER_S + 5)
        wait_until(lambda: not any(map(is_alive, everyone)), 5)
    assert process.returncode == 1  # the launcher's own code, whatever the ranks'
    assert f"stopped: stopped by {number.name} after step" in err
    step = load_checkpoint(folder / "checkpoint_last.pth")["step"]
    assert 5 <= step < NUM_STEPS
    assert (folder / "stopped").read_text() == (
        f"stopped by {number.name} after step {step}; start the same command again to continue.\n"
    )
    continued = run(*launcher(), *train_command(folder, phantom_data))
    assert continued.returncode == 0, continued.stderr[-3000:]
    assert not (folder / "stopped").exists()
    assert_same_end(folder, straight)


@pytest.mark.long
@pytest.mark.parametrize("workers", [2, 0])
def test_a_signal_during_the_preparation_is_answered_and_keeps_what_is_prepared(
    workers: int, phantom_data: tuple[str, ...], tmp_path: Path
):
    folder, cache = tmp_path / "run", tmp_path / "cache"
    big = (
        f"data.cache_dir={cache}",
        "preprocess.size=[64, 256, 256]",
        "preprocess.slice_size=[8, 32, 32]",
        "model.patch_size=[8, 32, 32]",
    )
    command = train_command(folder, phantom_data, *big, f"data.num_workers={workers}")
    with launched(*launcher(), *command) as process:
        wait_until(lambda: process.poll() is not None or any(cache.rglob("*.ct")), 120)
        assert process.poll() is None, process.communicate()
        os.kill(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=ANSWER_S + 5)
    assert "stopped: stopped while preparing; start the same command again to continue." in err
    assert (folder / "stopped").exists()
    assert 0 < len(list(cache.rglob("*.ct"))) < 28
    assert not any(path.name.endswith(".tmp") for path in cache.rglob("*"))
