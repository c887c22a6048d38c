from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm3d_ct.evaluation.metrics import alignment
from vlm3d_ct.evaluation.metrics.alignment import region_alignment_accuracy
from vlm3d_ct.seeding import random_stream


def naive(volume, text, mentions, groups):
    hits, chances, cases = [], [], set()
    for case in range(len(volume)):
        mentioned = [region for region in range(volume.shape[1]) if mentions[case, region]]
        for region in mentioned:
            rivals = [other for other in mentioned if groups[case, other] != groups[case, region]]
            if rivals:
                query = volume[case, region]
                cosine = [float(query @ t / np.linalg.norm(t)) for t in text[case]]
                hits.append(all(cosine[other] < cosine[region] for other in rivals))
                chances.append(1 / (1 + len(rivals)))
                cases.add(case)
    return hits, chances, cases


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 3, 256]))
def test_alignment_equals_a_naive_count(seed: int, block: int):
    stream = random_stream("regions", seed)
    text = stream.normal(size=(5, 4, 6)).astype(np.float32) * stream.uniform(0.1, 9, size=(5, 4, 1)).astype(np.float32)
    volume = (text + stream.normal(size=text.shape)).astype(np.float32)
    mentions = stream.random((5, 4)) < 0.5
    groups = stream.integers(0, 3, size=(5, 4))
    hits, chances, cases = naive(volume, text, mentions, groups)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment, "CASES_PER_BLOCK", block)
        result = region_alignment_accuracy(volume, text, mentions, groups)
    assert result.num_cases == len(cases)
    assert result.num_regions == len(hits)
    if hits:
        assert result.accuracy == pytest.approx(np.mean(hits), abs=1e-9, rel=0)
        assert result.chance == pytest.approx(np.mean(chances), abs=1e-9, rel=0)


def test_known_values():
    text = np.eye(3, dtype=np.float32)[None]
    volume = np.array([[[1, 0, 0], [0, 1, 2], [0, 0, 1]]], dtype=np.float32)  # region 2 prefers the text of region 3
    result = region_alignment_accuracy(volume, text, np.ones((1, 3), bool), np.array([[5, 6, 7]]))
    assert (result.accuracy, result.chance, result.num_cases) == (pytest.approx(2 / 3), pytest.approx(1 / 3), 1)


def test_ties_count_against_us_and_identical_texts_are_no_rivals():
    same = np.ones((1, 2, 4), dtype=np.float32)
    both = np.ones((1, 2), bool)
    assert region_alignment_accuracy(same, same, both, np.array([[5, 6]])).accuracy == 0.0
    assert region_alignment_accuracy(same, same, both, np.array([[5, 5]])).num_cases == 0


def test_nothing_to_compare_is_nan_not_zero():
    vectors = np.ones((2, 3, 4), dtype=np.float32)
    mentions = np.array([[True, False, False], [False, False, False]])
    result = region_alignment_accuracy(vectors, vectors, mentions, np.arange(6).reshape(2, 3))
    assert math.isnan(result.accuracy)
    assert math.isnan(result.chance)
    assert result.num_cases == result.num_regions == 0


def test_texts_of_regions_that_are_not_mentioned_do_not_matter():
    stream = random_stream("unmentioned")
    text, volume = (stream.normal(size=(6, 4, 8)).astype(np.float32) for _ in range(2))
    mentions = stream.random((6, 4)) < 0.6
    groups = np.arange(24).reshape(6, 4)
    before = region_alignment_accuracy(volume, text, mentions, groups)
    text[~mentions] = 0.0
    assert region_alignment_accuracy(volume, text, mentions, groups) == before
