from __future__ import annotations

import numpy as np
import pytest
from pools import make_pool

from vlm3d_ct.data.names import reconstruction_of, scan_of
from vlm3d_ct.embeddings import NO_TEXT_GROUP, EmbeddingSet
from vlm3d_ct.errors import DataError
from vlm3d_ct.evaluation.pool import POOL_RULES, POOLS, RIGHT, RIGHT_RULES, choose_pool

NAMES = (
    "valid_10_a_1",  # another patient, the same text as valid_2
    "valid_2_a_2",
    "valid_2_a_10",
    "valid_2_a_1",
    "valid_2_b_1",
    "valid_3_a_2",  # its first reconstruction is not there
    "valid_4_a_1",  # a head
    "valid_5_a_1",  # no text
)
PATIENTS = ("valid_10", "valid_2", "valid_2", "valid_2", "valid_2", "valid_3", "valid_4", "valid_5")


def volumes() -> EmbeddingSet:
    groups = np.array([7, 7, 7, 7, 8, 9, 10, NO_TEXT_GROUP])
    return make_pool(8, case_ids=NAMES, patient_ids=PATIENTS, text_groups=groups)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("all", NAMES[:7]),
        ("first_reconstruction", ("valid_10_a_1", "valid_2_a_1", "valid_2_b_1", "valid_3_a_2", "valid_4_a_1")),
        ("chest_only", ("valid_10_a_1", "valid_2_a_1", "valid_2_b_1", "valid_3_a_2")),
        ("unique_text", ("valid_2_a_1", "valid_2_b_1", "valid_3_a_2", "valid_4_a_1")),
        ("patient_unique", ("valid_10_a_1", "valid_2_a_1", "valid_3_a_2", "valid_4_a_1")),
    ],
)
def test_a_pool_holds_what_its_rule_says_and_counts_the_rest(name: str, expected: tuple[str, ...]):
    pool = choose_pool(volumes(), name, no_chest={"valid_4_a_1"})
    assert pool.case_ids == expected
    assert [NAMES[i] for i in pool.indices] == list(expected)
    assert len(pool) + sum(pool.left_out.values()) == len(NAMES)
    assert pool.left_out["without a text"] == 1


def test_cases_without_a_text_stay_where_none_is_needed():
    assert choose_pool(volumes(), need_text=False).case_ids == NAMES
    assert choose_pool(volumes(), "unique_text", need_text=False).case_ids[-1] == "valid_5_a_1"


def test_what_is_right_follows_the_declared_rule():
    right = {rule: choose_pool(volumes(), right=rule).right_ids for rule in RIGHT}
    assert len(set(right["own"].tolist())) == 7
    assert right["text"].tolist() == [7, 7, 7, 7, 8, 9, 10]
    scans = right["scan"]
    assert scans[1] == scans[2] == scans[3]
    assert len(set(scans.tolist())) == 5


def test_the_order_of_the_cases_does_not_choose_the_first():
    pool = volumes()
    backwards = pool.select(np.arange(8)[::-1])
    assert set(choose_pool(backwards, "unique_text").case_ids) == set(choose_pool(pool, "unique_text").case_ids)


def test_an_empty_pool_says_what_was_left_out():
    nothing = make_pool(2, text_groups=np.full(2, NO_TEXT_GROUP))
    with pytest.raises(DataError, match=r"0 of 2 cases: No case is left to evaluate: 2 without a text"):
        choose_pool(nothing)


def test_every_rule_is_explained():
    assert set(POOL_RULES) == set(POOLS)
    assert set(RIGHT_RULES) == set(RIGHT)


def test_names_that_are_not_those_of_ct_rate_are_scans_of_their_own():
    assert scan_of("TRAIN_12_ab_3") == "train_12_ab"
    assert scan_of("patient7_2") == "patient7_2"
    names = ["train_2_a_10", "train_10_a_1", "train_2_b_1", "train_2_a_2", "zeta", "alpha"]
    assert sorted(names, key=reconstruction_of) == [
        "train_2_a_2",
        "train_2_a_10",
        "train_2_b_1",
        "train_10_a_1",
        "alpha",
        "zeta",
    ]
