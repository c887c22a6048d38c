"""Gradients of compiled blocks beside those of plain ones; run as a script, prints relative differences as JSON.

A script, as the checks of shapes that the tests put around every function cannot be compiled.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from tiny import NO_DROPOUT, random_pairs, tiny_config, tiny_model
from vlm3d_ct.objectives import ContrastiveObjective
from vlm3d_ct.training.step import MicroBatch, backward

KEPT, RECOMPUTED = "training.gradient_checkpointing=false", "training.gradient_checkpointing=true"
COMPILED = "training.compile=true"


def gradients(overrides: Sequence[str], steps: Sequence[Sequence[MicroBatch]]) -> list[Tensor]:
    """Of one model for each of the steps, one vector each."""
    config = tiny_config("model.depth=6", *overrides)
    model, objective = tiny_model(config).train(), ContrastiveObjective(config.objective)
    found = []
    for micro_batches in steps:
        model.zero_grad(set_to_none=True)
        backward(model, objective, micro_batches)
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    return found


def differences(plain: Sequence[str], steps: Sequence[Sequence[MicroBatch]], *compiled: str) -> list[float]:
    """Norm of the difference over the norm, for each step."""
    pairs = zip(gradients(plain, steps), gradients((*plain, COMPILED, *compiled), steps), strict=True)
    return [float((a - b).norm() / a.norm()) for a, b in pairs]


def kinds() -> list[float]:
    """Volumes, slices and volumes again."""
    steps = [[random_pairs(tiny_config(), 4, seed=i, slices=slices)] for i, slices in enumerate((False, True, False))]
    return differences((*NO_DROPOUT, KEPT), steps)


def air() -> list[float]:
    """Steps of which other numbers of columns are read, one of them slices."""
    steps = []
    for i, columns in enumerate((5, 9, 16, None, 7)):
        micro = random_pairs(tiny_config(), 3, seed=i, slices=columns is None)
        if columns is not None:
            micro.model_input.tissue = (torch.arange(16) < columns).expand(3, -1)
        steps.append([micro])
    return differences((*NO_DROPOUT, KEPT, "model.skip_air=true"), steps)


def dropout() -> list[float]:
    """What is dropped is the same without compiling, in both passes of an accumulated step, and recomputed."""
    steps = [[random_pairs(tiny_config(), 2, seed=i) for i in range(2)]]
    return differences((KEPT,), steps, RECOMPUTED)


if __name__ == "__main__":
    print(json.dumps({"kinds": kinds, "air": air, "dropout": dropout}[sys.argv[1]]()))
