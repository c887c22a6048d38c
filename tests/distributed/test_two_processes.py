"""Two processes with gloo: the gradient of one process, and one decision for all."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, nn

from tiny import NO_DROPOUT, random_pairs, rows_of, tiny_config, tiny_model
from vlm3d_ct.distributed import any_rank, gather, gather_objects, process_group, replicate, sum_over_ranks, world_size
from vlm3d_ct.objectives import ContrastiveObjective
from vlm3d_ct.training.optimizer import build_optimizer
from vlm3d_ct.training.step import MicroBatch, StepLosses, Update, backward

TOLERANCE = 1e-5
"""Relative to a gradient's norm: some hundred roundings of fp32 (6e-8)."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Scenario:
    """A step of eight pairs: four a rank, in ``accumulation`` micro-batches."""

    overrides: tuple[str, ...] = ()
    accumulation: int = 1
    masks: tuple[bool, ...] = (True,) * 8
    slices: bool = False


GLOBAL_ONLY = ("objective.region_weight=0", "objective.occupancy_weight=0")
REGION_ONLY = ("objective.global_weight=0", "objective.occupancy_weight=0")
UNEVEN = (True, True, True, True, False, False, False, True)
SCENARIOS = {
    "global loss": Scenario(GLOBAL_ONLY),
    "region loss": Scenario(REGION_ONLY),
    "all losses, masks missing on one rank": Scenario(masks=UNEVEN),
    "no mask at all on one rank": Scenario(masks=(True,) * 4 + (False,) * 4),
    "accumulated": Scenario(accumulation=2, masks=UNEVEN),
    "accumulated and recomputed": Scenario(("training.gradient_checkpointing=true",), accumulation=4),
    "a last block along z": Scenario(("model.depth=6",)),
    "slices": Scenario(slices=True),
    "slices accumulated": Scenario(slices=True, accumulation=2),
}


def pairs_of(scenario: Scenario) -> MicroBatch:
    """The same eight pairs in every process; the second half mentions fewer regions."""
    pairs = random_pairs(tiny_config(), 8, slices=scenario.slices)
    if not scenario.slices:
        pairs.model_input.mask_given = torch.tensor(scenario.masks)
    pairs.model_input.region_tokens[4:, 5:] = False
    return replace(pairs, mentions=pairs.model_input.region_tokens.any(-1))


def take_step(scenario: Scenario, rank: int, ranks: int) -> tuple[dict[str, Tensor], StepLosses]:
    """This rank's gradients after a step over its share of the pairs, as the trainer takes it."""
    config = tiny_config(*NO_DROPOUT, "training.gradient_checkpointing=false", *scenario.overrides)
    module, objective = tiny_model(config).train(), ContrastiveObjective(config.objective)
    model: nn.Module = replicate(module, CPU)
    share, pairs = 8 // ranks, pairs_of(scenario)
    size = share // scenario.accumulation if ranks > 1 else share
    starts = range(rank * share, (rank + 1) * share, size)
    micro_batches = [rows_of(pairs, start, start + size, seed=0) for start in starts]
    backward(model, objective, micro_batches)
    for parameter in (*module.parameters(), *objective.parameters()):
        parameter.grad = None
    losses = backward(model, objective, micro_batches)  # refused if a parameter took no part in the first step
    assert objective.logit_scale.grad is not None
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    gradients["temperature"] = sum_over_ranks(objective.logit_scale.grad) / world_size()
    return gradients, losses


def skip_a_step(rank: int) -> dict[str, Any]:
    """A NaN on rank 1 only: what each rank decides, and how far its weights are from where they were."""
    config = tiny_config(*NO_DROPOUT)
    module, objective = tiny_model(config).train(), ContrastiveObjective(config.objective)
    update = Update(
        [*module.parameters(), *objective.parameters()],
        build_optimizer((module, objective), config.training),
        torch.amp.GradScaler("cpu", enabled=False),
        1.0,
    )
    before = [p.detach().clone() for p in module.parameters()]
    own = random_pairs(config, 2, seed=rank)
    if rank == 1:
        own.model_input.ct_volume[0, 0, 0, 0, 0] = torch.nan
    backward(replicate(module, CPU), objective, [own])
    _, taken = update(1e-3)
    unchanged = all(torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))
    return {"taken": taken, "unchanged": unchanged}


def run_rank(rank: int, port: int, folder: str) -> None:
    """What each of the two processes does."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with process_group(CPU):
        steps = {}
        for name, scenario in SCENARIOS.items():
            gradients, losses = take_step(scenario, rank, 2)
            steps[name] = {"gradients": gradients, "losses": vars(losses)}
        found = {
            "steps": steps,
            "skipped": skip_a_step(rank),
            "gathered": gather(torch.full((2,), float(rank))),
            "objects": gather_objects(f"rank {rank}"),
            "any": [any_rank(flag, CPU) for flag in (rank == 1, False, True)],
        }
    torch.save(found, Path(folder) / f"{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What both processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(run_rank, args=(port, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", SCENARIOS)
def test_two_processes_give_the_one_process_gradient(name: str, ranks: list[dict[str, Any]]):
    expected, losses = take_step(SCENARIOS[name], 0, 1)
    whole = torch.cat([gradient.flatten() for gradient in expected.values()]).norm()
    for found in ranks:
        actual = found["steps"][name]["gradients"]
        assert actual.keys() == expected.keys()
        for parameter, gradient in expected.items():
            allowed = TOLERANCE * max(float(gradient.norm()), 0.01 * float(whole))
            assert float((actual[parameter] - gradient).norm()) <= allowed, parameter
        for field, value in found["steps"][name]["losses"].items():
            assert float(value) == pytest.approx(float(getattr(losses, field)), rel=1e-5, abs=1e-7), field


@pytest.mark.parametrize("name", SCENARIOS)
def test_both_ranks_hold_the_same_gradient_to_the_bit(name: str, ranks: list[dict[str, Any]]):
    first, second = (found["steps"][name]["gradients"] for found in ranks)
    for parameter, gradient in first.items():
        assert torch.equal(gradient, second[parameter]), parameter


def test_the_scenarios_reach_every_part(ranks: list[dict[str, Any]]):
    gradients = ranks[1]["steps"]["all losses, masks missing on one rank"]["gradients"]
    for part in ("vision_encoder.blocks", "text_encoder.bert", "region_proj", "occupancy_head", "temperature"):
        assert any(part in name and gradient.any() for name, gradient in gradients.items()), part


def test_a_nan_on_one_rank_makes_both_skip_the_step(ranks: list[dict[str, Any]]):
    assert [found["skipped"] for found in ranks] == [{"taken": False, "unchanged": True}] * 2


def test_gathers_keep_the_order_of_the_ranks_and_agreements_agree(ranks: list[dict[str, Any]]):
    for found in ranks:
        assert found["gathered"].tolist() == [0.0, 0.0, 1.0, 1.0]
        assert found["objects"] == ["rank 0", "rank 1"]
        assert found["any"] == [True, False, True]
