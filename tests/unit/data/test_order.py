"""Which cases a step sees: all of them, once, in an order that neither ranks nor workers nor interruptions change."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm3d_ct.data.order import MicroBatchOrder, epoch_order, steps_per_epoch
from vlm3d_ct.errors import ConfigError

KINDS = {"volume": list(range(22)), "slice": list(range(100, 109))}


def order(
    *, batch_size: int = 4, accumulation: int = 1, rank: int = 0, ranks: int = 1, first_step: int = 0, epochs: int = 3
) -> MicroBatchOrder:
    return MicroBatchOrder(
        KINDS,
        batch_size=batch_size,
        accumulation_steps=accumulation,
        rank=rank,
        world_size=ranks,
        seed=7,
        first_step=first_step,
        num_epochs=epochs,
    )


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_holds_every_case_once_and_fills_up_the_last_step(
    volumes: int, slices: int, batch: int, seed: int, epoch: int
):
    kinds = {"volume": list(range(volumes)), "slice": list(range(1000, 1000 + slices))}
    if min(volumes, slices) < batch:
        with pytest.raises(ConfigError, match=f"but a step contrasts {batch} of them"):
            epoch_order(kinds, batch, seed, epoch)
        return
    steps = epoch_order(kinds, batch, seed, epoch)
    assert len(steps) == steps_per_epoch(kinds, batch)
    counts = Counter(case for step in steps for case in step)
    assert set(counts) == {*kinds["volume"], *kinds["slice"]}
    repeated = sum(counts.values()) - len(counts)
    assert repeated == -volumes % batch + -slices % batch
    assert max(counts.values()) <= 2
    for step in steps:
        assert len(step) == batch == len(set(step))  # a case is never its own negative
        assert len({case >= 1000 for case in step}) == 1  # one kind a step


def test_kinds_are_interleaved_in_proportion():
    steps = epoch_order({"volume": list(range(80)), "slice": list(range(100, 140))}, 10, 0, 0)
    kinds = "".join("s" if step[0] >= 100 else "v" for step in steps)
    assert sorted(kinds) == sorted("v" * 8 + "s" * 4)
    assert all(group.count("s") == 1 for group in (kinds[i : i + 3] for i in range(0, 12, 3)))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [epoch_order(KINDS, 4, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert orders[0] == epoch_order(KINDS, 4, 0, 0)
    assert orders[0] != orders[1] != orders[2] != orders[0]


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "ranks"), [(8, 1, 1), (4, 1, 2), (4, 2, 1), (2, 2, 2), (1, 8, 1)]
)
def test_ranks_and_accumulation_share_the_same_global_steps(batch_size: int, accumulation: int, ranks: int):
    per_rank = [
        list(order(batch_size=batch_size, accumulation=accumulation, rank=rank, ranks=ranks)) for rank in range(ranks)
    ]
    assert len({len(batches) for batches in per_rank}) == 1
    steps = []
    for start in range(0, len(per_rank[0]), accumulation):
        micro_batches = [batch for batches in per_rank for batch in batches[start : start + accumulation]]
        assert all(len(batch) == batch_size for batch in micro_batches)
        steps.append([case for batch in micro_batches for case in batch])
    expected = [[(epoch, case) for case in step] for epoch in range(3) for step in epoch_order(KINDS, 8, 7, epoch)]
    assert steps == expected


@pytest.mark.parametrize("accumulation", [1, 2])
def test_resuming_at_any_step_gives_the_rest_of_the_order(accumulation: int):
    whole = list(order(batch_size=2, accumulation=accumulation))
    assert len(order(batch_size=2, accumulation=accumulation)) == len(whole)
    for step in range(len(whole) // accumulation + 1):
        rest = order(batch_size=2, accumulation=accumulation, first_step=step)
        assert list(rest) == whole[step * accumulation :]
        assert len(rest) == len(whole) - step * accumulation


def test_more_epochs_only_append():
    assert list(order(epochs=4))[: len(order(epochs=3))] == list(order(epochs=3))


def test_too_few_cases_for_a_step_are_refused_before_anything_is_trained():
    with pytest.raises(ConfigError, match=r"9 cases of kind 'slice', but a step contrasts 16.*training\.batch_size"):
        order(batch_size=8, ranks=2)


def test_training_on_nothing_is_refused():
    with pytest.raises(ConfigError, match="no case to train on"):
        epoch_order({}, 1, 0, 0)
