from __future__ import annotations

import numpy as np
import pytest
from pools import make_pool, unit

from vlm3d_ct.evaluation.examples import NUM_EXAMPLES, choose_examples
from vlm3d_ct.evaluation.matches import best_and_worst, match_of
from vlm3d_ct.evaluation.retrieval import measure_retrieval


def swapped_pool():
    """Six cases in six of eight directions; the scans of cases 4 and 5 look like each other's report."""
    axes = np.eye(6, 8)
    scans = axes + 0.1
    scans[4], scans[5] = axes[5] + 0.3 * axes[4], axes[4] + 0.2 * axes[5]
    return make_pool(6, text=unit(axes), volume=unit(scans))


@pytest.mark.parametrize("direction", ["image_to_text", "text_to_image"])
def test_worst_matches_name_what_was_preferred(direction: str):
    pool = swapped_pool()
    best, worst = best_and_worst(pool, measure_retrieval(pool), direction, 2)
    assert [match.rank for match in best] == [1, 1]
    assert not any(match.lost for match in best)
    assert {(match.case_id, match.rival_id) for match in worst} == {
        ("valid_4_a_1", "valid_5_a_1"),
        ("valid_5_a_1", "valid_4_a_1"),
    }
    assert all(match.lost and match.rank == 2 for match in worst)


def test_the_worst_come_worst_first_and_no_case_twice():
    pool = make_pool(15, noise=3.0)
    result = measure_retrieval(pool)
    best, worst = best_and_worst(pool, result, "image_to_text", 20)
    assert len(best) == 15
    assert worst == []
    best, worst = best_and_worst(pool, result, "image_to_text", 4)
    assert worst[0].rank == result.ranks.volume_to_text.max()
    assert [match.rank for match in worst] == sorted((match.rank for match in worst), reverse=True)
    assert not {match.case_id for match in best} & {match.case_id for match in worst}


def test_an_identical_text_is_no_rival():
    pool = make_pool(5, text_groups=np.zeros(5, dtype=np.int64))
    match = match_of(pool, measure_retrieval(pool), "image_to_text", 2)
    assert match.rival_id is None
    assert not match.lost


def test_the_similarity_of_a_match_is_the_cosine():
    pool = make_pool(8)
    match = match_of(pool, measure_retrieval(pool), "text_to_image", 3)
    assert match.own_similarity == pytest.approx(float(pool.volume[3] @ pool.text[3]), abs=1e-6)
    others = [float(pool.volume[i] @ pool.text[3]) for i in range(8) if i != 3]
    assert match.rival_similarity == pytest.approx(max(others), abs=1e-6)


def test_examples_start_with_a_failure_and_what_was_preferred_to_it():
    pool = swapped_pool()
    chosen = choose_examples(pool, measure_retrieval(pool))
    assert set(chosen[:2]) == {"valid_4_a_1", "valid_5_a_1"}
    assert len(set(chosen)) == len(chosen) <= NUM_EXAMPLES
    assert choose_examples(pool, measure_retrieval(pool), 3) == chosen[:3]
    alone = make_pool(1)
    assert choose_examples(alone, measure_retrieval(alone)) == ["valid_0_a_1"]
