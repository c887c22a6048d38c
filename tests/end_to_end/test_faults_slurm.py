"""The example job files: bash takes them, the package takes their commands, and a preemption queues the job again."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, as_flags, environment, wait_for_steps
from test_faults import RUN

from vlm3d_ct.checkpoint import load_checkpoint
from vlm3d_ct.cli.main import build_parser

JOBS = sorted((ROOT / "examples/slurm").glob("*.sbatch"))


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_a_job_file_is_bash_and_its_command_parses(path: Path):
    subprocess.run(["bash", "-n", path], check=True)
    text = path.read_text().replace("\\\n", " ")
    (line,) = re.findall(r"training/train\.py (.*) &$", text, re.M)
    assert build_parser().parse_args(["train", *shlex.split(line.replace('"$@"', ""))]).command == "train"


def test_a_preempted_job_saves_and_queues_again(phantom_data: tuple[str, ...], tmp_path: Path):
    """Slurm itself is not here: ``scontrol`` is a script that notes what it was asked, the rest is real."""
    programs, folder = tmp_path / "bin", tmp_path / "run"
    programs.mkdir()
    (programs / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (programs / "scontrol").chmod(0o755)
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    slurm = {"PATH": path, "SLURM_JOB_ID": "77", "SLURM_GPUS_ON_NODE": "2", "OUTPUT_DIR": str(folder)}
    volumes = tuple(entry for entry in phantom_data if not entry.startswith("data.omniabnorm_dir"))
    with subprocess.Popen(
        ["bash", "examples/slurm/one_node.sbatch", *as_flags((*RUN, *volumes))],
        cwd=ROOT,
        env={**environment(), **slurm},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as job:
        wait_for_steps(job, folder / "metrics.jsonl", 3)
        job.send_signal(signal.SIGUSR1)
        _, err = job.communicate(timeout=60)
    assert job.returncode == 4, err[-2000:]
    assert (tmp_path / "asked").read_text() == "requeue 77\n"
    assert (folder / "stopped").exists()
    assert load_checkpoint(folder / "checkpoint_last.pth")["step"] >= 3
