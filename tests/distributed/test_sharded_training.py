"""Two processes with gloo: a sharded model trains like a replicated one, and their checkpoints are the same thing."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import Tensor
from torch.distributed.tensor import DTensor

from tiny import NO_DROPOUT, random_pairs, rows_of, tiny_config, tiny_model, tiny_tokenizer
from vlm3d_ct.config import Config
from vlm3d_ct.distributed import barrier, process_group, sum_over_ranks, world_size
from vlm3d_ct.models import Built, VisionLanguageModel, build
from vlm3d_ct.objectives import ContrastiveObjective
from vlm3d_ct.training.gradients import gradient_norms, parts_of
from vlm3d_ct.training.optimizer import build_optimizer
from vlm3d_ct.training.sharding import Sharded, distribute, whole_model
from vlm3d_ct.training.state import gather_state, in_full, restore_optimizer
from vlm3d_ct.training.step import Update, backward

CPU = torch.device("cpu")
NUM_STEPS = 2
RATE = 1e-3
TOLERANCE = 1e-5
"""Relative to a gradient's norm: some hundred roundings of fp32 (6e-8). Both average two numbers, in one order or the
other; the norm that clips is a sum in another order."""
EPS = 1e-4
WEIGHT_TOLERANCE = NUM_STEPS * RATE * 1e-3
"""Adam moves a weight by at most about the rate a step. With this eps an error of 1e-7, the rounding of a gradient
clipped to norm 1, moves it by a thousandth of that even where the gradient is nothing but rounding (as that of the bias
of the keys is)."""


@dataclass(frozen=True)
class Scenario:
    """Steps of eight pairs: four a rank, in ``accumulation`` micro-batches."""

    overrides: tuple[str, ...] = ()
    accumulation: int = 1
    slices: tuple[bool, ...] = field(default=(False,) * NUM_STEPS)


SCENARIOS = {
    "plain": Scenario(),
    "accumulated": Scenario(accumulation=2),
    "accumulated naively": Scenario(("training.accumulation=naive",), accumulation=2),
    "recomputed, volumes and slices in turn": Scenario(
        ("training.gradient_checkpointing=true", "text.gradient_checkpointing=true"), 2, (False, True)
    ),
    "recomputed but for products": Scenario(("training.gradient_checkpointing=cheap",), accumulation=2),
    "sentences and their opposites": Scenario(
        (
            "objective.sentence_weight=1",
            "objective.sentence_region_weight=1",
            "text.attention=sentence",
            "text.pooling=mean",
        ),
        accumulation=2,
    ),
    "a last block along z": Scenario(("model.depth=6", "text.small_depth=2")),
    "bf16": Scenario(("training.precision=bf16",), accumulation=2),
    "a frozen BERT": Scenario(("text.frozen=true",), accumulation=2),
}


class Run:
    """What the trainer does with a model, without data and files."""

    def __init__(self, scenario: Scenario, strategy: str, saved: dict[str, Any] | None = None):
        self.scenario = scenario
        self.config: Config = tiny_config(
            *NO_DROPOUT,
            "training.gradient_checkpointing=false",
            f"training.eps={EPS}",
            *scenario.overrides,
            f"training.strategy={strategy}",
        )
        model = tiny_model(self.config).train()
        self.built = Built(model, tiny_tokenizer(), build(self.config, tiny_tokenizer()).bert_json)
        self.objective = ContrastiveObjective(self.config.objective)
        if saved is not None:
            model.load_state_dict(saved["model"])
            self.objective.load_state_dict(saved["objective"])
        self.model = distribute(model, self.config, CPU)
        self.parameters = [*model.parameters(), *self.objective.parameters()]
        self.optimizer = build_optimizer((model, self.objective), self.config.training)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.update = Update(self.parameters, self.optimizer, scaler, self.config.training.gradient_clip)
        if saved is not None:
            restore_optimizer(self.optimizer, saved["optimizer"])

    def step(self, number: int, rank: int) -> dict[str, Any]:
        pairs = random_pairs(self.config, 8, seed=number, slices=self.scenario.slices[number])
        size = 4 // self.scenario.accumulation
        own = [rows_of(pairs, start, start + size, seed=0) for start in range(4 * rank, 4 * rank + 4, size)]
        training = self.config.training
        losses = backward(
            self.model, self.objective, own, accumulation=training.accumulation, precision=training.precision
        )
        assert self.objective.logit_scale.grad is not None
        self.objective.logit_scale.grad = sum_over_ranks(self.objective.logit_scale.grad) / world_size()
        learning = {name: p for name, p in self.built.model.named_parameters() if p.requires_grad}
        gradients = {name: in_full(p.grad).clone() for name, p in learning.items()}
        parts = {name: float(norm) for name, norm in gradient_norms(parts_of(self.built.model, self.objective)).items()}
        norm, taken = self.update(RATE)
        return {
            "total": float(losses.total),
            "gradients": gradients,
            "norm": norm,
            "parts": parts,
            "taken": taken,
        }

    def run(self, rank: int, first: int = 0, last: int = NUM_STEPS) -> dict[str, Any]:
        steps = [self.step(number, rank) for number in range(first, last)]
        return {"steps": steps, "weights": in_full(self.built.model.state_dict())}


def hand_over(scenario: Scenario, strategies: tuple[str, str], rank: int, folder: Path) -> dict[str, Any]:
    """Half of the steps with one strategy, the rest with another from what a checkpoint holds."""
    before = Run(scenario, strategies[0])
    before.run(rank, 0, NUM_STEPS // 2)
    state = gather_state(before.built.model, before.optimizer)
    assert bool(state) == (rank == 0)
    file = folder / f"{'-'.join(strategies)}.pt"
    if rank == 0:
        torch.save({**state, "objective": before.objective.state_dict()}, file)
    barrier()
    return Run(scenario, strategies[1], torch.load(file, weights_only=True)).run(rank, NUM_STEPS // 2)


def skip_a_step(rank: int) -> dict[str, Any]:
    """A NaN on rank 1 only: what each rank decides, and whether its share of the weights is what it was."""
    run = Run(SCENARIOS["plain"], "fsdp")
    before = [p.detach().clone() for p in run.parameters]
    pairs = random_pairs(run.config, 2, seed=rank)
    if rank == 1:
        pairs.model_input.ct_volume[0, 0, 0, 0, 0] = torch.nan
    backward(run.model, run.objective, [pairs])
    _, taken = run.update(RATE)
    return {"taken": taken, "unchanged": all(map(torch.equal, map(local, before), map(local, run.parameters)))}


def local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def embed_wholly(rank: int) -> dict[str, Any]:
    """After a step: what the whole model embeds while the other rank embeds nothing, and how much this rank holds."""
    run = Run(SCENARIOS["plain"], "fsdp")
    run.step(0, rank)
    whole = whole_model(run.model, run.built, run.config, CPU)
    weights = whole.state_dict()
    embedded: tuple[Tensor, ...] = ()
    if rank == 1:
        with torch.inference_mode():
            embedded = whole.eval()(random_pairs(run.config, 3).model_input)[0].tensors()
    barrier()
    run.step(1, rank)  # the sharded model goes on
    held = sum(local(p).numel() for p in run.built.model.parameters())
    return {"weights": weights, "embedded": embedded, "held": held, "type": isinstance(run.model, Sharded)}


def run_rank(rank: int, port: int, folder: str) -> None:
    """What each of the two processes does."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with process_group(CPU):
        accumulated = SCENARIOS["accumulated"]
        found = {
            "runs": {
                (name, strategy): Run(scenario, strategy).run(rank)
                for name, scenario in SCENARIOS.items()
                for strategy in ("ddp", "fsdp")
            },
            "handed over": {
                strategies: hand_over(accumulated, strategies, rank, Path(folder))
                for strategies in (("ddp", "fsdp"), ("fsdp", "ddp"), ("fsdp", "fsdp"))
            },
            "skipped": skip_a_step(rank),
            "whole": embed_wholly(rank),
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


def assert_close(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Each within the tolerance of its norm; one that vanishes by its formula is judged by the size of the whole."""
    assert actual.keys() == expected.keys()
    whole = float(torch.cat([gradient.flatten() for gradient in expected.values()]).norm())
    for name, gradient in expected.items():
        allowed = tolerance * max(float(gradient.norm()), 0.01 * whole)
        assert float((actual[name] - gradient).norm()) <= allowed, name


def largest_difference(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    assert actual.keys() == expected.keys()
    return max(float((actual[name] - weight).abs().max()) for name, weight in expected.items())


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_sharded_model_takes_the_steps_of_a_replicated_one(name: str, ranks: list[dict[str, Any]]):
    for found in ranks:
        expected, actual = found["runs"][name, "ddp"], found["runs"][name, "fsdp"]
        assert len(actual["steps"]) == NUM_STEPS
        first = expected["steps"][0]
        assert_close(actual["steps"][0]["gradients"], first["gradients"], TOLERANCE)
        for one, other in zip(actual["steps"], expected["steps"], strict=True):
            assert one["taken"]
            assert other["taken"]
            assert one["total"] == pytest.approx(other["total"], rel=1e-4)
            assert one["norm"] == pytest.approx(other["norm"], rel=1e-3)
            assert one["parts"] == pytest.approx(other["parts"], rel=1e-3)
        assert largest_difference(actual["weights"], expected["weights"]) <= WEIGHT_TOLERANCE


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_the_norms_of_the_parts_make_up_the_norm_that_clips(name: str, strategy: str, ranks: list[dict[str, Any]]):
    for step in ranks[0]["runs"][name, strategy]["steps"]:
        assert set(step["parts"]) == {"vision_encoder", "text_encoder", "region_path", "temperature"}
        assert all(norm > 0 for part, norm in step["parts"].items() if part != "region_path")
        assert sum(norm**2 for norm in step["parts"].values()) ** 0.5 == pytest.approx(step["norm"], rel=1e-5)


def test_a_checkpoint_of_one_strategy_is_continued_by_the_other(ranks: list[dict[str, Any]]):
    for found in ranks:
        expected = found["runs"]["accumulated", "ddp"]
        for strategies, handed in found["handed over"].items():
            for one, other in zip(handed["steps"], expected["steps"][NUM_STEPS // 2 :], strict=True):
                assert one["total"] == pytest.approx(other["total"], rel=1e-4), strategies
            assert largest_difference(handed["weights"], expected["weights"]) <= WEIGHT_TOLERANCE, strategies


def test_both_ranks_end_with_the_same_weights_to_the_bit(ranks: list[dict[str, Any]]):
    for key, run in ranks[0]["runs"].items():
        assert largest_difference(ranks[1]["runs"][key]["weights"], run["weights"]) == 0.0, key


def test_a_nan_on_one_rank_makes_both_skip_the_step(ranks: list[dict[str, Any]]):
    assert [found["skipped"] for found in ranks] == [{"taken": False, "unchanged": True}] * 2


def test_a_rank_holds_its_share_and_embeds_with_the_whole_model_on_its_own(ranks: list[dict[str, Any]]):
    first, second = (found["whole"] for found in ranks)
    config = tiny_config(*NO_DROPOUT)
    everything = sum(p.numel() for p in tiny_model(config).parameters())
    assert first["type"]
    assert first["held"] + second["held"] == everything
    assert max(first["held"], second["held"]) < 0.52 * everything
    plain: VisionLanguageModel = tiny_model(config).eval()
    plain.load_state_dict(first["weights"])
    with torch.inference_mode():
        expected = plain(random_pairs(config, 3).model_input)[0].tensors()
    for one, other in zip(second["embedded"], expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
