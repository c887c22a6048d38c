"""What a run says before its first step: how much there is to do, and what it takes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from vlm3d_ct.config import Config
from vlm3d_ct.data.cohort import Cohort
from vlm3d_ct.distributed import world_size
from vlm3d_ct.log import format_bytes, say
from vlm3d_ct.models import Built
from vlm3d_ct.models.flops import step_flops

BYTES_PER_PARAMETER = 12
"""In a checkpoint: the weight and AdamW's two moments, in fp32."""
BYTES_PER_FROZEN_PARAMETER = 4


def announce(
    config: Config,
    built: Built,
    cohort: Cohort,
    parts: Mapping[str, Sequence[nn.Parameter]],
    *,
    steps_per_epoch: int,
    output_dir: Path,
    device: torch.device,
) -> None:
    """Say what is about to be trained, how, and what it costs.

    Args:
        config: of the stage.
        built: the model.
        cohort: the cases.
        parts: all trained parameters, see `training.gradients.parts_of`.
        steps_per_epoch: of the run.
        output_dir: of the checkpoints; need not exist.
        device: of this rank.
    """
    training, ranks = config.training, world_size()
    kinds = [case.kind for case in cohort.training]
    say(
        f"{kinds.count('volume')} volumes and {kinds.count('slice')} slices to train on, "
        f"{len(cohort.validation)} cases of other patients held out"
    )
    counts = {name: sum(p.numel() for p in part) for name, part in parts.items()}
    listed = ", ".join(
        f"{name.replace('_', ' ')} {count / 1e6:.2f} M" for name, count in counts.items() if name != "temperature"
    )
    frozen = sum(p.numel() for p in built.model.parameters() if not p.requires_grad)
    listed += f", frozen {frozen / 1e6:.2f} M" if frozen else ""
    shared = f"; {training.strategy} over {ranks} ranks" if ranks > 1 else ""
    say(f"parameters: {listed}, and the temperature; precision {training.precision}; device {device}{shared}")
    pairs = training.batch_size * training.accumulation_steps * ranks
    contrasted = pairs if training.accumulation == "exact" else training.batch_size * ranks
    say(
        f"{ranks} rank{'s' * (ranks > 1)} x {training.batch_size} pairs x {training.accumulation_steps} accumulated = "
        f"{pairs} contrastive pairs per step, {contrasted - 1} negatives for each"
    )
    total = steps_per_epoch * training.num_epochs
    say(f"{steps_per_epoch} steps per epoch x {training.num_epochs} epochs = {total} steps")
    say(_cost(config, built, pairs, slices_only="volume" not in kinds))
    one = BYTES_PER_PARAMETER * sum(counts.values()) + BYTES_PER_FROZEN_PARAMETER * frozen
    _say_disk(config, one, output_dir)


def _cost(config: Config, built: Built, pairs: int, slices_only: bool) -> str:
    size = config.preprocess.slice_size if slices_only else config.preprocess.size
    flops = step_flops(config, built.bert_json, pairs, size, config.text.max_len)
    amount = f"{flops / 1e12:.1f} TFLOP" if flops >= 1e12 else f"{flops / 1e9:.1f} GFLOP"
    what = "slices" if slices_only else "volumes"
    return f"a step of {what} of {'x'.join(map(str, size))} with texts of {config.text.max_len} tokens: about {amount}"


def _say_disk(config: Config, one: int, output_dir: Path) -> None:
    """At most the best and the last stay, and one more while it is written; `Saver.rehearse` warns of too little."""
    most = config.training.keep_best + config.training.keep_last + 1
    folder = next(parent for parent in (output_dir, *output_dir.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(folder).free
    say(
        f"a checkpoint takes about {format_bytes(one)}, at most {most} of them {format_bytes(most * one)}; "
        f"{format_bytes(free)} are free"
    )
