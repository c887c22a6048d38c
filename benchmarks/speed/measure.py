"""One measurement in a process of its own, so that its peak memory is its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch
from made_up import made_up_pairs
from torch import Tensor

from speed.cases import Case
from speed.clock import lap, median_laps, peak_gib
from vlm3d_ct.config import Config
from vlm3d_ct.models import VisionEncoder, VisionLanguageModel, build_vision_encoder, rebuild
from vlm3d_ct.models.flops import step_flops, vision_flops
from vlm3d_ct.objectives import ContrastiveObjective
from vlm3d_ct.training.optimizer import build_optimizer
from vlm3d_ct.training.step import MicroBatch, Update, embed


@dataclass(frozen=True)
class Row:
    """What was measured of a case; without ``seconds`` where it did not fit into the memory.

    Attributes:
        case: which.
        seconds: of forward pass (with the losses, where it trains), backward pass and optimizer; medians.
        gib: peak memory.
        flops: by the formulas, for the share of the patches that is read.
        read: that share.
    """

    case: Case
    seconds: list[float]
    gib: float
    flops: int
    read: float


DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def measure_apart(case: Case, base: Config, bert_json: str, device_name: str, repetitions: int) -> Row:
    """Measure in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measure, case, base, bert_json, device_name, repetitions).result()
        except torch.OutOfMemoryError:
            return Row(case, [], 0.0, 0, 0.0)


def measure(case: Case, base: Config, bert_json: str, device_name: str, repetitions: int) -> Row:
    """Measure in this process, with fresh inputs for every repetition.

    Args:
        case: what.
        base: the configuration that its settings change.
        bert_json: the text encoder's configuration.
        device_name: ``cpu`` or ``cuda``.
        repetitions: beside a first one on a GPU, which chooses kernels, and of what is compiled.

    Raises:
        torch.OutOfMemoryError: the GPU has too little memory.
    """
    config, device = case.config(base), torch.device(device_name)
    torch.manual_seed(0)
    reads: list[Tensor] = []
    if case.trains:
        model = rebuild(config, bert_json).to(device).train()
        vision, parts_of = model.vision_encoder, _training_parts(model, config, device)
    else:
        vision = build_vision_encoder(config).to(device).eval()
        parts_of = _forward_part(vision, config, device)
    vision.register_forward_hook(lambda _module, _inputs, out: reads.append(out.read))
    first = int(device.type == "cuda" or config.training.compile)
    laps = [
        lap(device, parts_of(made_up_pairs(config, case.batch, device, seed=i))) for i in range(first + repetitions)
    ]
    share = float(reads[-1].float().mean())
    size = config.preprocess.size
    flops = (
        step_flops(config, bert_json, case.batch, size, config.text.max_len, share)
        if case.trains
        else case.batch * vision_flops(config.model, size, share)
    )
    return Row(case, median_laps(laps[first:]), peak_gib(device), flops, share)


PartsOf = Callable[[MicroBatch], list[Callable[[], None]]]
"""The pieces of work that are timed of a micro-batch."""


def _forward_part(vision: VisionEncoder, config: Config, device: torch.device) -> PartsOf:
    dtype = DTYPES[config.training.precision]

    def parts(micro: MicroBatch) -> list[Callable[[], None]]:
        def forward() -> None:
            with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                given = micro.model_input
                vision(given.ct_volume, given.segmentation_mask, given.mask_given, given.tissue)

        return [forward]

    return parts


def _training_parts(model: VisionLanguageModel, config: Config, device: torch.device) -> PartsOf:
    """A step as the trainer takes it, of one micro-batch, in three parts."""
    objective = ContrastiveObjective(config.objective).to(device)
    scaler = torch.amp.GradScaler(device.type, enabled=config.training.precision == "fp16")
    optimizer = build_optimizer((model, objective), config.training)
    parameters = [*model.parameters(), *objective.parameters()]
    update = Update(parameters, optimizer, scaler, config.training.gradient_clip)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    update.loss_scale()  # makes the scaler ready
    update(config.training.lr)  # the first update makes room for the moments

    def parts(micro: MicroBatch) -> list[Callable[[], None]]:
        losses: list[Tensor] = []

        def forward() -> None:
            embedded, occupancy = embed(model, micro, config.training.precision)
            found = objective(*embedded.tensors(), micro.targets).total
            share = config.objective.occupancy_weight / len(micro.model_input.mask_given)
            losses.append((found + share * occupancy) * update.loss_scale())

        def take_step() -> None:
            update(config.training.lr)

        return [forward, lambda: losses[0].backward(), take_step]

    return parts
