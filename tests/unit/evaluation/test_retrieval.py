from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from pools import make_pool, unit

from vlm3d_ct.embeddings import NO_TEXT_GROUP, EmbeddingSet
from vlm3d_ct.errors import DataError
from vlm3d_ct.evaluation.metrics.ranking import Ranks
from vlm3d_ct.evaluation.retrieval import measure_retrieval, recall_at, retrieval_intervals
from vlm3d_ct.seeding import random_stream


def naive_ranks(pool: EmbeddingSet, ids: np.ndarray) -> list[tuple[int, int]]:
    """Both ranks of every case, counted one by one in exact arithmetic of the rounded embeddings."""
    volume, text = (np.rint(part.astype(np.float64) * 2**26) / 2**26 for part in (pool.volume, pool.text))
    found = []
    for own in range(len(pool)):
        both = []
        for row in ([math.fsum(volume[own] * t) for t in text], [math.fsum(v * text[own]) for v in volume]):
            best = max(value for value, item in zip(row, ids, strict=True) if item == ids[own])
            both.append(1 + sum(v >= best for v, item in zip(row, ids, strict=True) if item != ids[own]))
        found.append((both[0], both[1]))
    return found


@pytest.mark.parametrize("ids", [np.arange(30), np.arange(30) // 3, np.zeros(30, np.int64)], ids=["own", "3", "all"])
def test_ranks_equal_a_naive_count(ids: np.ndarray):
    pool = make_pool(30, noise=1.5)
    text = pool.text.copy()
    text[7] = text[3]  # a tie
    pool = make_pool(30, noise=1.5, text=text)
    result = measure_retrieval(pool, ids)
    ranks = list(zip(result.ranks.volume_to_text.tolist(), result.ranks.text_to_volume.tolist(), strict=True))
    assert ranks == naive_ranks(pool, ids)
    assert result.one_right_item == (len(set(ids.tolist())) == 30)


def test_a_collapsed_encoder_has_the_worst_rank():
    same = unit(np.ones((40, 8)) * 0.3)
    result = measure_retrieval(make_pool(40, volume=same, text=same))
    assert (result.ranks.volume_to_text == 40).all()
    assert result.image_to_text["R@10"] == 0.0


def test_identical_texts_count_as_wrong_or_right_as_declared():
    text = make_pool(20, noise=0.1).text.copy()
    text[7] = text[3]
    groups = np.arange(20)
    groups[7] = 3
    pool = make_pool(20, noise=0.1, text=text, text_groups=groups)
    own, group = measure_retrieval(pool), measure_retrieval(pool, groups)
    assert own.num_shared_texts == group.num_shared_texts == 2
    assert own.ranks.volume_to_text[3] == 2  # the identical text of case 7 ties
    assert group.ranks.volume_to_text[3] == 1
    assert (group.ranks.volume_to_text <= own.ranks.volume_to_text).all()
    assert group.chance["R@1"] > own.chance["R@1"]


def test_recall_is_given_where_it_can_fail():
    assert recall_at(3) == (1, 5, 10)
    assert recall_at(51) == (1, 5, 10, 50)
    assert recall_at(2000) == (1, 5, 10, 50, 100)
    assert set(measure_retrieval(make_pool(60)).image_to_text) == {
        *(f"R@{k}" for k in (1, 5, 10, 50)),
        "MRR",
        "median_rank",
        "mean_rank",
    }


def test_an_empty_pool_and_a_case_without_a_text_are_refused():
    with pytest.raises(DataError, match="empty-pool"):
        measure_retrieval(make_pool(0))
    groups = np.array([0, 1, NO_TEXT_GROUP])
    with pytest.raises(ValueError, match="without a text"):
        measure_retrieval(make_pool(3, text_groups=groups))


def test_labels_alone_find_what_labels_can_tell_apart():
    labels = np.eye(6, dtype=bool)
    alone = measure_retrieval(make_pool(6), labels=labels).label_only
    assert alone == {"R@1": 1.0, "R@5": 1.0, "R@10": 1.0}
    nobody = measure_retrieval(make_pool(6), labels=np.zeros((6, 3), dtype=bool))
    assert nobody.label_only == pytest.approx(nobody.chance)


def test_intervals_hold_their_estimates_and_narrow_with_patients():
    widths = []
    for count in (20, 320):
        pool = make_pool(count, noise=2.0)
        result = measure_retrieval(pool)
        found = retrieval_intervals(result, pool.patient_ids, 400, seed=3)
        for direction, scores in (("image_to_text", result.image_to_text), ("text_to_image", result.text_to_image)):
            assert found[direction].keys() == scores.keys()
            for name, value in scores.items():
                interval = found[direction][name]
                assert interval.estimate == value
                assert interval.low <= interval.high
        widths.append(found["image_to_text"]["MRR"].high - found["image_to_text"]["MRR"].low)
    assert widths[1] < widths[0] / 2
    assert retrieval_intervals(result, pool.patient_ids, 0, seed=3) == {}


def test_cases_of_one_patient_do_not_count_as_independent():
    pool = make_pool(80)
    repeated = np.repeat(random_stream("ranks").integers(1, 80, 8), 10)
    ranks = Ranks(volume_to_text=repeated, text_to_volume=repeated)
    result = replace(measure_retrieval(pool), ranks=ranks)
    widths = {}
    for name, patients in (("own", pool.patient_ids), ("shared", tuple(f"p{i // 10}" for i in range(80)))):
        found = retrieval_intervals(result, patients, 400, seed=0)["image_to_text"]["mean_rank"]
        widths[name] = found.high - found.low
    assert widths["shared"] > 2 * widths["own"]


def test_the_flat_log_has_the_names_that_the_report_reads():
    flat = measure_retrieval(make_pool(9)).as_log()
    assert {"image_to_text/R@5", "text_to_image/R@5", "image_to_text/MRR", "region_alignment_accuracy"} <= flat.keys()
    assert all(math.isfinite(value) for value in flat.values())
