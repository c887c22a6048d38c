"""Two processes with gloo: the gradient of one process, and one decision for all."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, nn

from tiny import NO_DROPOUT, chosen_of, random_pairs, rows_of, tiny_config, tiny_model
from vlm3d_ct.distributed import (
    any_rank,
    from_main_rank,
    gather,
    gather_objects,
    process_group,
    replicate,
    sum_over_ranks,
    world_size,
)
from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.objectives import ContrastiveObjective
from vlm3d_ct.training.keeper import Keeper
from vlm3d_ct.training.nonfinite import explain_skip
from vlm3d_ct.training.optimizer import build_optimizer
from vlm3d_ct.training.resume import find_start
from vlm3d_ct.training.saver import Saver
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
    dropout: bool = False


GLOBAL_ONLY = ("objective.region_weight=0", "objective.occupancy_weight=0")
REGION_ONLY = ("objective.global_weight=0", "objective.occupancy_weight=0")
REASONING = ("objective.reasoning_weight=0.5",)
REASONING_ONLY = (*REASONING, *GLOBAL_ONLY, "objective.global_weight=0")
SENTENCE = (
    "objective.sentence_weight=0.5",
    "objective.sentence_region_weight=0.4",
    "text.attention=sentence",
    "text.pooling=mean",
)
NAIVE = ("training.accumulation=naive",)
UNEVEN = (True, True, True, True, False, False, False, True)
SCENARIOS = {
    "global loss": Scenario(GLOBAL_ONLY),
    "region loss": Scenario(REGION_ONLY),
    "all losses, masks missing on one rank": Scenario(masks=UNEVEN),
    "no mask at all on one rank": Scenario(masks=(True,) * 4 + (False,) * 4),
    "accumulated": Scenario(accumulation=2, masks=UNEVEN),
    "accumulated naively": Scenario(NAIVE, accumulation=2, masks=UNEVEN),
    "accumulated and recomputed but for products": Scenario(("training.gradient_checkpointing=cheap",), accumulation=4),
    "accumulated and recomputed": Scenario(("training.gradient_checkpointing=true",), accumulation=4),
    "single steps": Scenario(REASONING, masks=UNEVEN),
    "single steps alone, accumulated": Scenario((*REASONING_ONLY, "model.depth=6"), accumulation=2),
    "single steps of slices, dropout": Scenario(REASONING, slices=True, dropout=True),
    "sentences and their opposites": Scenario(SENTENCE, masks=UNEVEN),
    "sentences and their opposites, accumulated": Scenario(SENTENCE, accumulation=2, dropout=True),
    "a last block along z": Scenario(("model.depth=6",)),
    "slices": Scenario(slices=True),
    "slices accumulated": Scenario(slices=True, accumulation=2),
    "dropout": Scenario(masks=UNEVEN, dropout=True),
    "dropout, accumulated": Scenario(masks=UNEVEN, accumulation=2, dropout=True),
    "dropout, slices": Scenario(slices=True, dropout=True),
}


def pairs_of(scenario: Scenario) -> MicroBatch:
    """The same eight pairs in every process; the second half mentions fewer regions."""
    pairs = random_pairs(tiny_config(*scenario.overrides), 8, slices=scenario.slices)
    if not scenario.slices:
        pairs.model_input.mask_given = torch.tensor(scenario.masks)
    pairs.model_input.region_tokens[4:, 5:] = False
    pairs.targets.mentions = pairs.model_input.region_tokens.any(-1)
    return pairs


def take_step(scenario: Scenario, rank: int, ranks: int) -> tuple[dict[str, Tensor], StepLosses]:
    """This rank's gradients after a step over its share of the pairs, as the trainer takes it."""
    dropout = () if scenario.dropout else NO_DROPOUT
    config = tiny_config(*dropout, "training.gradient_checkpointing=false", *scenario.overrides)
    module, objective = tiny_model(config).train(), ContrastiveObjective(config.objective)
    model: nn.Module = replicate(module, CPU)
    share, pairs = 8 // ranks, pairs_of(scenario)
    # one process takes one large batch; with dropout the micro-batches of both ranks, each under its own seed
    size = 4 // scenario.accumulation if ranks > 1 or scenario.dropout else share
    starts = range(rank * share, (rank + 1) * share, size)
    micro_batches = [rows_of(pairs, start, start + size, seed=start // size) for start in starts]
    accumulation, size = config.training.accumulation, 4 // scenario.accumulation
    if accumulation == "naive" and ranks == 1:  # what both ranks contrast at a time, as one micro-batch
        firsts = [list(range(start, start + size)) for start in range(0, 4, size)]
        micro_batches = [chosen_of(pairs, [*rows, *(row + 4 for row in rows)], seed=0) for rows in firsts]
    backward(model, objective, micro_batches, accumulation=accumulation)
    for parameter in (*module.parameters(), *objective.parameters()):
        parameter.grad = None
    losses = backward(
        model, objective, micro_batches, accumulation=accumulation
    )  # refused if a parameter took no part in the first step
    assert objective.logit_scale.grad is not None
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    gradients["temperature"] = sum_over_ranks(objective.logit_scale.grad) / world_size()
    return gradients, losses


def weights_after(rank: int, bad_step: str | None, precision: str) -> dict[str, Any]:
    """Four steps, with or without a bad one on rank 1 in their midst, and what was decided at it.

    Args:
        rank: of this process.
        bad_step: ``nan`` in a volume, an ``overflow`` of this rank's scaled gradient, or None to leave the step out.
        precision: of the training.
    """
    config = tiny_config(*NO_DROPOUT, f"training.precision={precision}")
    module, objective = tiny_model(config).train(), ContrastiveObjective(config.objective)
    scaler = torch.amp.GradScaler("cpu", enabled=precision == "fp16", growth_interval=1000)
    parameters = [*module.parameters(), *objective.parameters()]
    update = Update(parameters, build_optimizer((module, objective), config.training), scaler, 1.0)
    model, decisions = replicate(module, CPU), []
    for step in (0, 1, 2, 3, 4):
        if step == 2 and bad_step is None:
            continue
        own = random_pairs(config, 2, seed=10 * step + rank)
        scale = update.loss_scale()
        if step == 2 and rank == 1:
            if bad_step == "nan":
                own.model_input.ct_volume[0, 0, 0, 0, 0] = torch.nan
            else:
                scale = scale * 1e38  # of this rank's loss only: its gradient overflows
        losses = backward(model, objective, [own], precision=precision, loss_scale=scale)
        assert objective.logit_scale.grad is not None
        objective.logit_scale.grad = sum_over_ranks(objective.logit_scale.grad) / world_size()
        _, taken = update(1e-3)
        decisions.append([taken, float(update.loss_scale()), bool(losses.total.isfinite())])
    return {"weights": [p.detach().clone() for p in parameters], "decisions": decisions}


def explain(rank: int) -> dict[str, Any]:
    """What both ranks are told about a step whose second case on rank 1 has a NaN, and about one without a fault."""
    config = tiny_config(*NO_DROPOUT)
    module, objective = tiny_model(config).train(), ContrastiveObjective(config.objective)
    model = replicate(module, CPU)
    own = random_pairs(config, 2, seed=rank)
    names = [[f"case_{rank}_0", f"case_{rank}_1"]]
    losses = backward(model, objective, [own])
    fine = explain_skip(model, [own], names, losses, "fp32")
    if rank == 1:
        own.model_input.ct_volume[1, 0, 3, 3, 3] = torch.inf
    losses = backward(model, objective, [own])
    bad = explain_skip(model, [own], names, losses, "fp32")
    return {"fine": [fine.cause, *fine.case_ids], "bad": [bad.cause, *bad.case_ids]}


def leave(rank: int, folder: Path) -> dict[str, list[str]]:
    """What a rank raises when rank 0 cannot save: a state that is not to be pickled, a folder that is a file."""
    found: dict[str, list[str]] = {}
    (folder / "file").touch()
    for name, output_dir, state in (("bug", folder, {"f": lambda: 0}), ("disk", folder / "file", {"step": 1})):
        for act in ("save", "rehearse"):
            saver = Saver(Keeper(output_dir, keep_best=1, keep_last=1), every_minutes=0)
            try:
                if act == "save":
                    saver.save(state if rank == 0 else {}, 1, None)
                    saver.settle()
                else:
                    saver.rehearse(state if rank == 0 else {})
            except Exception as error:
                found[f"{name} {act}"] = [type(error).__name__, str(error)]
    return found


def start_apart(rank: int, folder: Path) -> list[str]:
    """What a rank raises when rank 0 alone finds a checkpoint that it cannot read."""
    output_dir = folder / f"run_{rank}"
    output_dir.mkdir()
    resume = output_dir / "before.pth"
    if rank == 0:
        resume.write_bytes(b"damaged")
    try:
        find_start(tiny_config(), output_dir, resume if rank == 0 else None)
    except Exception as error:
        return [type(error).__name__, str(error)]
    return []


def find_once(rank: int) -> list[str]:
    """What both ranks are given of what each would find for itself, and what they raise where rank 0 finds nothing."""

    def fail() -> str:
        raise DataError(Problem(code="c", file="f", field="x", value="y", message="gone", remedy="look"))

    found = [from_main_rank(lambda: f"of rank {rank}"), from_main_rank(lambda: f"of rank {rank}", timedelta(hours=1))]
    try:
        from_main_rank(fail)
    except Exception as error:
        found += [type(error).__name__, str(error)]
    return found


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
            "nan": weights_after(rank, "nan", "fp32"),
            "fp32": weights_after(rank, None, "fp32"),
            "overflow": weights_after(rank, "overflow", "fp16"),
            "explained": explain(rank),
            "gathered": gather(torch.full((2,), float(rank))),
            "objects": gather_objects(f"rank {rank}"),
            "left": leave(rank, Path(folder)),
            "started": start_apart(rank, Path(folder)),
            "once": find_once(rank),
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


def test_after_a_nan_on_one_rank_the_weights_are_those_of_a_run_without_that_step(ranks: list[dict[str, Any]]):
    for found in ranks:
        taken = [decision[0] for decision in found["nan"]["decisions"]]
        assert taken == [True, True, False, True, True]
        assert not found["nan"]["decisions"][2][2]
        for poisoned, clean in zip(found["nan"]["weights"], found["fp32"]["weights"], strict=True):
            assert torch.equal(poisoned, clean)


def test_an_overflow_on_one_rank_makes_both_skip_and_halve_the_same_scale(ranks: list[dict[str, Any]]):
    first, second = (found["overflow"] for found in ranks)
    # the loss itself was finite: only the scaled gradient of one rank was not
    assert first["decisions"] == second["decisions"]
    before, at, after = first["decisions"][1:4]
    assert (before[0], at, after[0]) == (True, [False, before[1] / 2, True], True)
    assert after[1] == at[1]
    for mine, other in zip(first["weights"], second["weights"], strict=True):
        assert torch.equal(mine, other)


def test_the_case_to_blame_is_named_on_all_ranks(ranks: list[dict[str, Any]]):
    for found in ranks:
        assert found["explained"]["bad"] == ["input", "case_1_1"]
        assert found["explained"]["fine"] == ["gradient", "case_0_0", "case_0_1", "case_1_0", "case_1_1"]


def test_gathers_keep_the_order_of_the_ranks_and_agreements_agree(ranks: list[dict[str, Any]]):
    for found in ranks:
        assert found["gathered"].tolist() == [0.0, 0.0, 1.0, 1.0]
        assert found["objects"] == ["rank 0", "rank 1"]
        assert found["any"] == [True, False, True]


def test_a_rank_that_cannot_read_its_checkpoint_ends_both_with_its_reason(ranks: list[dict[str, Any]]):
    (kind, text), (other_kind, other_text) = (found["started"] for found in ranks)
    assert (kind, other_kind) == ("CheckpointError", "ConfigError")
    assert text == other_text
    assert "before.pth" in text


def test_what_rank_0_finds_both_ranks_have(ranks: list[dict[str, Any]]):
    first, second = (found["once"] for found in ranks)
    assert first[:2] == second[:2] == ["of rank 0", "of rank 0"]
    assert (first[2], second[2]) == ("DataError", "ConfigError")
    assert first[3] == second[3]
    assert "gone" in first[3]


@pytest.mark.parametrize("act", ["save", "rehearse"])
def test_whatever_keeps_rank_0_from_saving_both_ranks_leave_together_and_say_it(act: str, ranks: list[dict[str, Any]]):
    first, second = (found["left"] for found in ranks)
    (kind, text), (other_kind, other_text) = first[f"bug {act}"], second[f"bug {act}"]
    assert "pickle" in text
    assert (other_kind, other_text) == ("RuntimeError", f"rank 0 failed: {text}")
    assert kind != "ConfigError"  # a bug is not the user's: exit code 1, with its traceback
    assert first[f"disk {act}"] == second[f"disk {act}"]
    assert first[f"disk {act}"][0] == "ConfigError"
    assert "bytes cannot be written: " in first[f"disk {act}"][1]
