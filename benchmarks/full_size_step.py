"""Time and memory of the full-size vision encoder: a forward pass and a training step.

One volume of the plan's size (a larger batch with --batch_size), random weights, random voxels; bf16, activation
checkpointing, AdamW. The losses are the plan's, against random text embeddings: the text encoder is left out. Every
measurement runs in a process of its own, so that its peak memory is its own. Writes
benchmarks/results/full_size_step_<hardware>_<yyyymm>.md and prints it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import torch
import torch.nn.functional as F
from pages import RESULTS, hardware_name, result_path
from torch import Tensor

from vlm3d_ct.config import Config, config_from_mapping, config_to_mapping
from vlm3d_ct.models import VisionEncoder, build_vision_encoder
from vlm3d_ct.models.patches import pool_occupancy
from vlm3d_ct.objectives import ContrastiveObjective, Targets
from vlm3d_ct.training.optimizer import build_optimizer

REPETITIONS = {"cpu": 1, "cuda": 5}


@dataclass(frozen=True)
class Timing:
    """Median wall time, and how much of their time the cores worked for it.

    A `processor_share` (processor time against wall time times threads) is low where work is serial; lower than on an
    idle machine, it tells that other work was running and that the time says little.
    """

    seconds: float
    processor_share: float


@dataclass(frozen=True)
class Measurement:
    """One row of the table; memory is the peak of the process up to there.

    On a CPU that is the resident set with everything that Python and torch take, on a GPU what torch allocated.
    """

    device: str
    dropout: bool
    batch_size: int
    parameters: int
    forward: Timing
    forward_gib: float
    step: Timing
    step_gib: float
    repetitions: int


def without_dropout(config: Config) -> Config:
    """The configuration with both dropouts at 0."""
    overrides = ("model.dropout=0", "model.attn_dropout=0")
    return config_from_mapping(config_to_mapping(config), source="the defaults", overrides=overrides)


def measure(config: Config, device_name: str, batch_size: int) -> Measurement:
    """Measure one configuration in this process: first the forward pass in evaluation mode, then the training step."""
    device = torch.device(device_name)
    torch.manual_seed(0)
    encoder = build_vision_encoder(config).to(device)
    objective = ContrastiveObjective(config.objective).to(device)
    optimizer = build_optimizer((encoder, objective), config.training)
    volume = torch.rand(batch_size, len(config.model.windows), *config.preprocess.size, device=device)
    mask = _blocks_of_regions(config, batch_size).to(device)

    def forward() -> None:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
            encoder(volume, mask)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = _loss(encoder, objective, volume, mask)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), config.training.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    repetitions = REPETITIONS[device.type]
    encoder.eval()
    forward_timing, forward_gib = _timed(forward, device, repetitions), _peak_gib(device)
    encoder.train()
    step_timing, step_gib = _timed(step, device, repetitions), _peak_gib(device)
    return Measurement(
        device=device.type,
        dropout=config.model.attn_dropout > 0,
        batch_size=batch_size,
        parameters=sum(p.numel() for p in encoder.parameters()),
        forward=forward_timing,
        forward_gib=forward_gib,
        step=step_timing,
        step_gib=step_gib,
        repetitions=repetitions,
    )


def _blocks_of_regions(config: Config, batch_size: int) -> Tensor:
    """A mask of solid blocks, each one region, as in an anatomy; noise would put every region into every patch."""
    z, y, x = config.preprocess.size
    coarse = torch.randint(0, 1 + config.model.num_regions, (batch_size, 1, 4, 4, 4)).float()
    return F.interpolate(coarse, size=(z, y, x), mode="nearest").to(torch.uint8)


def _loss(encoder: VisionEncoder, objective: ContrastiveObjective, volume: Tensor, mask: Tensor) -> Tensor:
    """Global, region and occupancy loss with the plan's weights, against random text embeddings."""
    seen = encoder(volume, mask)
    of_volume = encoder.global_proj(seen.global_features)
    of_regions = encoder.region_proj(seen.region_features)
    text = F.normalize(torch.randn_like(of_volume), dim=-1)
    region_text = F.normalize(torch.randn_like(of_regions), dim=-1)
    mentions = torch.ones(of_regions.shape[:2], dtype=torch.bool, device=volume.device)
    groups = torch.arange(mentions.numel(), device=volume.device).view(mentions.shape)
    nothing, no_steps = of_volume[:, None][:, :0], groups[:, :0]
    targets = Targets(mentions, groups, *[no_steps] * 3, no_steps.bool(), mentions[:, None][:, :0])
    losses = objective(of_volume, text, of_regions, region_text, *[nothing] * 6, targets)
    target = pool_occupancy(mask, encoder.config.patch_size, 1 + encoder.config.num_regions)
    occupancy = F.cross_entropy(seen.occupancy_logits.transpose(1, 2), target.transpose(1, 2))
    total: Tensor = losses.total + objective.config.occupancy_weight * occupancy
    return total


