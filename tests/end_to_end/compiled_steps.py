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


def gradients(overrides: Sequence[str], batches: Sequence[MicroBatch]) -> list[Tensor]:
    """Of one model for each of the batches, one vector each."""
    config = tiny_config("model.depth=6", *overrides)
    model, objective = tiny_model(config).train(), ContrastiveObjective(config.objective)
    found = []
    for micro in batches:
        model.zero_grad(set_to_none=True)
        backward(model, objective, [micro])
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    return found


def differences(some: Sequence[Tensor], others: Sequence[Tensor]) -> list[float]:
    """Norm of the difference over the norm, for each pair."""
    return [float((a - b).norm() / a.norm()) for a, b in zip(some, others, strict=True)]


def kinds() -> dict[str, list[float]]:
    """Volumes, slices and volumes again."""
    batches = [random_pairs(tiny_config(), 4, seed=i, slices=slices) for i, slices in enumerate((False, True, False))]
    plain = gradients((*NO_DROPOUT, KEPT), batches)
    return {"compiled": differences(plain, gradients((*NO_DROPOUT, KEPT, COMPILED), batches))}


def air() -> dict[str, list[float]]:
    """Batches of which other numbers of columns are read, one after the other."""
    batches = []
    for i, columns in enumerate((5, 9, 12, 7)):
        micro = random_pairs(tiny_config(), 3, seed=i)
        micro.model_input.tissue = (torch.arange(16) < columns).expand(3, -1)
        batches.append(micro)
    plain = gradients((*NO_DROPOUT, KEPT), batches)
    return {"compiled": differences(plain, gradients((*NO_DROPOUT, KEPT, COMPILED), batches))}


def dropout() -> dict[str, list[float]]:
    """Recomputed blocks must draw what they drew."""
    batches = [random_pairs(tiny_config(), 4)]
    kept, recomputed = (gradients((recompute, COMPILED), batches) for recompute in (KEPT, RECOMPUTED))
    without = gradients((*NO_DROPOUT, KEPT), batches)
    return {"recomputed": differences(kept, recomputed), "dropped": differences(without, kept)}


if __name__ == "__main__":
    print(json.dumps({"kinds": kinds, "air": air, "dropout": dropout}[sys.argv[1]]()))
