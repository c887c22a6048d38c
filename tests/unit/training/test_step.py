"""The step: accumulation gives the gradient of one graph, dropout included, and what is not finite is not taken."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tiny import NO_DROPOUT, random_pairs, rows_of, tiny_config, tiny_model
from vlm3d_ct.config import Config
from vlm3d_ct.objectives import ContrastiveObjective, Targets
from vlm3d_ct.training.optimizer import build_optimizer
from vlm3d_ct.training.step import MicroBatch, Update, backward

GLOBAL_ONLY = ("objective.region_weight=0", "objective.occupancy_weight=0")
REGION_ONLY = ("objective.global_weight=0", "objective.occupancy_weight=0")
REASONING_ONLY = ("objective.reasoning_weight=0.5", "objective.global_weight=0", *GLOBAL_ONLY)
SENTENCE = (
    "objective.sentence_weight=0.5",
    "objective.sentence_region_weight=0.4",
    "text.attention=sentence",
    "text.pooling=mean",
)
SENTENCE_ONLY = (*SENTENCE, "objective.global_weight=0", *GLOBAL_ONLY)
OBJECTIVES = [GLOBAL_ONLY, REGION_ONLY, (), REASONING_ONLY, SENTENCE_ONLY]
TOLERANCE = 1e-5
"""Relative to a gradient's norm: some hundred roundings of fp32 (6e-8)."""


def setup(config: Config) -> tuple[nn.Module, ContrastiveObjective]:
    return tiny_model(config).train(), ContrastiveObjective(config.objective)


def gradients(model: nn.Module, objective: ContrastiveObjective) -> dict[str, Tensor]:
    named = [*model.named_parameters(), ("temperature", objective.logit_scale)]
    return {name: parameter.grad for name, parameter in named if parameter.grad is not None}