def _timed(work: Callable[[], None], device: torch.device, repetitions: int) -> Timing:
    if device.type == "cuda":
        work()  # the first pass chooses kernels and fills the allocator
    seconds, worked = [], time.process_time()
    for _ in range(repetitions):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    share = (time.process_time() - worked) / sum(seconds) / torch.get_num_threads()
    return Timing(statistics.median(seconds), share)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def measure_all(configs: Sequence[Config], devices: Sequence[str], batch_size: int) -> list[Measurement]:
    """Every configuration on every device, one after the other, each in a fresh process."""
    measurements = []
    for device in devices:
        for config in configs:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                measurements.append(pool.submit(measure, config, device, batch_size).result())
    return measurements


def render(measurements: Sequence[Measurement], config: Config, hardware: str, day: datetime) -> str:
    """The page of results."""
    size = "x".join(map(str, config.preprocess.size))
    lines = [
        f"# Full-size step: {hardware}, {day:%Y-%m-%d}",
        "",
        f"`python benchmarks/full_size_step.py`, vlm3d-ct {version('vlm3d-ct')}, torch {torch.__version__}, "
        f"Python {platform.python_version()}, {torch.get_num_threads()} threads on the CPU.",
        f"Vision encoder of {measurements[0].parameters / 1e6:.2f} M parameters, volumes of {size}, bf16 autocast, "
        f"activation checkpointing {'on' if config.training.gradient_checkpointing else 'off'}. A step is forward, "
        "losses, backward, clipping and AdamW; the text encoder and the reading of data are not in it.",
        "Memory is the peak of the process (CPU, everything included) or of torch's allocations (GPU). In brackets: "
        "processor time against wall time times threads; it is low where work is serial or other work was running.",
        "",
        "| device | dropout | batch | forward | memory | training step | memory | repetitions |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(measurement) for measurement in measurements]
    return "\n".join(lines) + "\n"


def _row(m: Measurement) -> str:
    cells = [
        m.device,
        "as planned" if m.dropout else "none",
        str(m.batch_size),
        f"{m.forward.seconds:.2f} s ({m.forward.processor_share:.0%})",
        f"{m.forward_gib:.2f} GiB",
        f"{m.step.seconds:.2f} s ({m.step.processor_share:.0%})",
        f"{m.step_gib:.2f} GiB",
        str(m.repetitions),
    ]
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str]) -> None:
    """Measure on this machine's CPU and, where there is one, its GPU; write and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--no-dropout", action="store_true", help="leave out the rows with the plan's dropout (slow)")
    parser.add_argument("--batch_size", type=int, default=1, metavar="N", help="volumes (default: 1)")
    parsed = parser.parse_args(arguments)
    config = Config()
    configs = [without_dropout(config)] if parsed.no_dropout else [without_dropout(config), config]
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    day, hardware = datetime.now(UTC), hardware_name()
    text = render(measure_all(configs, devices, parsed.batch_size), config, hardware, day)
    path = result_path(RESULTS, "full_size_step", hardware, day)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"{text}\nwritten to {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
