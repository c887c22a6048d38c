"""Compiled blocks give the gradients of plain ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vlm3d_ct.errors import ConfigError
from vlm3d_ct.training.compiling import explain_failure_to_compile

HERE = Path(__file__).parent
TOLERANCE = 1e-5
"""Relative, of a whole gradient: sums in another order, some hundred roundings of fp32."""


def differences(what: str) -> dict[str, list[float]]:
    paths = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    command = [sys.executable, str(HERE / "compiled_steps.py"), what]
    done = subprocess.run(command, env=paths, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


@pytest.mark.long  # half a minute to two each, to compile
@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", ["kinds", "air"])
def test_compiled_blocks_give_the_gradient_of_plain_ones(what: str):
    found = differences(what)["compiled"]
    assert len(found) > 2
    assert max(found) < TOLERANCE


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_compiled_block_that_is_recomputed_drops_what_it_dropped():
    found = differences("dropout")
    assert found["recomputed"][0] < TOLERANCE
    assert found["dropped"][0] > 0.1  # there was something to drop


def test_a_block_that_cannot_be_compiled_is_a_users_error_with_a_remedy():
    failing = torch.compile(torch.nn.functional.gelu, backend=refuse)
    with (
        pytest.raises(ConfigError, match=r"training\.compile = true: .*no compiler here.*--allow_changes"),
        explain_failure_to_compile(),
    ):
        failing(torch.zeros(3))


def refuse(_graph: torch.fx.GraphModule, _inputs: list[torch.Tensor]) -> None:
    raise RuntimeError("no compiler here")
