"""Numbers of regions from files equal what a loop over their rows gives."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vlm3d_ct.evaluation.compare_regions import RegionScores
from vlm3d_ct.seeding import random_stream


def _region(case, region, within, across="", masks="true"):
    return {
        "masks": masks,
        "case_id": f"c{case}",
        "patient_id": f"p{case // 2}",
        "region": region,
        "within_correct": within,
        "across_correct": across,
        "across_preference": across,
    }


def _phrase(case, auroc, masks="true"):
    return {"masks": masks, "case_id": f"c{case}", "patient_id": f"p{case // 2}", "heat_auroc": auroc, "phrase": "a"}


def test_every_number_equals_a_loop_over_the_rows():
    stream = random_stream("compare regions")
    regions = [
        _region(case, region, str(stream.integers(2)), stream.choice(["", "0", "1"]), masks)
        for masks in ("true", "none")
        for case in range(6)
        for region in ("a", "b")
    ]
    phrases = [_phrase(case, str(stream.random())) for case in (1, 1, 4)]
    scores = RegionScores(regions, phrases)
    weights = stream.integers(0, 3, (5, 6)).astype(np.float64)
    found = scores(weights)
    for name, column, rows in (
        ("true/within", "within_correct", [r for r in regions if r["masks"] == "true"]),
        ("none/across", "across_correct", [r for r in regions if r["masks"] == "none"]),
        ("true/within/b", "within_correct", [r for r in regions if r["masks"] == "true" and r["region"] == "b"]),
        ("true/heat_auroc", "heat_auroc", phrases),
    ):
        for sample, weight in enumerate(weights):
            known = [(weight[int(row["case_id"][1:])], float(row[column])) for row in rows if row[column]]
            total = sum(w for w, _ in known)
            expected = sum(w * value for w, value in known) / total if total else math.nan
            assert found[name][sample] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_cases_are_named_once_in_their_order_with_their_patients():
    scores = RegionScores([_region(3, "a", "1"), _region(3, "b", "1"), _region(0, "a", "0")], [_phrase(2, "0.5")])
    assert scores.case_ids == ("c3", "c0", "c2")
    assert scores.patient_ids == ("p1", "p0", "p1")


def test_a_number_rests_on_the_patients_of_its_rows():
    regions = [_region(case, region, "1", "") for case, region in ((0, "a"), (1, "a"), (2, "a"), (4, "b"))]
    scores = RegionScores(regions, [_phrase(7, "0.5")])
    expected = {"true/within": 3, "true/within/a": 2, "true/within/b": 1, "true/heat_auroc": 1}
    assert scores.num_patients == expected


def test_without_phrases_regions_are_compared_alone():
    assert set(RegionScores([_region(0, "a", "1")], [])(np.ones((1, 1)))) == {"true/within", "true/within/a"}
