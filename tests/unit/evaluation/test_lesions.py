"""Phrases whose place is known: what the phantoms' truth and the slices' masks give, and what is left out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tiny import tiny_config
from vlm3d_ct.data.cache import Cache
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.data.prepare import prepare_cases
from vlm3d_ct.errors import DataError
from vlm3d_ct.evaluation.lesions import find_body, find_lesion_phrases, lesion_path, read_scene
from vlm3d_ct.volumes.nifti import read_mask, read_volume, write_nifti
from vlm3d_ct.volumes.preprocess import Preprocess


@pytest.fixture(scope="module")
def cases(phantom_cohort: Path) -> tuple[Case, ...]:
    return read_cases(phantom_cohort).cases


@pytest.fixture(scope="module")
def cache(phantom_cohort: Path, cases) -> Cache:
    preprocess = Preprocess.from_config(tiny_config().preprocess)
    cache = Cache(phantom_cohort / "cache", preprocess.fingerprint)
    prepare_cases(cases, preprocess, cache, workers=0)
    return cache


def _truth(phantom_cohort: Path):
    return json.loads((phantom_cohort / "ct_rate" / "truth.json").read_text())


def test_every_stated_lesion_of_a_volume_is_in_exactly_one_phrase(phantom_cohort, cases):
    volumes = [case for case in cases if case.kind == "volume"]
    phrases, left_out = find_lesion_phrases(phantom_cohort, volumes)
    stated, silent = set(), 0
    for name, truth in _truth(phantom_cohort).items():
        for finding in truth["findings"]:
            if finding["sentence"]:
                stated.add((name.removesuffix(".nii.gz"), finding["abnormality"], finding["lesion"]))
            else:
                silent += 1
    found = [(phrase.case_id, phrase.finding, lesion) for phrase in phrases for lesion in phrase.lesion_ids]
    assert len(found) == len(set(found))
    assert set(found) == stated
    assert left_out.get("findings that no sentence states", 0) == silent
    texts = {case.case_id: case.reports[0].answer for case in volumes}
    assert all(phrase.text in texts[phrase.case_id] for phrase in phrases)


def test_a_slice_is_one_phrase_under_its_category(phantom_cohort, cases):
    slices = [case for case in cases if case.kind == "slice"]
    phrases, left_out = find_lesion_phrases(phantom_cohort, slices)
    assert [phrase.case_id for phrase in phrases] == [case.case_id for case in slices if case.mask_paths]
    assert {phrase.finding for phrase in phrases} <= {case.category for case in slices}
    assert sum(left_out.values()) == sum(not case.mask_paths for case in slices)


def test_a_folder_without_truth_has_no_phrases_and_says_so(tmp_path, cases):
    volumes = [case for case in cases if case.kind == "volume"]
    assert find_lesion_phrases(tmp_path, volumes) == ([], {"volumes without lesion mask": len(volumes)})


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"a": {"findings": [{"lesion": 999}]}}'])
def test_a_damaged_truth_names_its_file(tmp_path, cases, content):
    (tmp_path / "truth.json").write_text(content)
    with pytest.raises(DataError, match=r"truth\.json"):
        find_lesion_phrases(tmp_path, cases)


def test_a_scene_holds_the_lesions_as_they_are_on_disk_within_the_body(phantom_cohort, cases, cache):
    for case in [case for case in cases if case.kind == "volume"][:3]:
        scene = read_scene(case, cache)
        volume = read_volume(case.image_paths[0])
        expected = read_mask(lesion_path(case), like=volume, max_label=255).labels
        np.testing.assert_array_equal(scene.lesions, expected)
        assert not ((scene.lesions > 0) & ~scene.body).any()
        assert 0.2 < scene.body.mean() < 0.9
        assert np.median(volume.voxels_hu[~scene.body]) < -900  # what is left out is air


def test_a_lesion_mask_of_another_grid_is_refused(tmp_path, phantom_cohort, cases, cache):
    case = next(case for case in cases if case.kind == "volume")
    shutil.copytree(phantom_cohort / "ct_rate" / "lesions", tmp_path / "lesions")
    (tmp_path / "volumes").mkdir()
    path = tmp_path / "volumes" / case.image_paths[0].name
    shutil.copy(case.image_paths[0], path)
    moved = Case(**{**vars(case), "image_paths": (path,)})
    write_nifti(lesion_path(moved), np.ones((3, 4, 5), np.uint8), (1.0, 1.0, 1.0), np.uint8)
    with pytest.raises(DataError, match="lesions"):
        read_scene(moved, cache)


def test_the_body_holds_its_lungs_and_no_air_around_it():
    voxels = np.full((4, 40, 40), -1000, np.int16)
    voxels[1:, 8:32, 8:32] = 40
    voxels[1:, 14:26, 14:26] = -850
    body = find_body(voxels)
    assert body[0].all()  # a section without anything counts whole
    np.testing.assert_array_equal(body[1:], np.pad(np.ones((3, 24, 24), bool), ((0, 0), (8, 8), (8, 8))))
