"""Metrics of a run, for people and for programs, without gaps or repetitions over interruptions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vlm3d_ct.training.recorder import METRICS_FILE, Recorder
from vlm3d_ct.training.system import system_metrics


def record_steps(folder: Path, first: int, last: int, start: int = 0) -> None:
    recorder = Recorder(folder, folder / "tensorboard", start)
    for step in range(first, last + 1):
        recorder.record("train", step, step / 4, {"loss": 10.0 - step, "lr": 1e-4})
    recorder.close()


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_every_record_is_in_both_places(tmp_path: Path):
    record_steps(tmp_path, 1, 2)
    assert lines(tmp_path) == [
        {"step": 1, "epoch": 0.25, "kind": "train", "loss": 9.0, "lr": 1e-4},
        {"step": 2, "epoch": 0.5, "kind": "train", "loss": 8.0, "lr": 1e-4},
    ]
    assert scalars(tmp_path, "train/loss") == [(1, 9.0), (2, 8.0)]


def test_what_is_not_finite_is_null_for_programs_and_itself_for_people(tmp_path: Path):
    recorder = Recorder(tmp_path, tmp_path / "tensorboard", 0)
    recorder.record("train", 1, 0.1, {"loss": math.nan, "grad_norm": math.inf})
    recorder.close()
    assert lines(tmp_path)[0]["loss"] is None
    assert lines(tmp_path)[0]["grad_norm"] is None
    assert math.isnan(scalars(tmp_path, "train/loss")[0][1])


def test_a_continued_run_drops_what_it_will_record_again(tmp_path: Path):
    record_steps(tmp_path, 1, 6)
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 7, "epo')  # torn by a kill
    record_steps(tmp_path, 4, 8, start=3)
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 9))
    assert [step for step, _ in scalars(tmp_path, "train/loss")] == list(range(1, 9))


def test_a_new_run_in_an_old_folder_starts_over(tmp_path: Path):
    record_steps(tmp_path, 1, 3)
    record_steps(tmp_path, 1, 1)
    assert [line["step"] for line in lines(tmp_path)] == [1]


def test_system_metrics_are_rates_and_shares():
    metrics = system_metrics(torch.device("cpu"), step_seconds=2.0, wait_seconds=0.5, pairs=32)
    assert metrics == {
        "samples_per_second": pytest.approx(16.0),
        "step_seconds": 2.0,
        "data_wait_seconds": 0.5,
        "data_wait_share": 0.25,
    }
