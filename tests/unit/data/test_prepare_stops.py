"""Preparing may be killed or stopped at any moment: no torn, no stale entry is used, and the next start goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from data_folders import write_ctrate, write_volume

from vlm3d_ct.data.cache import Cache
from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.data.load import load_and_preprocess
from vlm3d_ct.data.prepare import prepare_cases
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.volumes.preprocess import Prepared, Preprocess

SMALL = Preprocess(size=(4, 8, 8), slice_size=(4, 16, 16))
PREPROCESSES = (SMALL, replace(SMALL, size=(8, 8, 8)))
PATIENTS = 12


def _prepare(folder: Path, preprocess: Preprocess) -> None:
    prepare_cases(read_cases(folder).cases, preprocess, Cache(folder / "cache", preprocess.fingerprint), workers=0)


def _killed_after(seconds: float, folder: Path, preprocess: Preprocess) -> bool:
    """Prepare in a fork of this process and kill it with SIGKILL so long after its first case.

    Returns whether the signal came before the end.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        sys.stdout = os.fdopen(writing, "w")
        _prepare(folder, preprocess)
        os._exit(0)
    os.close(writing)

    def kill(_number: int, _frame: FrameType | None) -> None:
        os.kill(child, signal.SIGKILL)

    before = signal.signal(signal.SIGALRM, kill)
    try:
        with os.fdopen(reading, "rb") as said:
            if any(b"takes about" in line for line in said):
                signal.setitimer(signal.ITIMER_REAL, seconds)
            _, status = os.waitpid(child, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return os.WIFSIGNALED(status)


def _assert_same(one: Prepared, other: Prepared) -> None:
    np.testing.assert_array_equal(one.voxels_hu, other.voxels_hu)
    np.testing.assert_array_equal(np.asarray(one.labels), np.asarray(other.labels))


def _usable(folder: Path, preprocess: Preprocess) -> int:
    """How many entries count as current; each of them must be what a fresh preparation gives."""
    cache = Cache(folder / "cache", preprocess.fingerprint)
    current = [case for case in read_cases(folder).cases if cache.is_current(case)]
    for case in current:
        _assert_same(cache.read(case), load_and_preprocess(case, preprocess))
    return len(current)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=pytest.mark.long)])
def test_kills_changed_sources_and_changed_preprocessing_leave_nothing_torn_or_stale(tmp_path: Path, kills: int):
    write_ctrate(tmp_path, PATIENTS)
    stream = random_stream(kills, "kills")
    killed = amid = partial = cycles = 0
    longest_s = 0.02  # follows what the machine needs at the moment, so that the kills come amid the work
    while killed < kills:
        cycles += 1
        assert cycles < 3 * kills + 20, "too few of the kills came in time"
        preprocess = PREPROCESSES[cycles % 2]
        for patient in stream.choice(PATIENTS, 8, replace=False).tolist():
            write_volume(tmp_path, f"train_{patient + 1}_a_1", seed=1000 * cycles + patient)
        in_time = _killed_after(float(stream.uniform(0, longest_s)), tmp_path, preprocess)
        longest_s *= 1.1 if in_time else 0.7
        killed += in_time
        partial += len(list((tmp_path / "cache").rglob(".*")))
        done = [_usable(tmp_path, each) for each in PREPROCESSES]
        amid += in_time and 0 < done[cycles % 2] < PATIENTS
    print(f"{killed} kills, {amid} amid the entries, {partial} left a partial file, 0 torn or stale entries used")
    for preprocess in PREPROCESSES:
        _prepare(tmp_path, preprocess)
        assert _usable(tmp_path, preprocess) == PATIENTS
    assert not list((tmp_path / "cache").rglob(".*"))
    assert amid >= kills // 2


CONFIG = """
data:
  ctrate_dir: {folder}
  cache_dir: {folder}/cache
preprocess:
  size: [4, 32, 32]
  slice_size: [4, 32, 32]
model:
  patch_size: [4, 8, 8]
"""


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 2), (signal.SIGINT, 0), (signal.SIGUSR1, 0)])
def test_a_signal_stops_with_exit_code_4_and_the_next_start_goes_on(
    tmp_path: Path, number: signal.Signals, workers: int
):
    total = 60
    write_ctrate(tmp_path, total)
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(folder=tmp_path))
    command = [
        str(Path(sys.executable).with_name("vlm3d-ct")),
        "prepare",
        "--config",
        str(config),
        "--workers",
        str(workers),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "takes about" in line:  # the first cases are there
                process.send_signal(number)
                break
        _, said = process.communicate(timeout=120)
    assert process.returncode == 4, said
    assert f"stopped: preparing was stopped by {number.name}; start the same command again" in said
    assert "Traceback" not in said
    made = len(list((tmp_path / "cache").rglob("*.ct")))
    assert 0 < made < total
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{total - made} cases prepared, {made} were ready, 0 left out" in again.stdout
    assert not list((tmp_path / "cache").rglob(".*"))
