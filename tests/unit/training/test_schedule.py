"""The learning rate: a pure function of the step."""

from __future__ import annotations

import math

import pytest

from vlm3d_ct.training.schedule import learning_rate


def rate(step: int, *, warmup: float = 10, total: int = 101) -> float:
    return learning_rate(step, peak=1e-4, floor=1e-6, warmup_steps=float(warmup), total_steps=total)


def test_warm_up_rises_linearly_from_above_zero():
    assert [rate(step) / 1e-4 for step in range(10)] == pytest.approx([(step + 1) / 11 for step in range(10)])


def test_the_peak_follows_the_warm_up_and_the_floor_is_the_last_step():
    assert rate(10) == pytest.approx(1e-4)
    assert rate(100) == pytest.approx(1e-6)
    assert max(rate(step) for step in range(101)) == rate(10)


def test_in_between_it_is_half_a_cosine():
    assert rate(55) == pytest.approx((1e-4 + 1e-6) / 2)
    assert rate(40) == pytest.approx(1e-6 + (1e-4 - 1e-6) * (1 + math.cos(math.pi / 3)) / 2)
    falling = [rate(step) for step in range(10, 101)]
    assert falling == sorted(falling, reverse=True)


def test_without_warm_up_it_starts_at_the_peak():
    assert rate(0, warmup=0) == pytest.approx(1e-4)


@pytest.mark.parametrize(("warmup", "total"), [(0, 1), (5, 5), (7.5, 20), (50, 10)])
def test_it_stays_between_zero_and_the_peak_for_every_length(warmup: float, total: int):
    for step in range(total):
        assert 0 < rate(step, warmup=warmup, total=total) <= 1e-4
