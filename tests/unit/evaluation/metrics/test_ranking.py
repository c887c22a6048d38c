from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import coverage_error, label_ranking_average_precision_score, top_k_accuracy_score

from vlm3d_ct.evaluation.metrics import ranking
from vlm3d_ct.evaluation.metrics.ranking import (
    chance_recall,
    exact_cosines,
    label_only_recall,
    rank_pool,
    summarise,
    summarise_weighted,
)
from vlm3d_ct.seeding import random_stream

AT = (1, 5, 10, 50, 100)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def made_up(n: int, seed: int, *, noise: float = 1.0, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    stream = random_stream("ranking", seed)
    text = stream.normal(size=(n, width))
    return unit(text + noise * stream.normal(size=text.shape)), unit(text)


def naive_rank(row: list[float], own: int, ids: list[int]) -> int:
    best = max(value for value, item in zip(row, ids, strict=True) if item == ids[own])
    return 1 + sum(value >= best for value, item in zip(row, ids, strict=True) if item != ids[own])


def naive_ranks(volume: np.ndarray, text: np.ndarray, ids: np.ndarray) -> tuple[list[int], list[int]]:
    """With rational numbers: every cosine is exact."""
    scans, reports = ([[Fraction(float(x)) for x in row] for row in side] for side in (volume, text))
    cosine = [[sum(a * b for a, b in zip(v, t, strict=True)) for t in reports] for v in scans]
    rights = ids.tolist()
    return (
        [naive_rank(cosine[i], i, rights) for i in range(len(ids))],
        [naive_rank([row[i] for row in cosine], i, rights) for i in range(len(ids))],
    )


def naive_summary(ranks: list[int]) -> dict[str, float]:
    ordered, n = sorted(ranks), len(ranks)
    return {f"R@{k}": sum(rank <= k for rank in ranks) / n for k in AT} | {
        "MRR": math.fsum(1 / rank for rank in ranks) / n,
        "median_rank": (ordered[(n - 1) // 2] + ordered[n // 2]) / 2,
        "mean_rank": sum(ranks) / n,
    }


@settings(max_examples=60)
@given(st.integers(1, 14), st.integers(0, 10_000), st.sampled_from(["own", "several", "one"]), st.booleans())
def test_ranks_equal_a_naive_count_in_rational_numbers(n: int, seed: int, right: str, repeated: bool):
    volume, text = made_up(n, seed)
    stream = random_stream("repeated", seed)
    if repeated:  # equal embeddings must tie exactly
        volume, text = volume[stream.integers(0, n, n)], text[stream.integers(0, n, n)]
    ids = {"own": np.arange(n), "several": stream.integers(0, 4, n), "one": np.zeros(n, np.int64)}[right]
    found = rank_pool(volume, text, ids)
    by_volume, by_text = naive_ranks(volume, text, ids)
    assert found.volume_to_text.tolist() == by_volume
    assert found.text_to_volume.tolist() == by_text
    for name, value in summarise(found.volume_to_text).items():
        assert value == pytest.approx(naive_summary(by_volume)[name], abs=1e-9)


@pytest.mark.parametrize("repeated", [False, True])
def test_the_summary_equals_scikit_learn(repeated: bool):
    volume, text = made_up(150, 1, noise=2.0)
    if repeated:
        text[30:60] = text[0]
    ranks = rank_pool(volume, text, np.arange(150)).volume_to_text
    cosine = volume.astype(float) @ text.T.astype(float)
    if repeated:
        cosine[:, 30:60] = cosine[:, :1]
    truth = np.eye(150)
    summary = summarise(ranks, at=(1, 5, 10))
    assert summary["MRR"] == pytest.approx(label_ranking_average_precision_score(truth, cosine), abs=1e-9)
    assert summary["mean_rank"] == pytest.approx(coverage_error(truth, cosine), abs=1e-9)
    if not repeated:  # scikit-learn breaks ties by the order of the classes
        for k in (1, 5, 10):
            assert summary[f"R@{k}"] == pytest.approx(top_k_accuracy_score(np.arange(150), cosine, k=k), abs=1e-9)


def test_known_vectors_have_their_known_ranks():
    axes = np.eye(3, dtype=np.float32)
    volume = unit(np.array([[1, 0.1, 0], [0.9, 0.5, 0.6], [0, 0, 1]]))
    found = rank_pool(volume, axes, np.arange(3))
    assert found.volume_to_text.tolist() == [1, 3, 1]
    assert found.text_to_volume.tolist() == [1, 1, 1]
    ranks = np.array([1, 3, 1])
    assert summarise(ranks, at=(1, 5)) == {
        "R@1": pytest.approx(2 / 3),
        "R@5": 1.0,
        "MRR": pytest.approx((1 + 1 / 3 + 1) / 3),
        "median_rank": 1.0,
        "mean_rank": pytest.approx(5 / 3),
    }


def test_recall_counts_ties_against_us():
    volume, text = made_up(20, 3, noise=0.0)
    text[7] = text[3]
    ranks = rank_pool(volume, text, np.arange(20))
    assert (ranks.volume_to_text[3], ranks.text_to_volume[3]) == (2, 1)
    together = np.arange(20)
    together[7] = 3
    assert rank_pool(volume, text, together).volume_to_text[3] == 1


@pytest.mark.parametrize("n", [1, 40])
def test_a_collapsed_encoder_has_the_worst_rank(n: int):
    same = unit(np.ones((n, 8)) * 0.3)
    found = rank_pool(same, same, np.arange(n))
    assert (found.volume_to_text == n).all()
    assert (found.text_to_volume == n).all()


def test_a_nan_is_counted_against_us():
    volume, text = made_up(9, 5, noise=0.0)
    volume[4] = np.nan
    found = rank_pool(volume, text, np.arange(9))
    assert found.volume_to_text[4] == 9
    assert found.text_to_volume[4] == 9
    assert found.text_to_volume[0] == 2  # the scan of NaN is not below anything


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(ValueError, match="without cases"):
        rank_pool(np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="volume embedding of length 2"):
        rank_pool(2 * np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), np.arange(3))
    assert all(math.isnan(value) for value in summarise(np.zeros(0, np.int64)).values())


@pytest.mark.parametrize("right", ["own", "scan"])
def test_blocks_do_not_change_the_ranks(monkeypatch: pytest.MonkeyPatch, right: str):
    volume, text = made_up(67, 8, noise=2.0, width=96)
    text[10:40] = text[9]  # ties in every block
    ids = np.arange(67) if right == "own" else np.arange(67) // 3
    whole = rank_pool(volume, text, ids)
    for size in (1, 67 * 5, 67 * 40):
        monkeypatch.setattr(ranking, "BLOCK_ELEMENTS", size)
        other = rank_pool(volume, text, ids)
        np.testing.assert_array_equal(other.volume_to_text, whole.volume_to_text)
        np.testing.assert_array_equal(other.text_to_volume, whole.text_to_volume)


def test_cosines_are_exact_in_any_order():
    volume, text = made_up(50, 9, width=768)
    order = random_stream("order").permutation(768)
    np.testing.assert_array_equal(exact_cosines(volume, text), exact_cosines(volume[:, order], text[:, order]))
    plain = (volume.astype(float) * text.astype(float)).sum(axis=1)
    np.testing.assert_allclose(exact_cosines(volume, text), plain, rtol=0, atol=1e-7)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(0, 1000))
def test_a_weighted_summary_is_the_summary_of_the_repeated_cases(ranks: list[int], seed: int):
    weights = random_stream("weights", seed).integers(0, 4, size=(5, len(ranks))).astype(np.float64)
    weights[:, 0] += weights.sum(axis=1) == 0
    found = summarise_weighted(np.array(ranks), weights)
    for row, times in enumerate(weights.astype(int).tolist()):
        repeated = [rank for rank, count in zip(ranks, times, strict=True) for _ in range(count)]
        for name, value in naive_summary(repeated).items():
            assert found[name][row] == pytest.approx(value, abs=1e-9), name


def test_chance_is_the_mean_over_all_orders():
    groups = np.array([0, 0, 1, 2, 2])
    num_right = np.array([2, 2, 1, 2, 2])
    for k in (1, 2, 3, 5, 10):
        hits = [
            any(groups[item] == groups[query] for item in order[:k])
            for query in range(5)
            for order in itertools.permutations(range(5))
        ]
        assert chance_recall(5, k, num_right) == pytest.approx(np.mean(hits), abs=1e-12)


@given(st.integers(1, 3000), st.integers(1, 10))
def test_chance_of_one_right_item_is_k_of_n(n: int, k: int):
    assert chance_recall(n, k, np.ones(n, dtype=np.int64)) == pytest.approx(min(k, n) / n, abs=1e-12)


def test_labels_alone_find_a_case_among_those_with_equal_labels():
    labels = np.array([[1, 0], [1, 0], [0, 1], [1, 0], [1, 1]], dtype=bool)
    found = label_only_recall(labels, np.arange(5), at=(1, 2, 5))
    assert found == {
        "R@1": pytest.approx((3 * (1 / 3) + 1 + 1) / 5),
        "R@2": pytest.approx((3 * (2 / 3) + 1 + 1) / 5),
        "R@5": 1.0,
    }
    shared = label_only_recall(labels, np.array([0, 0, 1, 2, 3]), at=(1,))
    assert shared["R@1"] == pytest.approx((2 * (2 / 3) + 1 / 3 + 1 + 1) / 5)
