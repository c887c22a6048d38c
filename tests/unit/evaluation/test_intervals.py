"""Ratios of sums with intervals over patients equal what a loop over the samples gives."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vlm3d_ct.evaluation.intervals import mean_intervals, ratio_intervals
from vlm3d_ct.evaluation.metrics.bootstrap import interval, resample
from vlm3d_ct.seeding import random_stream

PATIENTS = [f"p{i // 3}" for i in range(30)]


def test_a_ratio_equals_a_loop_over_the_samples():
    stream = random_stream("ratios")
    above, below = stream.random(30), stream.integers(0, 4, 30).astype(np.float64)
    found = ratio_intervals({"r": (above, below)}, PATIENTS, num_samples=200, seed=5)["r"]
    samples = []
    for block in resample(PATIENTS, 200, 5):
        for weights in block:
            counted = [(w * a, w * b) for w, a, b in zip(weights, above, below, strict=True)]
            samples.append(sum(a for a, _ in counted) / sum(b for _, b in counted))
    estimate = float(above.sum() / below.sum())
    counting = {patient for patient, part in zip(PATIENTS, below, strict=True) if part}
    expected = interval(estimate, np.array(samples), len(counting))
    assert found.estimate == pytest.approx(estimate)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_all_ratios_see_the_same_samples_whatever_stands_beside_them():
    values = random_stream("values").random(30)
    sampling = {"num_samples": 50, "seed": 1, "differences": ("a", "b")}
    alone = mean_intervals({"a": values}, PATIENTS, **sampling)["a"]
    among = mean_intervals({"b": -values, "a": values}, PATIENTS, **sampling)
    assert vars(among["a"]) == pytest.approx(vars(alone))
    assert among["b"].low == pytest.approx(-alone.high)


def test_values_that_are_not_known_do_not_count():
    values = np.where(np.arange(30) < 9, 0.25, math.nan)
    found = mean_intervals({"a": values}, PATIENTS, num_samples=50, seed=0)["a"]
    assert (found.estimate, found.low, found.high) == (0.25, 0.25, 0.25)


def test_one_patient_has_no_interval_and_nothing_has_no_mean():
    one = np.where(np.arange(30) < 3, 0.25, math.nan)
    nothing = np.full(30, math.nan)
    found = mean_intervals({"one": one, "nothing": nothing}, PATIENTS, num_samples=50, seed=0)
    assert found["one"].estimate == 0.25
    assert math.isnan(found["one"].low)
    assert math.isnan(found["nothing"].estimate)
    assert math.isnan(found["nothing"].high)


def test_no_samples_give_no_interval():
    found = mean_intervals({"a": np.ones(30)}, PATIENTS, num_samples=0, seed=0)["a"]
    assert found.estimate == 1
    assert math.isnan(found.low)
