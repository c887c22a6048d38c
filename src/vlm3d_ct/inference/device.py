"""What every forward pass at inference shares: input, precision, threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from vlm3d_ct.config import Config
from vlm3d_ct.data.augment import move, through_windows
from vlm3d_ct.data.batch import Batch
from vlm3d_ct.models import ModelInput
from vlm3d_ct.models.columns import tissue_columns
from vlm3d_ct.text.regions import RegionTable


def model_input(batch: Batch, config: Config, table: RegionTable) -> ModelInput:
    """A batch on the device as the model takes it: changed, windowed."""
    values, labels = move(batch, table)
    looks = config.model.skip_air and batch.kind == "volume"  # a slice costs little, and is no HU
    num_steps = batch.step_regions.shape[1] if config.objective.reasoning_weight > 0 else 0
    num_opposite = batch.opposite_ids.shape[1] if config.objective.opposites else 0
    return ModelInput(
        ct_volume=through_windows(values, batch, config.model.windows_hu),
        tissue=tissue_columns(values, config.model.patch_size) if looks else None,
        segmentation_mask=labels,
        mask_given=batch.mask_given,
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        token_type_ids=batch.token_type_ids,
        region_tokens=batch.region_tokens,
        token_steps=batch.token_steps,
        step_regions=batch.step_regions[:, :num_steps],
        opposite_ids=batch.opposite_ids[:, :num_opposite],
        opposite_mask=batch.opposite_mask[:, :num_opposite],
        opposite_steps=batch.opposite_steps[:, :num_opposite],
    )


def autocast_for_inference(config: Config, device: torch.device) -> torch.autocast:
    """The training precision on a GPU; on a CPU bf16 where training used it, else fp32 (fp16 is slow there)."""
    precision = config.training.precision
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    enabled = precision == "bf16" or (precision == "fp16" and device.type == "cuda")
    return torch.autocast(device.type, dtype=dtype, enabled=enabled)


@contextmanager
def one_thread_each(device: torch.device) -> Iterator[None]:
    """On a CPU every operation runs in one thread: sums are then taken in the same order on every machine's cores."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def to_numpy(tensor: Tensor) -> np.ndarray:
    """The tensor as fp32 in this process's memory."""
    array: np.ndarray = tensor.float().cpu().numpy()
    return array
