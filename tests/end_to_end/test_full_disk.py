"""The command of a training on a file system that is really full (R6)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, TRAIN, as_flags, environment

from tiny import OVERRIDES
from vlm3d_ct.checkpoint import load_checkpoint
from vlm3d_ct.training.keeper import newest_checkpoint

SPACE = 1_900_000
"""For one checkpoint of 1.1 to 1.5 MB, and not for the second, which is written beside it."""
RUN = (
    *OVERRIDES,
    "preprocess.size=[8, 16, 16]",
    "text.max_len=32",
    "training.num_epochs=2",
    "training.batch_size=10",
    "training.accumulation_steps=1",
    "training.precision=fp32",
    "training.val_interval=1",
)
IN_A_SMALL_DISK = """
mount -t tmpfs -o size=$1 tmpfs "$2" || exit 99
shift 2
"$@"
code=$?
cp -a "$DISK/." "$KEPT"
exit $code
"""
"""In name spaces of its own, which take the mount with them when the command ends; what lay there is copied out."""


def on_a_small_disk(disk: Path, kept: Path, size: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with a file system of this size at ``disk``; skips where none can be made."""
    unshare = shutil.which("unshare")
    if not sys.platform.startswith("linux") or unshare is None:
        pytest.skip("a full disk needs Linux name spaces (unshare)")
    disk.mkdir()
    kept.mkdir()
    done = subprocess.run(
        [unshare, "-rm", "sh", "-c", IN_A_SMALL_DISK, "sh", str(size), str(disk), *command],
        cwd=ROOT,
        env={**environment(), "DISK": str(disk), "KEPT": str(kept)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip(f"no file system can be mounted in a name space here: {done.stderr.strip()}")
    return done


def test_a_disk_that_fills_up_ends_the_training_with_code_2_and_the_last_good_checkpoint(
    phantom_data: tuple[str, ...], tmp_path: Path
):
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    volumes = (entry for entry in phantom_data if not entry.startswith("data.omniabnorm_dir"))
    flags = ["--config", str(ROOT / "configs/pretrain_ctrate.yaml"), *as_flags((*RUN, *volumes))]
    full = on_a_small_disk(disk, kept, SPACE, *TRAIN, *flags, "--output_dir", str(disk / "run"))
    assert full.returncode == 2, full.stderr
    said = re.search(
        rf"^configuration: {disk}/run/checkpoint_step_(\d+)\.pth: the checkpoint of (\d+) bytes cannot be written: "
        rf"{os.strerror(28)}\. Free space or choose another --output_dir; older checkpoints are untouched\.$",
        full.stderr,
        re.MULTILINE,
    )
    assert said is not None, full.stderr
    assert "Traceback" not in full.stderr
    assert f"{disk}/run: " in full.stdout + full.stderr  # little space was warned of before the first step
    assert "bytes are free, but up to" in full.stdout + full.stderr
    assert not [path for path in (kept / "run").iterdir() if path.name.endswith(".tmp")]
    found = newest_checkpoint(kept / "run")
    assert found is not None
    assert found[0].stat().st_size == pytest.approx(int(said[2]), rel=0.01)  # its size was told
    assert load_checkpoint(kept / "run" / "checkpoint_last.pth")["step"] == found[1]["step"] <= int(said[1])
