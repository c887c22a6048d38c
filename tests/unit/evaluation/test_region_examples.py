"""The regions that the report shows are the surest hits and the gravest misses."""

from __future__ import annotations

import numpy as np
from pools import make_pool

from vlm3d_ct.evaluation.metrics.alignment import within_cases
from vlm3d_ct.evaluation.region_examples import choose_regions, sentences_about
from vlm3d_ct.text.regions import load_region_table

HEART, LIVER = 8, 18


def test_hits_and_misses_are_the_extremes_of_the_margin_with_no_case_or_region_twice():
    pool = make_pool(60, 2.0)
    outcomes = within_cases(pool.region_volume, pool.region_text, pool.region_mentions, pool.region_groups)
    hits, misses = choose_regions(pool)
    assert len(hits) == len(misses) == 3
    for matches, correct in ((hits, True), (misses, False)):
        assert len({match.case for match in matches}) == len({match.region for match in matches}) == 3
        for match in matches:
            place = match.case, match.region
            assert outcomes.counted[place]
            assert outcomes.correct[place] == correct
            own = float(pool.region_volume[place] @ pool.region_text[place])
            rival = float(pool.region_volume[place] @ pool.region_text[match.case, match.rival])
            assert abs(match.margin - (own - rival)) < 1e-6
    counted = outcomes.margin[outcomes.counted]
    assert hits[0].margin == counted.max()
    assert misses[0].margin == counted.min()


def test_where_nothing_is_counted_nothing_is_shown():
    assert choose_regions(make_pool(4, region_mentions=np.zeros((4, 4), bool))) == ([], [])


def test_the_sentences_about_a_region_are_those_that_mention_it():
    table = load_region_table()
    text = "The heart is enlarged. The liver is normal. No pericardial effusion. Heart and liver are displaced."
    assert sentences_about(text, HEART, table) == "The heart is enlarged. Heart and liver are displaced."
    assert sentences_about(text, LIVER, table) == "The liver is normal. Heart and liver are displaced."
    assert sentences_about("", LIVER, table) == ""
