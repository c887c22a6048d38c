"""One training step at the plan's size on this CPU, within 6 GB."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GIGABYTE = 10**9


def assert_a_full_size_step_fits(attn_dropout: float) -> None:
    paths = {**os.environ, "PYTHONPATH": str(HERE.parent), "PYTHONWARNINGS": "ignore"}
    paths.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(
        [sys.executable, str(HERE / "full_size_step.py"), str(attn_dropout)],
        env=paths,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    step = json.loads(done.stdout)
    assert step["voxels"] == [64, 512, 512]
    assert 86e6 <= step["vision_parameters"] <= 90e6
    assert step["checkpointing"] == 12
    assert step["taken"] is True
    assert step["without_gradient"] == 0
    assert math.isfinite(step["loss"])
    assert step["gradient_norm"] > 0
    assert step["peak_bytes"] < 6 * GIGABYTE, step
    print(step)


@pytest.mark.long  # two minutes: `.ci/run` has it beside the short tests
@pytest.mark.timeout(600)
def test_a_full_size_step_fits_into_6_gb():
    assert_a_full_size_step_fits(attn_dropout=0.0)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_full_size_step_with_the_plans_attention_dropout_fits_into_6_gb():
    assert_a_full_size_step_fits(attn_dropout=0.1)
