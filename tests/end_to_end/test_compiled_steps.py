"""Compiled blocks give the gradients of plain ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tiny import tiny_config
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.training.compiling import explain_failure_to_compile

HERE = Path(__file__).parent
COMPILED = "training.compile=true"
TOLERANCE = 1e-5
"""Relative, of a whole gradient: sums in another order, some hundred roundings of fp32."""


@pytest.mark.long  # a minute or two each, to compile
@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", ["kinds", "air", "dropout"])
def test_compiled_blocks_give_the_gradient_of_plain_ones(what: str):
    paths = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    command = [sys.executable, str(HERE / "compiled_steps.py"), what]
    done = subprocess.run(command, env=paths, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    differences = json.loads(done.stdout)
    assert len(differences) == {"kinds": 3, "air": 5, "dropout": 1}[what]
    assert max(differences) < TOLERANCE


def test_a_block_that_cannot_be_compiled_is_a_users_error_with_a_remedy():
    failing = torch.compile(torch.nn.functional.gelu, backend=refuse)
    with (
        pytest.raises(ConfigError, match=r"training\.compile = true: .*no compiler here.*--allow_changes"),
        explain_failure_to_compile(tiny_config(COMPILED)),
    ):
        failing(torch.zeros(3))


def test_too_many_variants_are_a_users_error_too():
    torch._dynamo.reset()
    compiled = torch.compile(torch.sin, backend="eager", fullgraph=True, dynamic=False, recompile_limit=2)  # type: ignore[call-overload]
    with (
        pytest.raises(ConfigError, match=r"training\.compile = true: .*Leave training\.compile out"),
        explain_failure_to_compile(tiny_config(COMPILED)),
    ):
        list(map(compiled, map(torch.zeros, range(2, 6))))


def refuse(_graph: torch.fx.GraphModule, _inputs: list[torch.Tensor]) -> None:
    raise RuntimeError("no compiler here")
