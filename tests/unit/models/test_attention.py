"""The three attentions against one dense attention over all tokens with an explicit mask."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vlm3d_ct.models import attention
from vlm3d_ct.models.attention import (
    QueryKeyValue,
    attend,
    attend_along_z,
    attend_by_distance,
    attend_from_memory,
    attend_in_slab,
)
from vlm3d_ct.models.patches import Grid

GRID = Grid(3, 2, 2)
HEADS, WIDTH, MEMORY, CASES = 2, 4, 5, 2
NUM_PATCHES = GRID.z * GRID.in_slab


def streams(requires_grad: bool = False) -> tuple[QueryKeyValue, QueryKeyValue]:
    random = torch.Generator().manual_seed(3)

    def make(tokens: int) -> QueryKeyValue:
        q, k, v = (
            torch.randn(CASES, tokens, HEADS, WIDTH, generator=random).requires_grad_(requires_grad) for _ in "qkv"
        )
        return q, k, v

    return make(NUM_PATCHES), make(MEMORY)


def dense(queries: Tensor, patches: QueryKeyValue, memory: QueryKeyValue, bias: Tensor) -> Tensor:
    """Softmax attention of (b, q, h, e) queries to memory and patches, one query and one head at a time.

    ``bias`` is (b, h, q, memory + patches); -inf forbids.
    """
    keys, values = (torch.cat((memory[i], patches[i]), dim=1) for i in (1, 2))
    out = torch.zeros_like(queries)
    for case in range(queries.shape[0]):
        for head in range(HEADS):
            for query in range(queries.shape[1]):
                scores = keys[case, :, head] @ queries[case, query, head] / math.sqrt(WIDTH) + bias[case, head, query]
                out[case, query, head] = scores.softmax(0) @ values[case, :, head]
    return out.flatten(2)


def slab_of(patch: int) -> int:
    return patch // GRID.in_slab


def allowed_bias(allowed: Tensor) -> Tensor:
    """(CASES, HEADS, patches, memory + patches) zeros where a patch may look, memory always."""
    bias = torch.zeros(CASES, HEADS, NUM_PATCHES, MEMORY + NUM_PATCHES)
    bias[..., MEMORY:].masked_fill_(~allowed, -torch.inf)
    return bias


def test_a_dense_block_lets_a_patch_see_everything():
    patches, memory = streams()
    everywhere = allowed_bias(torch.ones(NUM_PATCHES, NUM_PATCHES, dtype=torch.bool))
    expected = dense(patches[0], patches, memory, everywhere)
    torch.testing.assert_close(attend_in_slab(patches, memory, Grid(1, GRID.z * GRID.y, GRID.x), 0.0), expected)


def test_a_patch_sees_its_slab_and_the_memory_only():
    patches, memory = streams()
    slab = torch.arange(NUM_PATCHES) // GRID.in_slab
    expected = dense(patches[0], patches, memory, allowed_bias(slab[:, None] == slab[None, :]))
    torch.testing.assert_close(attend_in_slab(patches, memory, GRID, 0.0), expected)


@pytest.mark.parametrize(("queries", "keys"), [(4, 25), (16, 37), (63, 64), (64, 64), (70, 130)])
def test_half_precision_agrees_with_single_on_short_and_long_sequences(queries: int, keys: int):
    random = torch.Generator().manual_seed(5)
    shapes = [(3, 2, queries, 8), (3, 2, keys, 8), (3, 2, keys, 8), (1, 2, queries, keys)]
    exact = [torch.randn(shape, generator=random).requires_grad_() for shape in shapes]
    half = [part.detach().bfloat16().requires_grad_() for part in exact]
    of_exact = attend(exact[0], exact[1], exact[2], bias=exact[3])
    of_half = attend(half[0], half[1], half[2], bias=half[3])
    assert of_half.dtype == torch.bfloat16
    direction = torch.randn(of_exact.shape, generator=random)
    of_exact.backward(direction)
    of_half.backward(direction.bfloat16())
    # a few roundings to 8 bits of scores up to about 5, and of sums of weights
    for whole, rounded in zip([of_exact, *(p.grad for p in exact)], [of_half, *(p.grad for p in half)], strict=True):
        assert whole is not None
        assert rounded is not None
        assert (rounded.float() - whole).norm() < 0.03 * whole.norm()


def test_a_patch_sees_its_column_with_a_bias_by_distance_and_the_memory():
    patches, memory = streams()
    place = torch.arange(NUM_PATCHES) % GRID.in_slab
    bias = allowed_bias(place[:, None] == place[None, :])
    distance_bias = torch.randn(HEADS, 2, generator=torch.Generator().manual_seed(4))  # distance 2 takes the last one
    for head in range(HEADS):
        for query in range(NUM_PATCHES):
            for key in range(NUM_PATCHES):
                distance = abs(slab_of(query) - slab_of(key))
                bias[:, head, query, MEMORY + key] += distance_bias[head, min(distance, 1)]
    expected = dense(patches[0], patches, memory, bias)
    torch.testing.assert_close(attend_along_z(patches, memory, GRID, distance_bias, 0.0), expected)


def test_literal_attention_sees_everything_with_a_bias_by_distance():
    patches, memory = streams()
    by_distance = torch.randn(HEADS, 2, generator=torch.Generator().manual_seed(4))  # a distance of 2 counts as 1
    bias = torch.zeros(CASES, HEADS, NUM_PATCHES, MEMORY + NUM_PATCHES)
    for query in range(NUM_PATCHES):
        for key in range(NUM_PATCHES):
            bias[:, :, query, MEMORY + key] = by_distance[:, min(1, abs(slab_of(query) - slab_of(key)))]
    expected = dense(patches[0], patches, memory, bias)
    torch.testing.assert_close(attend_by_distance(patches, memory, GRID, by_distance, 0.0), expected)


def test_the_fast_paths_are_literal_attention_where_it_sees_no_more_than_they_do():
    patches, memory = streams()
    column, slabs = Grid(NUM_PATCHES, 1, 1), torch.tensor([0.0, -torch.inf, -torch.inf]).expand(HEADS, -1)
    by_distance = torch.randn(HEADS, 5, generator=torch.Generator().manual_seed(4))
    literal = attend_by_distance(patches, memory, column, by_distance, 0.0)
    torch.testing.assert_close(attend_along_z(patches, memory, column, by_distance, 0.0), literal)
    literal = attend_by_distance(patches, memory, GRID, slabs, 0.0)
    torch.testing.assert_close(attend_in_slab(patches, memory, GRID, 0.0), literal)


def test_a_memory_token_sees_the_memory_and_the_patches_through_its_bias():
    patches, memory = streams()
    region_bias = torch.randn(CASES, MEMORY, NUM_PATCHES, generator=torch.Generator().manual_seed(5))
    region_bias[0, 1] = -torch.inf  # an absent region
    region_bias[1, 2, ::2] = -torch.inf
    full = torch.cat((torch.zeros(CASES, MEMORY, MEMORY), region_bias), dim=2)[:, None].expand(-1, HEADS, -1, -1)
    expected = dense(memory[0], patches, memory, full)
    result = attend_from_memory(patches, memory, region_bias, 0.0)
    torch.testing.assert_close(result, expected)
    assert result.isfinite().all()
    free = torch.zeros(CASES, HEADS, MEMORY, MEMORY + NUM_PATCHES)
    torch.testing.assert_close(attend_from_memory(patches, memory, None, 0.0), dense(memory[0], patches, memory, free))


def forward_and_gradients(which: str, dropout: float) -> list[Tensor]:
    patches, memory = streams(requires_grad=True)
    if which == "slab":
        out = attend_in_slab(patches, memory, GRID, dropout)
    elif which == "z":
        out = attend_along_z(patches, memory, GRID, torch.ones(HEADS, 3), dropout)
    else:
        out = attend_from_memory(patches, memory, torch.zeros(CASES, MEMORY, NUM_PATCHES), dropout)
    out.square().sum().backward()
    return [out, *(t.grad for t in (*patches, *memory) if t.grad is not None)]


@pytest.mark.parametrize("which", ["slab", "z", "memory"])
@pytest.mark.parametrize("scores_at_a_time", [1, 200, 2**24])
def test_a_vanishing_dropout_changes_neither_the_result_nor_the_gradient(
    which: str, scores_at_a_time: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(attention, "SCORES_IN_MEMORY", scores_at_a_time)
    # 1e-9 takes the path that draws weights to drop, and drops none of them
    for dropped, plain in zip(forward_and_gradients(which, 1e-9), forward_and_gradients(which, 0.0), strict=True):
        torch.testing.assert_close(dropped, plain)


def test_dropout_removes_the_wanted_share_of_the_weights_and_scales_the_rest():
    # value = identity: the result is the matrix of the attention weights itself
    tokens = 64
    query = key = torch.zeros(3, 2, tokens, tokens)
    value = torch.eye(tokens).expand(3, 2, -1, -1)
    torch.manual_seed(0)
    weights = attend(query, key, value, dropout=0.25)
    kept = weights > 0
    assert float((~kept).float().mean()) == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / weights.numel()))
    torch.testing.assert_close(weights[kept], torch.full_like(weights[kept], 1 / tokens / 0.75))
    assert not torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[0, 0], kept[0, 1])


def test_dropout_keeps_the_expectation():
    random = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(1, 1, 6, 4, generator=random) for _ in range(3))
    bias = torch.randn(1, 1, 6, 6, generator=random)
    torch.manual_seed(2)
    many = torch.cat([attend(query, key, value, bias=bias, dropout=0.2) for _ in range(3000)])
    plain = attend(query, key, value, bias=bias)
    standard_error = many.std(0) / math.sqrt(len(many))
    assert ((many.mean(0) - plain[0]).abs() < 5 * standard_error).all()


def test_dropout_draws_the_same_weights_again_in_the_backward_pass():
    random = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(2, 1, 8, 4, generator=random, dtype=torch.float64) for _ in range(3))
    value.requires_grad_()
    torch.manual_seed(7)
    out = attend(query, key, value, dropout=0.5)
    (gradient,) = torch.autograd.grad(out.sum(), value)
    # the result is linear in the values, so the gradient must give it back
    torch.testing.assert_close((gradient * value).sum(), out.sum())


def test_the_same_seed_drops_the_same_weights():
    random = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(2, 1, 8, 4, generator=random) for _ in range(3))
    results = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        results.append(attend(query, key, value, dropout=0.5))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("shared_bias", [True, False])
def test_a_batch_too_large_for_the_fused_kernel_is_split(shared_bias: bool, monkeypatch: pytest.MonkeyPatch):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(7, 2, 5, 4, generator=generator) for _ in range(3))
    bias = torch.randn(1 if shared_bias else 7, 2, 5, 5, generator=generator)
    whole, without = attend(query, key, value, bias=bias), attend(query, key, value)
    monkeypatch.setattr(attention, "LARGEST_FUSED_BATCH", 3)
    sizes, fused = [], functional.scaled_dot_product_attention

    def noted(*arguments: Tensor, **more: object) -> Tensor:
        sizes.append(len(arguments[0]))
        return fused(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(functional, "scaled_dot_product_attention", noted)
    assert torch.equal(attend(query, key, value, bias=bias), whole)
    assert torch.equal(attend(query, key, value), without)
    assert sizes == [3, 3, 1] * 2