def assert_close(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    assert "temperature" in expected
    whole = torch.cat([gradient.flatten() for gradient in expected.values()]).norm()
    for name, gradient in expected.items():
        # a parameter whose gradient vanishes analytically is judged by the size of the whole
        allowed = TOLERANCE * max(float(gradient.norm()), 0.01 * float(whole))
        assert float((actual[name] - gradient).norm()) <= allowed, name


def split(pairs: MicroBatch, sizes: tuple[int, ...]) -> list[MicroBatch]:
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [rows_of(pairs, end - size, end, seed=100 + end) for size, end in zip(sizes, ends, strict=True)]


def one_graph(
    model: nn.Module, objective: ContrastiveObjective, micro_batches: list[MicroBatch]
) -> tuple[dict[str, Tensor], float]:
    """The gradient of the whole step's loss with all micro-batches in one graph, each under its own seed."""
    parts, occupancy, masks = [], torch.zeros(()), 0
    for micro in micro_batches:
        torch.manual_seed(micro.seed)
        embedded, occupancy_sum = model(micro.model_input)
        parts.append(embedded.tensors())
        occupancy = occupancy + occupancy_sum
        masks += int(micro.model_input.mask_given.sum())
    targets = Targets(
        *(torch.cat(column) for column in zip(*(m.targets.tensors() for m in micro_batches), strict=True))
    )
    losses = objective(*(torch.cat(column) for column in zip(*parts, strict=True)), targets)
    total = losses.total + objective.config.occupancy_weight * occupancy / max(1, masks)
    total.backward()
    return gradients(model, objective), float(total.detach())


@pytest.mark.parametrize("overrides", OBJECTIVES, ids=["global", "region", "plan", "reasoning", "sentence"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_accumulation_with_dropout_gives_the_gradient_of_one_graph(overrides: tuple[str, ...], checkpointing: bool):
    config = tiny_config(*overrides, f"training.gradient_checkpointing={checkpointing}")
    assert config.model.dropout == config.model.attn_dropout == config.model.mask_dropout == 0.1
    micro_batches = split(random_pairs(config, 6), (3, 3))
    micro_batches[1].model_input.mask_given = torch.tensor([True, False, False])
    expected, loss = one_graph(*setup(config), micro_batches)
    model, objective = setup(config)
    report = backward(model, objective, micro_batches)
    assert_close(gradients(model, objective), expected)
    assert float(report.total) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("overrides", OBJECTIVES, ids=["global", "region", "plan", "reasoning", "sentence"])
@pytest.mark.parametrize("slices", [False, True])
def test_without_dropout_accumulation_gives_the_gradient_of_one_large_batch(overrides: tuple[str, ...], slices: bool):
    config = tiny_config(*NO_DROPOUT, *overrides)
    pairs = random_pairs(config, 8, slices=slices)
    model, objective = setup(config)
    whole = backward(model, objective, [pairs])
    expected = gradients(model, objective)
    for sizes in ((4, 4), (2, 2, 2, 2)):
        model, objective = setup(config)
        report = backward(model, objective, split(pairs, sizes))
        assert_close(gradients(model, objective), expected)
        for field in (
            "total",
            "global_loss",
            "region_loss",
            "reasoning_loss",
            "sentence_loss",
            "sentence_region_loss",
            "occupancy_loss",
        ):
            assert float(getattr(report, field)) == pytest.approx(float(getattr(whole, field)), rel=1e-5, abs=1e-7)


def test_all_pairs_of_the_step_are_negatives():
    config = tiny_config(*NO_DROPOUT)
    pairs = random_pairs(config, 8)
    model, objective = setup(config)
    whole = backward(model, objective, split(pairs, (4, 4))).global_loss
    halves = [backward(model, objective, [half]).global_loss for half in split(pairs, (4, 4))]
    assert float(whole) > 1.2 * float(sum(halves)) / 2  # 7 negatives are harder than 3


def test_naive_accumulation_is_the_mean_of_the_micro_batches_own_gradients():
    config = tiny_config(*NO_DROPOUT)
    halves = split(random_pairs(config, 8), (4, 4))
    each = []
    for half in halves:
        model, objective = setup(config)
        backward(model, objective, [half])
        each.append(gradients(model, objective))
    expected = {name: (each[0][name] + each[1][name]) / 2 for name in each[0]}
    model, objective = setup(config)
    report = backward(model, objective, halves, accumulation="naive")
    assert_close(gradients(model, objective), expected)
    model, objective = setup(config)
    exact = backward(model, objective, halves)
    assert float(exact.global_loss) > 1.2 * float(report.global_loss)  # 7 negatives are harder than 3


def test_a_scaled_loss_gives_a_scaled_gradient():
    config = tiny_config(*NO_DROPOUT)
    pairs = random_pairs(config, 4)
    model, objective = setup(config)
    backward(model, objective, split(pairs, (2, 2)))
    expected = {name: 1024 * gradient for name, gradient in gradients(model, objective).items()}
    for micro_batches in (split(pairs, (2, 2)), [pairs]):
        model, objective = setup(config)
        report = backward(model, objective, micro_batches, loss_scale=1024.0)
        assert_close(gradients(model, objective), expected)
        assert float(report.total) < 100


def test_a_step_without_any_mask_or_mention_has_a_finite_gradient():
    config = tiny_config()
    pairs = random_pairs(config, 4)
    pairs.model_input.mask_given[:] = False
    pairs.model_input.region_tokens[:] = False
    pairs.targets.mentions[:] = False
    model, objective = setup(config)
    report = backward(model, objective, split(pairs, (2, 2)))
    assert float(report.region_loss) == 0.0
    assert float(report.occupancy_loss) == 0.0
    assert all(gradient.isfinite().all() for gradient in gradients(model, objective).values())
    assert len(gradients(model, objective)) == 1 + len(list(model.parameters()))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_stays_near_the_fp32_gradient(precision: str):
    config = tiny_config(*NO_DROPOUT)
    pairs = random_pairs(config, 4)
    model, objective = setup(config)
    backward(model, objective, [pairs])
    expected = torch.cat([gradient.flatten() for gradient in gradients(model, objective).values()])
    model, objective = setup(config)
    backward(model, objective, [pairs], precision=precision, loss_scale=1.0)
    actual = torch.cat([gradient.flatten() for gradient in gradients(model, objective).values()])
    assert float(torch.cosine_similarity(actual, expected, dim=0)) > 0.98


def make_update(config: Config, model: nn.Module, objective: ContrastiveObjective) -> Update:
    parameters = [*model.parameters(), *objective.parameters()]
    optimizer = build_optimizer((model, objective), config.training)
    scaler = torch.amp.GradScaler("cpu", enabled=config.training.precision == "fp16")
    return Update(parameters, optimizer, scaler, config.training.gradient_clip)


def state(model: nn.Module, objective: ContrastiveObjective) -> list[Tensor]:
    return [tensor.clone() for module in (model, objective) for tensor in module.state_dict().values()]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(("accumulation", "optimizer"), [(1, "adamw"), (2, "adamw"), (1, "muon")])
def test_a_volume_with_a_nan_is_skipped_and_leaves_the_weights_as_they_were(
    precision: str, accumulation: int, optimizer: str
):
    config = tiny_config(f"training.precision={precision}", f"training.optimizer={optimizer}")
    model, objective = setup(config)
    update = make_update(config, model, objective)
    sizes = (4 // accumulation,) * accumulation
    good = random_pairs(config, 4, seed=1)
    backward(model, objective, split(good, sizes), precision=precision, loss_scale=update.loss_scale())
    update(1e-3)  # so that the optimiser has a momentum that a step would follow
    before, scale = state(model, objective), float(update.loss_scale())
    bad = random_pairs(config, 4, seed=2)
    bad.model_input.ct_volume[2, 0, 1, 2, 3] = torch.nan
    backward(model, objective, split(bad, sizes), precision=precision, loss_scale=scale)
    norm, taken = update(1e-3)
    assert not taken
    assert not norm < float("inf")
    for old, new in zip(before, state(model, objective), strict=True):
        assert torch.equal(old, new)
    assert all(parameter.grad is None for parameter in update.parameters)
    assert float(update.loss_scale()) == (scale / 2 if precision == "fp16" else 1.0)
    backward(model, objective, split(good, sizes), precision=precision, loss_scale=update.loss_scale())
    assert update(1e-3)[1]
    assert not torch.equal(before[0], state(model, objective)[0])


def test_gradients_are_unscaled_and_clipped_to_the_norm():
    config = tiny_config("training.precision=fp16", "training.gradient_clip=0.5")
    weight = nn.Linear(3, 1, bias=False)
    update = make_update(config, weight, ContrastiveObjective(config.objective))
    factor = float(update.loss_scale())
    assert factor == 65536.0
    for parameter in update.parameters:
        parameter.grad = torch.zeros_like(parameter)
    weight.weight.grad = factor * torch.tensor([[3.0, 4.0, 0.0]])
    before = weight.weight.detach().clone()
    norm, taken = update(1e-2)
    assert taken
    assert norm == pytest.approx(5.0)
    (moment,) = [s["exp_avg"] for s in update.optimizer.state.values() if s["exp_avg"].shape == (1, 3)]
    torch.testing.assert_close(moment, 0.1 * torch.tensor([[0.3, 0.4, 0.0]]))  # (1 - beta1) x clipped gradient
    moved = before * (1 - 1e-2 * config.training.weight_decay) - weight.weight.detach()
    torch.testing.assert_close(moved, torch.tensor([[1e-2, 1e-2, 0.0]]), rtol=1e-4, atol=1e-7)


def test_biases_norms_and_the_temperature_do_not_decay():
    config = tiny_config()
    model, objective = setup(config)
    decayed, plain, temperature = build_optimizer((model, objective), config.training).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"], temperature["weight_decay"]) == (0.05, 0.0, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in plain["params"]} == {1}
    assert [p is objective.logit_scale for p in temperature["params"]] == [True]
    count = len(decayed["params"]) + len(plain["params"]) + 1
    assert count == len([*model.parameters(), *objective.parameters()])
    assert (decayed["betas"], decayed["eps"]) == ((0.9, 0.999), 1e-8)
