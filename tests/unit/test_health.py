from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest

from vlm3d_ct.health import effective_rank, mean_cosine, measure_health, uniformity
from vlm3d_ct.seeding import random_stream


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_numbers_equal_their_definitions_pair_by_pair():
    stream = random_stream("health")
    volume, text = (unit(stream.normal(size=(15, 6)) + 0.5) for _ in range(2))
    found = measure_health(volume, text)
    pairs = list(permutations(range(15), 2))
    assert found.volume_mean_cosine == pytest.approx(np.mean([volume[i] @ volume[j] for i, j in pairs]), abs=1e-9)
    assert found.unmatched_cosine == pytest.approx(np.mean([volume[i] @ text[j] for i, j in pairs]), abs=1e-9)
    assert found.matched_cosine == pytest.approx(np.mean([volume[i] @ text[i] for i in range(15)]), abs=1e-9)
    spread = np.log(np.mean([np.exp(-2 * ((text[i] - text[j]) ** 2).sum()) for i, j in pairs]))
    assert found.text_uniformity == pytest.approx(spread, abs=1e-9)
    assert found.alignment == pytest.approx(np.mean(((volume - text) ** 2).sum(axis=1)), abs=1e-9)
    assert found.modality_gap == pytest.approx(np.linalg.norm(volume.mean(0) - text.mean(0)), abs=1e-9)
    values = np.linalg.svd(volume - volume.mean(0))[1]
    shares = values / values.sum()
    assert found.volume_effective_rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), abs=1e-9)


def test_known_spaces_have_their_known_health():
    axes = np.concatenate([np.eye(5), -np.eye(5)])  # no mean, five equal directions
    assert effective_rank(axes) == pytest.approx(5.0)
    assert mean_cosine(axes) == pytest.approx(-1 / 9)
    collapsed = unit(np.ones((8, 4)))
    assert effective_rank(collapsed) == 1.0
    assert mean_cosine(collapsed) == pytest.approx(1.0)
    assert uniformity(collapsed) == pytest.approx(0.0, abs=1e-9)
    line = np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert effective_rank(line) == pytest.approx(1.0)
    found = measure_health(axes, -axes)
    assert (found.alignment, found.modality_gap, found.matched_cosine) == (4.0, 0.0, -1.0)


def test_a_single_case_has_no_pairs():
    found = measure_health(np.eye(1, 4), np.eye(1, 4))
    assert math.isnan(found.volume_effective_rank)
    assert math.isnan(found.text_uniformity)
    assert math.isnan(found.unmatched_cosine)
    assert found.alignment == 0.0
