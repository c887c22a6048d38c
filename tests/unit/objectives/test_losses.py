"""The losses against literal values, naive loops, and the laws that they must keep."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vlm3d_ct.config import ObjectiveConfig
from vlm3d_ct.objectives import (
    ContrastiveObjective,
    Targets,
    global_loss,
    reasoning_loss,
    region_loss,
    sentence_loss,
    sentence_region_loss,
)

CASES, REGIONS, WIDTH = 5, 4, 6


def unit(*shape: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def softmax_share(logits: list[float], own: int) -> float:
    return -math.log(math.exp(logits[own]) / sum(math.exp(x) for x in logits))


def scale(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def test_the_global_loss_of_two_orthogonal_pairs():
    # similarities [[1, 0], [0, 1]] times ln 3: each softmax is 3 / (3 + 1)
    loss = global_loss(torch.eye(2), torch.eye(2), torch.tensor([math.log(3)]))
    assert float(loss) == pytest.approx(math.log(4 / 3))


def test_the_global_loss_of_a_literal_matrix():
    # similarities s[i][j] of volume i and text j: [[1, 0.6, 0], [0, 0.8, 1], [0.8, 0.48, 0]], times 1
    volume = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.8, 0, 0.6]])
    text = torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [0, 1, 0]])
    rows = [(1, 0.6, 0), (0, 0.8, 1), (0.8, 0.48, 0)]
    columns = list(zip(*rows, strict=True))
    expected = sum(softmax_share(list(line), i) for lines in (rows, columns) for i, line in enumerate(lines)) / 6
    assert float(global_loss(volume, text, torch.ones(1))) == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(1.0899247)


def test_the_global_loss_is_a_naive_loop_and_sees_no_order():
    volume, text = unit(CASES, WIDTH, seed=0), unit(CASES, WIDTH, seed=1)
    logits = (7 * volume @ text.T).tolist()
    both = [softmax_share(logits[i], i) for i in range(CASES)]
    both += [softmax_share([row[i] for row in logits], i) for i in range(CASES)]
    loss = global_loss(volume, text, scale(7))
    assert float(loss) == pytest.approx(sum(both) / (2 * CASES))
    assert float(global_loss(text, volume, scale(7))) == pytest.approx(float(loss))
    order = torch.tensor([3, 0, 4, 1, 2])
    assert float(global_loss(volume[order], text[order], scale(7))) == pytest.approx(float(loss))


def naive_region_loss(volume: Tensor, text: Tensor, mentions: Tensor, groups: Tensor, factor: float) -> float:
    """The region loss, pair by pair."""
    mentioned = [(i, r) for i in range(len(volume)) for r in range(volume.shape[1]) if mentions[i, r]]

    def contrast(own: tuple[int, int], rivals: list[tuple[int, int]]) -> float:
        candidates = [own, *rivals]
        of_volume = [factor * float(volume[own] @ text[other]) for other in candidates]
        of_text = [factor * float(text[own] @ volume[other]) for other in candidates]
        return (softmax_share(of_volume, 0) + softmax_share(of_text, 0)) / 2

    total = 0.0
    for i, r in mentioned:
        across = []
        for j in range(len(volume)):
            both_normal = groups[i, r] < 0 and groups[j, r] < 0
            if j != i and mentions[j, r] and groups[j, r] != groups[i, r] and not both_normal:
                across.append((j, r))
        within = [
            (i, other)
            for other in range(volume.shape[1])
            if other != r and mentions[i, other] and groups[i, other] != groups[i, r]
        ]
        total += (contrast((i, r), across) + contrast((i, r), within)) / 2
    return total / max(1, len(mentioned))


def region_inputs(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    mentions = torch.rand((CASES, REGIONS), generator=random) < 0.6
    groups = torch.randint(-3, 5, (CASES, REGIONS), generator=random)
    volume, text = unit(CASES, REGIONS, WIDTH, seed=10 + seed), unit(CASES, REGIONS, WIDTH, seed=20 + seed)
    return volume, text, mentions, groups


@pytest.mark.parametrize("seed", range(8))
def test_the_region_loss_is_a_naive_loop(seed: int):
    volume, text, mentions, groups = region_inputs(seed)
    loss = region_loss(volume, text, mentions, groups, scale(5))
    assert float(loss) == pytest.approx(naive_region_loss(volume, text, mentions, groups, 5.0))


def test_the_region_loss_sees_no_order_of_cases_or_regions():
    volume, text, mentions, groups = region_inputs(0)
    expected = float(region_loss(volume, text, mentions, groups, scale(5)))
    cases, regions = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([2, 0, 3, 1])
    for pick in ((cases,), (slice(None), regions)):
        shuffled = (volume[pick], text[pick], mentions[pick], groups[pick])
        assert float(region_loss(*shuffled, scale(5))) == pytest.approx(expected)


def test_what_is_not_mentioned_does_not_count():
    volume, text, mentions, groups = region_inputs(1)
    changed_volume, changed_text = volume.clone(), text.clone()
    changed_volume[~mentions], changed_text[~mentions] = 1.0, -1.0
    changed_groups = torch.where(mentions, groups, 99)
    assert float(region_loss(volume, text, mentions, groups, scale(5))) == pytest.approx(
        float(region_loss(changed_volume, changed_text, mentions, changed_groups, scale(5)))
    )


def test_a_text_is_no_rival_of_its_equal_and_normal_is_no_rival_of_normal():
    volume, text = unit(2, 1, WIDTH, seed=0), unit(2, 1, WIDTH, seed=1)
    mentions = torch.ones(2, 1, dtype=torch.bool)

    def loss(*groups: int) -> float:
        return float(region_loss(volume, text, mentions, torch.tensor(groups).view(2, 1), scale(5)))

    assert loss(4, 4) == 0.0  # without a rival there is nothing to tell apart
    assert loss(-4, -7) == 0.0
    assert loss(4, 7) > 0
    assert loss(4, -4) == pytest.approx(loss(4, 7))


def test_normal_regions_of_one_case_are_still_rivals_unless_their_text_is_one():
    volume, text = unit(1, 2, WIDTH, seed=0), unit(1, 2, WIDTH, seed=1)
    mentions = torch.ones(1, 2, dtype=torch.bool)
    different = region_loss(volume, text, mentions, torch.tensor([[-4, -7]]), scale(5))
    shared = region_loss(volume, text, mentions, torch.tensor([[-4, -4]]), scale(5))
    assert float(different) > 0
    assert float(shared) == 0.0


def test_without_any_mention_the_loss_is_zero_and_so_is_its_gradient():
    volume, text, mentions, groups = region_inputs(2)
    volume.requires_grad_()
    text.requires_grad_()
    loss = region_loss(volume, text, torch.zeros_like(mentions), groups, scale(5))
    loss.backward()
    assert float(loss.detach()) == 0.0
    for part in (volume, text):
        assert part.grad is not None
        assert not part.grad.any()


def test_the_gradient_is_finite_where_most_entries_are_masked():
    volume, text, mentions, groups = region_inputs(3)
    volume.requires_grad_()
    mentions[:, 1:] = False
    mentions[1:, 0] = False
    region_loss(volume, text, mentions, groups, scale(100)).backward()
    assert volume.grad is not None
    assert volume.grad.isfinite().all()


STEPS = 3


def step_inputs(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    groups = torch.randint(-3, 5, (CASES, STEPS), generator=random)  # 0, no step, among them
    places = torch.randint(1, 4, (CASES, STEPS), generator=random)
    volume, text = unit(CASES, STEPS, WIDTH, seed=30 + seed), unit(CASES, STEPS, WIDTH, seed=40 + seed)
    volume[1, 2] = volume[1, 0]  # of two steps that select the same patches
    volume[3, 0] = volume[1, 0]  # and of another case: a rival all the same
    return volume, text, groups, places


def naive_reasoning_loss(volume: Tensor, text: Tensor, groups: Tensor, places: Tensor, factor: float) -> float:
    """The step loss, pair by pair."""
    steps = [(i, s) for i in range(len(volume)) for s in range(volume.shape[1]) if groups[i, s] != 0]
    total = 0.0
    for own in steps:
        candidates = [own]
        for other in steps:
            normal = groups[own] < 0 and groups[other] < 0
            alike = own[0] == other[0] and torch.equal(volume[own], volume[other])
            excused = (places[own] == places[other] and normal) or alike
            if groups[own] != groups[other] and not excused:
                candidates.append(other)
        of_volume = [factor * float(volume[own] @ text[other]) for other in candidates]
        of_text = [factor * float(text[own] @ volume[other]) for other in candidates]
        total += (softmax_share(of_volume, 0) + softmax_share(of_text, 0)) / 2
    return total / max(1, len(steps))


@pytest.mark.parametrize("seed", range(8))
def test_the_reasoning_loss_is_a_naive_loop(seed: int):
    inputs = step_inputs(seed)
    assert float(reasoning_loss(*inputs, scale(5))) == pytest.approx(naive_reasoning_loss(*inputs, 5.0))


def test_what_is_no_step_does_not_count():
    volume, text, groups, places = step_inputs(1)
    assert (groups == 0).any()
    expected = float(reasoning_loss(volume, text, groups, places, scale(5)))
    volume[groups == 0], text[groups == 0], places[groups == 0] = 1.0, -1.0, 99
    assert float(reasoning_loss(volume, text, groups, places, scale(5))) == pytest.approx(expected)


def test_steps_that_cannot_be_told_apart_are_no_rivals():
    volume, text = unit(2, 2, WIDTH, seed=0), unit(2, 2, WIDTH, seed=1)

    def loss(groups: list[list[int]], places: list[list[int]]) -> float:
        return float(reasoning_loss(volume, text, torch.tensor(groups), torch.tensor(places), scale(5)))

    assert loss([[4, 4], [4, 4]], [[1, 2], [1, 2]]) == 0.0  # the same sentence
    assert loss([[4, 7], [0, 0]], [[1, 1], [1, 1]]) > 0
    alike = volume.clone()
    alike[0, 1] = alike[0, 0]
    groups, places = torch.tensor([[4, 7], [0, 0]]), torch.tensor([[1, 2], [1, 1]])
    assert float(reasoning_loss(alike, text, groups, places, scale(5))) == 0.0  # two of one case with the same features
    assert loss([[-4, 0], [-7, 0]], [[1, 1], [1, 1]]) == 0.0  # normal and normal of one place
    assert loss([[-4, 0], [-7, 0]], [[1, 1], [2, 1]]) > 0  # of two places
    assert loss([[4, 0], [7, 0]], [[1, 1], [1, 1]]) > 0  # two findings of two cases
    assert loss([[4, 0], [-7, 0]], [[1, 1], [1, 1]]) > 0  # a finding and its absence


def test_without_any_step_the_loss_is_zero_and_so_is_its_gradient():
    volume, text, groups, places = step_inputs(2)
    volume.requires_grad_()
    text.requires_grad_()
    for count in (0, STEPS):
        loss = reasoning_loss(
            volume[:, :count], text[:, :count], torch.zeros_like(groups)[:, :count], places[:, :count], scale(5)
        )
        loss.backward()
        assert float(loss.detach()) == 0.0
        assert volume.grad is not None
        assert not volume.grad.any()


def sentence_inputs(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    groups = torch.randint(-2, 4, (CASES, STEPS), generator=random)  # 0, none, among them
    turned = torch.rand((CASES, STEPS), generator=random) < 0.7
    shape = (CASES, STEPS, WIDTH)
    return unit(CASES, WIDTH, seed=4), unit(*shape, seed=50 + seed), unit(*shape, seed=60 + seed), groups, turned


def naive_sentence_loss(
    volume: Tensor, said: Tensor, denied: Tensor, groups: Tensor, turned: Tensor, factor: float
) -> float:
    """The sentence loss, pair by pair."""
    total, count = 0.0, 0
    for case in range(CASES):
        for number in range(said.shape[1]):
            group = int(groups[case, number])
            if group == 0 or not turned[case, number]:
                continue
            rivals = [other for other in range(CASES) if other != case and group not in groups[other].tolist()]
            query = said[case, number] - denied[case, number]
            logits = [factor * float(volume[one] @ query) for one in (case, *rivals)]
            total, count = total + softmax_share(logits, 0), count + 1
    return total / max(1, count)


@pytest.mark.parametrize("seed", range(8))
def test_the_sentence_loss_is_a_naive_loop(seed: int):
    inputs = sentence_inputs(seed)
    assert float(sentence_loss(*inputs, scale(5))) == pytest.approx(naive_sentence_loss(*inputs, 5.0))


def test_a_sentence_that_differs_from_its_opposite_in_nothing_is_a_guess():
    volume, said, _, groups, turned = sentence_inputs(0)
    own = torch.where(groups == 0, 0, torch.arange(1, 1 + groups.numel()).view_as(groups))
    assert float(sentence_loss(volume, said, said, own, turned, scale(5))) == pytest.approx(math.log(CASES))
    each = torch.eye(CASES, dtype=torch.float64)
    numbers = torch.arange(1, 1 + CASES)[:, None]
    found = sentence_loss(each, each[:, None], -each[:, None], numbers, numbers > 0, scale(20))
    assert float(found) < 1e-10


def test_a_sentence_that_all_reports_have_teaches_nothing_whether_or_not_they_have_its_opposite():
    volume, said, denied, groups, turned = sentence_inputs(1)
    assert turned.any()
    assert not turned.all()
    assert float(sentence_loss(volume, said, denied, torch.full_like(groups, 3), turned, scale(5))) == 0.0


def test_without_any_sentence_the_loss_is_zero_and_so_is_its_gradient():
    volume, said, denied, groups, turned = sentence_inputs(2)
    volume.requires_grad_()
    nothing = torch.zeros_like(groups)
    for count, numbers, used in ((0, nothing, turned), (STEPS, nothing, turned), (STEPS, groups, turned & False)):
        inputs = (said[:, :count], denied[:, :count], numbers[:, :count], used[:, :count])
        loss = sentence_loss(volume, *inputs, scale(5))
        loss.backward()
        assert float(loss.detach()) == 0.0
        assert volume.grad is not None
        assert not volume.grad.any()


def sentence_regions(seed: int) -> Tensor:
    """The regions that each sentence speaks of; some speak of none."""
    return torch.rand((CASES, STEPS, REGIONS), generator=torch.Generator().manual_seed(70 + seed)) < 0.4


def naive_sentence_region_loss(
    regions: Tensor, said: Tensor, denied: Tensor, spoken: Tensor, groups: Tensor, turned: Tensor, factor: float
) -> float:
    """The sentence loss against regions, pair by pair."""
    total, count = 0.0, 0
    for case in range(CASES):
        for number in range(said.shape[1]):
            group, own = int(groups[case, number]), spoken[case, number].nonzero()[:, 0].tolist()
            if group == 0 or not turned[case, number] or not own:
                continue
            rivals = [other for other in range(CASES) if other != case and group not in groups[other].tolist()]
            query = said[case, number] - denied[case, number]
            scores = [sum(float(regions[one, r] @ query) for r in own) / len(own) for one in (case, *rivals)]
            total, count = total + softmax_share([factor * score for score in scores], 0), count + 1
    return total / max(1, count)


@pytest.mark.parametrize("seed", range(8))
def test_the_sentence_loss_against_regions_is_a_naive_loop(seed: int):
    region_volume = region_inputs(seed)[0].double()
    _, said, denied, groups, turned = sentence_inputs(seed)
    inputs = (region_volume, said, denied, sentence_regions(seed), groups, turned)
    expected = naive_sentence_region_loss(*inputs, 5.0)
    assert expected > 0
    assert float(sentence_region_loss(*inputs, scale(5))) == pytest.approx(expected)


def test_a_sentence_that_speaks_of_no_region_teaches_no_region():
    region_volume = region_inputs(0)[0].double().requires_grad_()
    _, said, denied, groups, turned = sentence_inputs(0)
    loss = sentence_region_loss(region_volume, said, denied, sentence_regions(0) & False, groups, turned, scale(5))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert region_volume.grad is not None
    assert not region_volume.grad.any()


def losses(objective: ContrastiveObjective, seed: int = 0) -> tuple[float, ...]:
    """Total, and the loss of each level."""
    volume, text, mentions, groups = region_inputs(seed)
    step_volume, step_text, step_groups, step_places = step_inputs(seed)
    whole, said, denied, sentence_groups, turned = sentence_inputs(seed)
    result = objective(
        *(whole.float(), unit(CASES, WIDTH, seed=5).float()),
        *(volume, text, step_volume, step_text, said, denied, denied, said),
        Targets(mentions, groups, step_groups, step_places, sentence_groups, turned, sentence_regions(seed)),
    )
    return tuple(float(part.detach()) for part in vars(result).values())


def test_the_total_is_the_weighted_sum():
    total, of_volumes, of_regions, *_ = losses(ContrastiveObjective(ObjectiveConfig()))
    assert total == pytest.approx(1.0 * of_volumes + 0.5 * of_regions)
    weights = {"global": 0.25, "region": 2.0, "reasoning": 3.0, "sentence": 5.0, "sentence_region": 7.0}
    config = ObjectiveConfig(**{f"{level}_weight": weight for level, weight in weights.items()})
    total, *levels = losses(ContrastiveObjective(config))
    assert total == pytest.approx(sum(weight * loss for weight, loss in zip(weights.values(), levels, strict=True)))


def test_without_soft_targets_every_other_text_is_a_rival():
    config = ObjectiveConfig(reasoning_weight=1.0, soft_targets=False)
    volume, text, mentions, _ = region_inputs(3)
    step_volume, step_text, step_groups, _ = step_inputs(3)
    own = torch.arange(1, 1 + CASES * REGIONS).view(CASES, REGIONS)
    expected = naive_region_loss(volume, text, mentions, own, 1 / 0.07)
    steps = torch.arange(1, 1 + CASES * STEPS).view(CASES, STEPS)
    apart = torch.where(step_groups == 0, 0, steps)
    expected_steps = naive_reasoning_loss(step_volume, step_text, apart, steps, 1 / 0.07)
    whole, said, denied, sentence_groups, turned = sentence_inputs(3)
    own = torch.where(sentence_groups == 0, 0, torch.arange(1, 1 + CASES * STEPS).view(CASES, STEPS))
    expected_sentences = naive_sentence_loss(whole, said, denied, own, turned, 1 / 0.07)
    at_regions = naive_sentence_region_loss(volume, denied, said, sentence_regions(3), own, turned, 1 / 0.07)
    _, _, of_regions, of_steps, of_sentences, of_both = losses(ContrastiveObjective(config), seed=3)
    assert of_regions == pytest.approx(expected, rel=1e-5)
    assert of_steps == pytest.approx(expected_steps, rel=1e-5)
    assert of_sentences == pytest.approx(expected_sentences, rel=1e-5)
    assert of_both == pytest.approx(at_regions, rel=1e-5)
    assert of_regions > losses(ContrastiveObjective(ObjectiveConfig()), seed=3)[2]


def test_the_temperature_starts_as_planned_and_its_inverse_stops_at_100():
    objective = ContrastiveObjective(ObjectiveConfig())
    assert objective.logit_scale.shape == (1,)
    assert float(objective.scale.detach()) == pytest.approx(1 / 0.07)
    with torch.no_grad():
        objective.logit_scale.fill_(10.0)
    assert float(objective.scale.detach()) == pytest.approx(100.0)
    at_the_limit = losses(objective)
    objective.limit_scale()
    assert float(objective.scale.detach()) == pytest.approx(100.0)
    assert losses(objective) == pytest.approx(at_the_limit)


def test_the_temperature_can_leave_its_limit_again():
    objective = ContrastiveObjective(ObjectiveConfig())
    with torch.no_grad():
        objective.logit_scale.fill_(10.0)
    objective.limit_scale()
    objective.scale.sum().backward()
    assert objective.logit_scale.grad is not None
    assert float(objective.logit_scale.grad) == pytest.approx(100.0)


def test_the_temperature_learns():
    objective = ContrastiveObjective(ObjectiveConfig())
    volume, text, mentions, groups = region_inputs(0)
    whole = unit(CASES, WIDTH, seed=4).float()
    nothing, no_steps = whole.new_zeros(CASES, 0, WIDTH), torch.zeros(CASES, 0, dtype=torch.long)
    targets = Targets(mentions, groups, *[no_steps] * 3, no_steps.bool(), mentions[:, None][:, :0])
    objective(whole, whole, volume, text, *[nothing] * 6, targets).total.backward()
    assert objective.logit_scale.grad is not None
    assert float(objective.logit_scale.grad) != 0.0


def test_similarities_are_computed_in_fp32_under_autocast():
    objective = ContrastiveObjective(ObjectiveConfig())
    plain = losses(objective)
    with torch.autocast("cpu", torch.bfloat16):
        assert losses(objective) == plain
