"""AdamW and Muon: which moves what, by how much, and the state that a checkpoint takes up again."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tiny import tiny_config, tiny_model
from vlm3d_ct.objectives import ContrastiveObjective
from vlm3d_ct.training.optimizer import MuonAndAdamW, build_optimizer, full_state_dict
from vlm3d_ct.training.state import restore_optimizer

MUON = tiny_config("training.optimizer=muon")


class Layers(nn.Module):
    """A stack of blocks between an embedding and a head, as both encoders have them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        for block in self.blocks:
            x = x + block(x).tanh()
        result: Tensor = self.head(x)
        return result


def take_step(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    values = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed))
    module(values).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def test_muon_moves_the_matrices_of_the_blocks_and_adamw_all_else():
    model, objective = tiny_model(MUON), ContrastiveObjective(MUON.objective)
    optimizer = build_optimizer((model, objective), MUON.training)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    *others, muon = optimizer.param_groups
    moved = {names[id(parameter)] for parameter in muon["params"]}
    expected = {
        name
        for name, parameter in model.named_parameters()
        if (".blocks." in name or ".encoder.layer." in name) and name.endswith(".weight") and parameter.ndim == 2
    }
    assert moved == expected
    assert "vision_encoder.blocks.0.query_key_value.weight" in moved
    counted = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(counted) == sorted(map(id, [*model.parameters(), *objective.parameters()]))
    assert {group["weight_decay"] for group in others} == {0.0, MUON.training.weight_decay}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_what_is_frozen_is_not_moved(optimizer: str):
    config = tiny_config(f"training.optimizer={optimizer}", "text.frozen=true")
    model = tiny_model(config)
    frozen = {id(parameter) for parameter in model.text_encoder.bert.parameters()}
    groups = build_optimizer((model, ContrastiveObjective(config.objective)), config.training).param_groups
    moved = {id(parameter) for group in groups for parameter in group["params"]}
    assert {id(parameter) for parameter in model.parameters()} - moved == frozen


def test_a_muon_step_is_nearly_orthogonal_and_as_large_as_an_adamw_step():
    config = tiny_config("training.optimizer=muon", "training.weight_decay=0").training
    module = Layers()
    optimizer = build_optimizer((module,), config)
    assert isinstance(optimizer, MuonAndAdamW)
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    weight = module.blocks[0].weight
    assert isinstance(weight, Tensor)
    before = weight.detach().clone()
    take_step(module, optimizer, seed=1)
    singular = torch.linalg.svdvals(before - weight.detach()) / (1e-2 * 0.2 * 8**0.5)
    # five rounds of the quintic bring every singular value of the gradient that is not tiny to 0.68 .. 1.13 (Jordan)
    assert ((singular > 0.6) & (singular < 1.2)).sum() >= 5  # the gradient of 5 cases has rank 5
    assert float(singular.max()) < 1.2


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_restored_optimizer_goes_on_to_the_bit(kind: str):
    config = tiny_config(f"training.optimizer={kind}").training
    module = Layers()
    optimizer = build_optimizer((module,), config)
    for seed in (1, 2):
        take_step(module, optimizer, seed)
    saved = copy.deepcopy(optimizer.state_dict())
    other = Layers()
    other.load_state_dict(module.state_dict())
    restored = build_optimizer((other,), config)
    restore_optimizer(restored, saved)
    for seed in (3, 4):
        take_step(module, optimizer, seed)
        take_step(other, restored, seed)
    for first, second in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_the_state_before_the_first_step_has_the_form_of_the_later_one(kind: str):
    module = Layers()
    optimizer = build_optimizer((module,), tiny_config(f"training.optimizer={kind}").training)
    before = full_state_dict(optimizer)
    take_step(module, optimizer, seed=1)
    after = full_state_dict(optimizer)
    form = [
        {number: {name: (entry.shape, entry.dtype) for name, entry in moments.items()} for number, moments in s.items()}
        for s in (before["state"], after["state"])
    ]
    assert form[0] == form[1]
    assert len(form[0]) == len([*module.parameters()])


def test_the_learning_rate_of_all_groups_is_that_of_the_schedule():
    module = Layers()
    optimizer = build_optimizer((module,), MUON.training)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    take_step(module, optimizer, seed=1)
    for old, new in zip(before, module.parameters(), strict=True):
        assert torch.equal(old, new)
