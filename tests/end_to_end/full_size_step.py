"""One training step of the full-size model; run as a script, prints what it took as JSON."""

from __future__ import annotations

import json
import resource
import sys
import time

import torch

from tiny import random_pairs, tiny_tokenizer
from vlm3d_ct.config import Config, config_from_mapping
from vlm3d_ct.models import build
from vlm3d_ct.objectives import ContrastiveObjective
from vlm3d_ct.training.optimizer import build_optimizer
from vlm3d_ct.training.step import Update, backward


def full_size_config(attn_dropout: str) -> Config:
    """The plan's recipe in bf16; only the text encoder is small."""
    overrides = ("text.source=small", "training.precision=bf16", f"model.attn_dropout={attn_dropout}")
    return config_from_mapping({}, source="the full-size step", overrides=overrides)


def main(attn_dropout: str) -> None:
    config = full_size_config(attn_dropout)
    built = build(config, tiny_tokenizer())
    modules = (built.model.train(), ContrastiveObjective(config.objective))
    parameters = [p for module in modules for p in module.parameters()]
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    update = Update(parameters, build_optimizer(modules, config.training), scaler, config.training.gradient_clip)
    pairs = random_pairs(config, 1)
    start = time.perf_counter()
    losses = backward(*modules, [pairs], precision=config.training.precision)
    num_gradients = sum(p.grad is not None for p in parameters)
    norm, taken = update(1e-4)
    print(
        json.dumps(
            {
                "seconds": round(time.perf_counter() - start, 1),
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "vision_parameters": built.model.num_parameters()["vision_encoder"],
                "voxels": list(pairs.model_input.ct_volume.shape[2:]),
                "checkpointing": len(built.model.vision_encoder.recomputed_blocks),
                "loss": float(losses.total),
                "gradient_norm": norm,
                "taken": taken,
                "without_gradient": len(parameters) - num_gradients,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
