"""The benchmarks of the data pipeline measure what they say, at a size that takes no time."""

from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest

from test_benchmark_scripts import load_script
from tiny import tiny_config
from vlm3d_ct.phantom.cohort import write_cohort

DAY = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture(scope="module")
def loading_speed() -> ModuleType:
    return load_script("loading_speed")


@pytest.fixture(scope="module")
def data_scale() -> ModuleType:
    return load_script("data_scale")


def test_every_way_of_loading_is_measured(loading_speed: ModuleType, tmp_path: Path):
    config = tiny_config(f"data.cache_dir={tmp_path / 'cache'}", "data.num_workers=1", "data.prefetch_factor=1")
    rows = loading_speed.measure(tmp_path, config, num_cases=8, count=2, size="small")
    assert [math.isnan(row.wait_share) for row in rows] == [False, False, True, True]
    assert all(row.cases_per_s > 0 for row in rows)
    assert rows[1].case_mb < rows[0].case_mb < rows[3].case_mb
    page = loading_speed.render(rows, config, (0.0, 1.0), "Some CPU", DAY)
    assert page.count("\n| ") == 5
    assert "20 cases/s asked for" in page


def test_a_consumer_that_is_never_kept_waiting_waits_for_nothing(loading_speed: ModuleType):
    assert loading_speed.wait_share(itertools.repeat(0), warm_up=1, count=2) < 0.01


def test_the_stages_of_the_pipeline_are_measured(data_scale: ModuleType, tmp_path: Path):
    write_cohort(tmp_path, patients=3, workers=1)
    rows = [data_scale.measure_stage(stage, work, tmp_path, 0) for stage, work in data_scale.STAGES]
    assert [row.cases for row in rows] == [3, 3, 3, 3]
    assert all(row.seconds > 0 and row.own_mb > 50 for row in rows)


def test_growth_is_the_time_of_a_case_against_the_smallest_cohort(data_scale: ModuleType):
    rows = [
        data_scale.Measurement(stage="index", cases=cases, seconds=seconds, own_mb=100.0, worker_mb=0.0)
        for cases, seconds in ((200, 1.0), (2000, 15.0))
    ]
    page = data_scale.render(rows, 2, (0.0, 0.0), "Some CPU", DAY)
    assert "| index | 200 | 1.00 | 5.00 | 1.00 | 100 MB |  |" in page
    assert "| index | 2,000 | 15.00 | 7.50 | 1.50 | 100 MB |  |" in page
