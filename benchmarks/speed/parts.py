"""Where the time of a step goes: each part by itself, forward and backward, at the size of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from made_up import body, made_up_pairs
from torch import Tensor, nn

from speed.clock import lap, median_laps
from speed.measure import DTYPES
from vlm3d_ct.config import Config
from vlm3d_ct.data.augment import to_intensities
from vlm3d_ct.data.batch import Batch, Change, Sample, collate
from vlm3d_ct.models import VisionLanguageModel, rebuild
from vlm3d_ct.models.attention import QueryKeyValue, attend_along_z, attend_from_memory, attend_in_slab
from vlm3d_ct.models.block import Block
from vlm3d_ct.models.encoder import axes_of, log_occupancy
from vlm3d_ct.models.patches import patch_grid, pool_occupancy
from vlm3d_ct.objectives import ContrastiveObjective
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.text.tokenize import ReportTokenizer, train_small_tokenizer
from vlm3d_ct.training.optimizer import build_optimizer
from vlm3d_ct.training.step import MicroBatch
from vlm3d_ct.volumes.preprocess import Prepared

SMALL = ("augmentation", "patch embedding", "occupancy from masks", "region guidance", "region attention", "losses")
"""What is to be negligible beside the rest: together at most a tenth of a step."""
ATTENTION = ("attention within slabs", "attention along z", "region attention")
BLOCKS = ("slab blocks", "z blocks")
Work = Callable[[], Sequence[Tensor]]


@dataclass(frozen=True)
class Part:
    """Seconds of a part in one step of one micro-batch, forward and backward, over all blocks."""

    name: str
    seconds: float


def profile_parts(config: Config, bert_json: str, batch: int, device_name: str, repetitions: int) -> list[Part]:
    """Time every part of a step of ``slice_region`` by itself; nothing is recomputed."""
    device = torch.device(device_name)
    torch.manual_seed(0)
    model = rebuild(config, bert_json).to(device).train()
    micro, axes = made_up_pairs(config, batch, device), axes_of(config.model)
    times = {"slab": axes.count("slab"), "z": axes.count("z"), "all": len(axes)}
    seconds = {}
    for name, (count, work) in (_around(config, model, micro) | _within(config, model, micro)).items():
        seconds[name] = times.get(count, 1) * _both_ways(work, config, device, repetitions)
    rest = sum(seconds.pop(name) for name in BLOCKS) - sum(seconds[name] for name in ATTENTION)
    return [Part(name, taken) for name, taken in (seconds | {"linear maps, norms, GELU, dropout": rest}).items()]


def small_share(parts: Sequence[Part]) -> float:
    """Of the parts that are to be negligible, in all."""
    return sum(part.seconds for part in parts if part.name in SMALL) / sum(part.seconds for part in parts)


def _both_ways(work: Work, config: Config, device: torch.device, repetitions: int) -> float:
    """Median of forward and backward pass; backward from the sum of what the work returns."""
    kept: list[Tensor] = []
    dtype = DTYPES[config.training.precision]

    def forward() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            kept[:] = [out for out in work() if out.requires_grad]

    def backward() -> None:
        if kept:
            torch.autograd.backward(kept, [torch.ones_like(out) for out in kept])

    return sum(median_laps([lap(device, [forward, backward]) for _ in range(repetitions + 1)][1:]))


def _around(config: Config, model: VisionLanguageModel, micro: MicroBatch) -> dict[str, tuple[str, Work]]:
    """The parts that occur once."""
    inputs, vision, text = micro.model_input, model.vision_encoder, model.text_encoder
    device, grid = inputs.ct_volume.device, patch_grid(config.preprocess.size, config.model.patch_size)
    voxels, table = made_up_batch(config, len(inputs.ct_volume)).to(device), load_region_table()
    objective = ContrastiveObjective(config.objective).to(device)
    with torch.no_grad():
        embedded = [part.requires_grad_() for part in model(inputs)[0].tensors()]
    optimizer = build_optimizer((model, objective), config.training)
    patches = _tokens(config, len(inputs.ct_volume), grid.z * grid.in_slab, device)

    def guide() -> list[Tensor]:
        logits = vision.occupancy_head(vision.occupancy_norm(patches)).float()
        share = logits.detach().softmax(-1)
        loss = F.cross_entropy(logits.transpose(1, 2), share.transpose(1, 2))
        return [patches + share.to(patches.dtype) @ vision.region_embedding, loss]

    def take_step() -> list[Tensor]:
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        nn.utils.clip_grad_norm_(model.parameters(), config.training.gradient_clip)
        optimizer.step()
        return []

    return {
        "augmentation": ("once", lambda: [to_intensities(voxels, config.model.windows_hu, table)[0]]),
        "patch embedding": ("once", lambda: [vision.patch_embedding(inputs.ct_volume) + vision.positions(grid)]),
        "occupancy from masks": ("once", lambda: [_occupancy(config, micro)]),
        "region guidance": ("once", guide),
        "losses": ("once", lambda: [objective(*embedded, micro.targets).total]),
        "text": ("once", lambda: [text(inputs.input_ids, inputs.attention_mask).last_hidden_state]),
        "optimizer": ("once", take_step),
    }


def _within(config: Config, model: VisionLanguageModel, micro: MicroBatch) -> dict[str, tuple[str, Work]]:
    """The parts of the blocks, with how often each occurs."""
    grid, axes = patch_grid(config.preprocess.size, config.model.patch_size), axes_of(config.model)
    b, device = len(micro.model_input.ct_volume), micro.model_input.ct_volume.device
    n, m, dropout = grid.z * grid.in_slab, 1 + config.model.num_regions, config.model.attn_dropout
    patches, memory = (_tokens(config, b, count, device) for count in (n, m))
    streams = _heads(config, patches), _heads(config, memory)
    bias = log_occupancy(_occupancy(config, micro))
    slab, along_z = (model.vision_encoder.blocks[axes.index(axis)] for axis in ("slab", "z"))
    assert isinstance(along_z, Block)
    by_distance = along_z.distance_bias
    assert by_distance is not None
    return {
        "slab blocks": ("slab", lambda: slab(patches, memory, grid, bias)),
        "z blocks": ("z", lambda: along_z(patches, memory, grid, bias)),
        "attention within slabs": ("slab", lambda: [attend_in_slab(*streams, grid, dropout)]),
        "attention along z": ("z", lambda: [attend_along_z(*streams, grid, by_distance, dropout)]),
        "region attention": ("all", lambda: [attend_from_memory(*streams, bias, dropout)]),
    }


def _tokens(config: Config, batch: int, count: int, device: torch.device) -> Tensor:
    return torch.randn(batch, count, config.model.embed_dim, device=device).requires_grad_()


def _heads(config: Config, tokens: Tensor) -> QueryKeyValue:
    """Queries, keys and values as a block's linear map leaves them: views of one tensor, in the step's precision."""
    joined = torch.cat([tokens.detach()] * 3, -1).to(DTYPES[config.training.precision]).requires_grad_()
    q, k, v = joined.unflatten(-1, (3, config.model.num_heads, -1)).unbind(2)
    return q, k, v


def _occupancy(config: Config, micro: MicroBatch) -> Tensor:
    mask = micro.model_input.segmentation_mask
    assert mask is not None
    return pool_occupancy(mask, config.model.patch_size, 1 + config.model.num_regions)


def made_up_batch(config: Config, count: int) -> Batch:
    """Scans as a loader hands them over, each with every augmentation."""
    size, table = config.preprocess.size, load_region_table()
    tokenizer = ReportTokenizer(train_small_tokenizer(["The lungs are clear. No effusion."], 200), 64)
    shape = np.broadcast_to(body(size).numpy(), size)
    voxels = (shape * 1100 - 1024).astype(np.int16)
    labels = np.zeros(size, np.uint8)
    prepared = Prepared(voxels_hu=voxels, labels=labels, spacing_mm=(5.0, 0.7, 0.7), kind="volume", precision="int16")
    change = Change(flip=True, angles_rad=(0.1, 0.05, 0.05), shift=0.05, noise_sigma=0.01)
    report = tokenizer.encode_text("The lungs are clear.", table)
    return collate([Sample(str(i), prepared, report, change) for i in range(count)], tokenizer.pad_id)
