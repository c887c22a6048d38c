"""The benchmark scripts measure what they say, at a size that takes no time."""

from __future__ import annotations

import importlib.util
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from vlm3d_ct.config import Config, config_from_mapping

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # where Python puts it when a script is run


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def full_size_step() -> ModuleType:
    return load_script("full_size_step")


@pytest.fixture(scope="module")
def tiny() -> Config:
    model = {"embed_dim": 16, "depth": 4, "num_heads": 2, "patch_size": [4, 8, 8]}
    return config_from_mapping(
        {"preprocess": {"size": [8, 32, 32], "slice_size": [4, 32, 32]}, "model": model}, source="test"
    )


def test_a_step_is_measured_with_its_time_and_the_memory_of_the_process(full_size_step: ModuleType, tiny: Config):
    measured = full_size_step.measure(tiny, "cpu", batch_size=2)
    assert measured.dropout
    assert measured.batch_size == 2
    for timing in (measured.forward, measured.step):
        assert 0 < timing.seconds < 60
        assert 0 < timing.processor_share < 1.5  # the clocks of wall and processor tick differently
    assert 0.05 < measured.forward_gib <= measured.step_gib < 20  # torch alone takes more than 50 MiB


def test_without_dropout_changes_nothing_but_the_dropout(full_size_step: ModuleType, tiny: Config):
    changed = full_size_step.without_dropout(tiny)
    assert (changed.model.dropout, changed.model.attn_dropout) == (0.0, 0.0)
    assert not full_size_step.measure(changed, "cpu", batch_size=1).dropout
    assert changed.preprocess == tiny.preprocess
    assert changed.model.embed_dim == tiny.model.embed_dim


def test_the_page_has_a_row_for_every_measurement(full_size_step: ModuleType, tiny: Config):
    forward, step = full_size_step.Timing(11.5, 0.984), full_size_step.Timing(150.25, 0.5)
    row = full_size_step.Measurement("cpu", True, 1, 87_000_000, forward, 1.0, step, 3.5, 1)
    day = datetime(2026, 11, 23, tzinfo=UTC)
    page = full_size_step.render([row, row], tiny, "Some CPU", day)
    assert page.count("| cpu | as planned | 1 | 11.50 s (98%) | 1.00 GiB | 150.25 s (50%) | 3.50 GiB | 1 |") == 2
    assert "87.00 M" in page
    assert "8x32x32" in page


def test_the_page_is_named_by_theme_hardware_and_month(full_size_step: ModuleType):
    path = full_size_step.result_path(Path("r"), "theme", "NVIDIA H200 (141 GB)", datetime(2026, 3, 9, tzinfo=UTC))
    assert path == Path("r/theme_nvidia_h200_141_gb_202603.md")


@pytest.fixture(scope="module")
def evaluation_speed() -> ModuleType:
    return load_script("evaluation_speed")


@pytest.mark.parametrize("right", ["own", "patient"])
def test_a_retrieval_evaluation_is_measured_with_its_time_and_memory(evaluation_speed: ModuleType, right: str):
    measured = evaluation_speed.measure(cases=300, width=16, num_samples=40, right=right)
    assert (measured.cases, measured.right) == (300, right)
    assert 100 < measured.patients < 300
    assert 0 < measured.ranks_s < 60
    assert 0 < measured.bootstrap_s < 60
    assert 0.05 < measured.peak_gb < 20


def test_the_page_of_the_evaluation_says_time_memory_and_load(evaluation_speed: ModuleType):
    row = evaluation_speed.Measurement(
        cases=25_000, patients=13_000, right="own", ranks_s=11.25, bootstrap_s=1.0, peak_gb=0.654, load=(0.0, 1.5)
    )
    page = evaluation_speed.render([row], 768, 1000, "Some CPU", datetime(2026, 11, 23, tzinfo=UTC))
    assert "| 25,000 | 13,000 | own | 11.2 s | 1.0 s | 12.2 s | 0.65 GB | 0.0, 1.5 |" in page
    assert "1000 samples" in page


def test_derived_regions_are_scored_by_overlap_and_distance():
    script = load_script("derived_regions")
    truth = np.zeros((10, 12, 14), bool)
    truth[2:8, 2:8, 2:8] = True
    shifted = np.roll(truth, 1, axis=0)
    assert script.scores(truth, truth, (2.0, 1.0, 1.0)) == (1.0, 0.0)
    dice, distance = script.scores(shifted, truth, (2.0, 1.0, 1.0))
    assert dice == pytest.approx(5 / 6)
    assert 0 < distance < 2.0
