"""Known maps have known scores."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vlm3d_ct.evaluation.heatmap_scores import score_phrase, stretch, summarise_phrases, voxel_auroc
from vlm3d_ct.evaluation.lesions import LesionPhrase
from vlm3d_ct.evaluation.metrics.binary import auroc
from vlm3d_ct.seeding import random_stream

SHAPE = (6, 10, 12)


def _phrase(case_id="valid_1_a_1", finding="nodule", patient_id="valid_1"):
    return LesionPhrase(case_id=case_id, patient_id=patient_id, finding=finding, text="A nodule.", lesion_ids=(1,))


def _scene():
    body = np.zeros(SHAPE, bool)
    body[:, 1:9, 2:10] = True
    lesion = np.zeros(SHAPE, bool)
    lesion[2:4, 3:5, 4:8] = True
    return lesion, body


def _score(heat, region=None, **phrase):
    lesion, body = _scene()
    uniform = np.ones(SHAPE, np.float32)
    return score_phrase(_phrase(**phrase), heat.astype(np.float32), uniform if region is None else region, lesion, body)


def test_a_map_equal_to_the_lesion_scores_1_everywhere_and_its_opposite_0():
    lesion, body = _scene()
    best, worst = _score(7.0 * lesion - 3), _score(-7.0 * lesion)
    assert (best.heat.pointing, best.heat.dice_fixed, best.heat.dice_best, best.heat.auroc) == (1, 1, 1, 1)
    assert best.contrast == 1
    assert (worst.heat.pointing, worst.heat.auroc, worst.contrast) == (0, 0, -1)
    assert worst.heat.dice_fixed == 0
    whole = 2 * lesion.sum() / (lesion.sum() + body.sum())
    assert worst.heat.dice_best == pytest.approx(whole)  # no threshold beats marking everything


def test_what_lies_outside_the_body_does_not_count():
    lesion, body = _scene()
    heat = lesion.astype(float)
    heat[~body] = 100
    assert _score(heat).heat == _score(lesion).heat


def test_scaling_a_map_changes_no_score():
    heat = random_stream("heat").normal(size=SHAPE)
    found, scaled = _score(heat), _score(16 * heat - 64)
    assert vars(scaled.heat) == pytest.approx(vars(found.heat), abs=1e-5)


def test_a_flat_map_knows_nothing_and_gets_no_hit():
    flat = _score(np.full(SHAPE, 0.3))
    assert (flat.heat.pointing, flat.heat.auroc, flat.heat.dice_fixed) == (0, 0.5, 0)
    not_finite = _score(np.full(SHAPE, np.nan))
    assert not_finite.heat == flat.heat


def test_the_map_of_regions_hits_as_often_as_a_random_point_of_the_region():
    lesion, body = _scene()
    region = np.zeros(SHAPE, np.float32)
    region[2:4, 3:5, 2:10] = 1  # twice the lesion
    assert _score(lesion, region).region.pointing == 0.5
    everywhere = _score(lesion)  # the phrase names no region
    assert everywhere.region.pointing == pytest.approx(lesion.sum() / body.sum())
    assert everywhere.region.pointing == pytest.approx(everywhere.chance.pointing)


def test_random_maps_score_as_chance_says():
    stream = random_stream("random maps")
    scores = [_score(stream.normal(size=SHAPE)) for _ in range(600)]
    for name, tolerance in (("pointing", 0.03), ("auroc", 0.01)):
        mean = np.mean([getattr(score.heat, name) for score in scores])
        assert mean == pytest.approx(getattr(scores[0].chance, name), abs=tolerance)


def test_the_auroc_of_voxels_is_the_auroc():
    stream = random_stream("auroc")
    for num in (2, 5, 200):
        heat = stream.integers(0, 6, num).astype(np.float32)
        lesion = stream.random(num) < 0.4
        assert voxel_auroc(heat, lesion) == pytest.approx(auroc(lesion, heat), abs=1e-12, nan_ok=True)
    assert math.isnan(voxel_auroc(np.ones(3, np.float32), np.ones(3, bool)))
    assert math.isnan(voxel_auroc(np.ones(3, np.float32), np.zeros(3, bool)))


def test_a_lesion_without_voxels_or_outside_the_body_is_refused():
    _, body = _scene()
    heat = np.zeros(SHAPE, np.float32)
    for wrong in (np.zeros(SHAPE, bool), ~body):
        with pytest.raises(ValueError, match="lesion"):
            score_phrase(_phrase(), heat, heat, wrong, body)


def test_stretching_goes_from_0_to_1():
    np.testing.assert_allclose(stretch(np.array([-2.0, 0.0, 2.0])), [0, 0.5, 1])
    np.testing.assert_array_equal(stretch(np.array([1.0, np.inf])), [0, 0])


def test_findings_are_summarised_apart_and_together_with_the_patients_counted_once():
    lesion, _ = _scene()
    scores = [_score(lesion, finding="a", patient_id=f"p{i // 2}") for i in range(4)]
    scores += [_score(-1.0 * lesion, finding="b", patient_id=f"q{i}") for i in range(4)]
    overall, by_finding = summarise_phrases(scores, num_samples=50, seed=0)
    assert list(by_finding) == ["a", "b"]
    assert (overall.num_phrases, overall.num_patients, by_finding["a"].num_patients) == (8, 6, 2)
    assert overall.heat["auroc"].estimate == 0.5
    assert overall.heat["auroc"].low < 0.5 < overall.heat["auroc"].high
    assert (by_finding["a"].heat["auroc"].high, by_finding["b"].heat["auroc"].low) == (1, 0)
    assert by_finding["a"].gain.estimate == 0.5  # beyond the map of the whole body
    with pytest.raises(ValueError, match="no phrase"):
        summarise_phrases([], num_samples=10, seed=0)
