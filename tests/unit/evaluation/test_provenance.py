from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tiny import tiny_config, write_checkpoint
from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.evaluation.provenance import describe_run, hash_json
from vlm3d_ct.inference import Encoder, load_encoder
from vlm3d_ct.text.report import Report


@pytest.fixture(scope="module")
def encoder(phantom_data: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    path = tmp_path_factory.mktemp("run") / "checkpoint_best.pth"
    write_checkpoint(path, tiny_config(*phantom_data))
    return load_encoder(path)


def test_provenance_says_what_made_the_numbers_and_nothing_of_this_machine(encoder: Encoder, phantom_cohort: Path):
    cases = read_cases(phantom_cohort / "ct_rate").cases
    found = describe_run(encoder, cases, {"pool": "all", "seed": 3})
    assert found["checkpoint"] == "checkpoint_best.pth"
    assert found["preprocessing_fingerprint"] == encoder.provenance["preprocessing_fingerprint"]
    assert (found["pool"], found["seed"], found["data_cases"]) == ("all", "3", "28")
    for package in ("vlm3d-ct", "torch", "numpy", "scikit-learn", "python"):
        assert f"{package} " in found["evaluated_by"]
    assert str(phantom_cohort) not in " ".join(found.values())
    assert found == describe_run(encoder, cases, {"pool": "all", "seed": 3})


def test_the_data_list_follows_cases_and_texts_whatever_their_order_and_place(encoder: Encoder, phantom_cohort: Path):
    cases = read_cases(phantom_cohort / "ct_rate").cases
    own = describe_run(encoder, cases, {})["data_list_sha256"]
    moved = [replace(case, image_paths=(Path("elsewhere") / case.image_paths[0].name,)) for case in cases[::-1]]
    assert describe_run(encoder, moved, {})["data_list_sha256"] == own
    assert describe_run(encoder, cases[1:], {})["data_list_sha256"] != own
    other = (replace(cases[0], reports=(Report(question="", answer="Other."),)), *cases[1:])
    assert describe_run(encoder, other, {})["data_list_sha256"] != own


def test_a_hash_does_not_depend_on_the_order_of_keys():
    assert hash_json({"a": 1, "b": [2]}) == hash_json({"b": [2], "a": 1}) != hash_json({"a": 1, "b": [3]})
