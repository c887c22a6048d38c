from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pools import make_pool, unit

from vlm3d_ct.errors import DataError
from vlm3d_ct.evaluation import retrieval
from vlm3d_ct.evaluation.retrieval import chance_recall, measure_retrieval, retrieval_metrics


def naive_rank(row: list[float], own: int, ids: list[int]) -> int:
    best = max(value for value, item in zip(row, ids, strict=True) if item == ids[own])
    return 1 + sum(value >= best for value, item in zip(row, ids, strict=True) if item != ids[own])


def test_a_literal_matrix_has_its_known_values():
    similarity = np.array([[0.9, 0.1, 0.2], [0.8, 0.3, 0.5], [0.4, 0.6, 0.7]])
    result = retrieval_metrics(similarity)
    assert result.image_to_text_ranks.tolist() == [1, 3, 1]
    assert result.text_to_image_ranks.tolist() == [1, 2, 1]
    assert result.image_to_text == {
        "R@1": pytest.approx(2 / 3),
        "R@5": 1.0,
        "R@10": 1.0,
        "MRR": pytest.approx((1 + 1 / 3 + 1) / 3),
        "median_rank": 1.0,
    }
    assert result.text_to_image["MRR"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert result.chance == {"R@1": 1 / 3, "R@5": 1.0, "R@10": 1.0}


def test_recall_counts_ties_against_us():
    similarity = np.array([[0.5, 0.5, 0.1], [0.0, 0.9, 0.1], [0.0, 0.2, 0.9]])
    assert retrieval_metrics(similarity).image_to_text_ranks.tolist() == [2, 1, 1]


@pytest.mark.parametrize("value", [0.0, 0.3, float("nan")])
def test_constant_similarities_give_the_worst_rank(value: float):
    result = retrieval_metrics(np.full((30, 30), value))
    assert (result.image_to_text_ranks == 30).all()
    assert (result.text_to_image_ranks == 30).all()
    assert result.image_to_text["R@10"] == 0.0


def test_a_collapsed_encoder_has_the_worst_rank():
    same = unit(np.ones((40, 8)) * 0.3)
    result = measure_retrieval(make_pool(40, volume=same, text=same))
    assert (result.image_to_text_ranks == 40).all()


def test_a_single_case_is_found():
    result = retrieval_metrics(np.array([[-0.2]]))
    assert result.image_to_text["R@1"] == result.chance["R@1"] == 1.0


def test_an_empty_pool_is_refused():
    with pytest.raises(DataError, match="empty-pool"):
        retrieval_metrics(np.zeros((0, 0)))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_ranks_equal_a_naive_count(data: st.DataObject):
    n = data.draw(st.integers(1, 9))
    values = st.sampled_from([-0.5, 0.0, 0.25, 0.5, 1.0])  # few values, so that ties are common
    similarity = np.array(data.draw(st.lists(st.lists(values, min_size=n, max_size=n), min_size=n, max_size=n)))
    groups = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    for duplicates, ids in (("own", list(range(n))), ("group", groups.tolist())):
        result = retrieval_metrics(similarity, text_groups=groups, duplicates=duplicates)
        assert result.image_to_text_ranks.tolist() == [naive_rank(similarity[i].tolist(), i, ids) for i in range(n)]
        assert result.text_to_image_ranks.tolist() == [naive_rank(similarity[:, i].tolist(), i, ids) for i in range(n)]
        assert result.duplicates == duplicates


def test_identical_texts_count_as_wrong_or_right_as_declared():
    pool = make_pool(20, noise=0.1)
    text = pool.text.copy()
    text[7] = text[3]
    groups = np.arange(20)
    groups[7] = 3
    pool = make_pool(20, noise=0.1, text=text, text_groups=groups)
    own, group = measure_retrieval(pool), measure_retrieval(pool, duplicates="group")
    assert own.num_shared_texts == group.num_shared_texts == 2
    assert own.image_to_text_ranks[3] == 2  # the identical text of case 7 ties
    assert group.image_to_text_ranks[3] == 1
    assert (group.image_to_text_ranks <= own.image_to_text_ranks).all()
    with pytest.raises(ValueError, match="text_groups"):
        retrieval_metrics(np.eye(3), duplicates="group")


@pytest.mark.parametrize("duplicates", ["own", "group"])
def test_blocks_do_not_change_the_ranks(monkeypatch: pytest.MonkeyPatch, duplicates: str):
    pool = make_pool(67, noise=2.0, text_groups=np.arange(67) // 3)
    whole = measure_retrieval(pool, duplicates=duplicates)
    similarity = (pool.volume.astype(float) @ pool.text.T.astype(float)).astype(np.float32)
    from_matrix = retrieval_metrics(similarity, text_groups=pool.text_groups, duplicates=duplicates)
    monkeypatch.setattr(retrieval, "BLOCK_ELEMENTS", 67 * 5)
    for other in (measure_retrieval(pool, duplicates=duplicates), from_matrix):
        np.testing.assert_array_equal(other.image_to_text_ranks, whole.image_to_text_ranks)
        np.testing.assert_array_equal(other.text_to_image_ranks, whole.text_to_image_ranks)


def test_chance_is_the_mean_over_all_orders():
    groups = np.array([0, 0, 1, 2, 2])
    num_right = np.array([2, 2, 1, 2, 2])
    for k in (1, 2, 3, 5, 10):
        hits = [
            any(groups[item] == groups[query] for item in order[:k])
            for query in range(5)
            for order in itertools.permutations(range(5))
        ]
        assert chance_recall(5, k, num_right) == pytest.approx(np.mean(hits))


@given(st.integers(1, 3000), st.integers(1, 10))
def test_chance_of_one_right_item_is_k_of_n(num_cases: int, k: int):
    assert chance_recall(num_cases, k, np.ones(num_cases, dtype=np.int64)) == min(k, num_cases) / num_cases


def test_the_flat_log_has_the_names_that_the_report_reads():
    flat = measure_retrieval(make_pool(9)).as_log()
    assert {"image_to_text/R@5", "text_to_image/R@5", "image_to_text/MRR", "region_alignment_accuracy"} <= flat.keys()
    assert all(math.isfinite(value) for value in flat.values())
