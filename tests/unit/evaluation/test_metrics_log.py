from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vlm3d_ct.errors import DataError
from vlm3d_ct.evaluation import metrics_log
from vlm3d_ct.evaluation.charts.training import thin
from vlm3d_ct.evaluation.metrics_log import read_metrics


def row(step: int, kind: str = "train", **metrics: float) -> str:
    return json.dumps({"step": step, "epoch": step / 10, "kind": kind, **metrics})


def test_series_hold_what_was_logged(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    validation = row(20, "validation", **{"image_to_text/R@5": 0.4})
    path.write_text("\n".join([row(10, loss=3.0, lr=1e-4), row(20, loss=2.0), validation]) + "\n")
    with path.open("a") as file:
        file.write(row(20, "system", samples_per_second=3.0) + "\n")
    log = read_metrics("pretrain", path)
    epochs, losses = log.series("train", "loss")
    assert epochs.tolist() == [1.0, 2.0]
    assert losses.tolist() == [3.0, 2.0]
    assert log.series("train", "lr")[1].tolist() == [1e-4]
    assert log.series("validation", "image_to_text/R@5")[1].tolist() == [0.4]
    assert log.num_unreadable == 0


def test_a_torn_line_is_left_out_and_counted(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    whole = row(10, loss=3.0) + "\n" + row(20, loss=2.0) + "\n"
    for length in range(len(whole)):
        path.write_text(whole[:length])
        log = read_metrics("pretrain", path)
        complete = sum(length >= end - 1 for end in (len(row(10, loss=3.0)) + 1, len(whole)))
        assert len(log.train) == complete
        assert log.num_unreadable <= 1


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "3",
        "{}",
        "\x00",
        "[" * 100_000,
        '{"kind": "train", "loss": 1}',
        '{"kind": "test", "step": 1, "epoch": 1}',
        '{"kind": ["train"], "step": 1, "epoch": 1}',
        '{"kind": "train", "step": NaN, "epoch": 1}',
    ],
    ids=lambda line: line[:24],
)
def test_a_foreign_line_is_left_out_and_counted(tmp_path: Path, line: str):
    path = tmp_path / "metrics.jsonl"
    path.write_text(line + "\n" + row(20, loss=2.0))
    log = read_metrics("pretrain", path)
    assert log.num_unreadable == 1
    assert len(log.train) == 1


def test_the_later_line_of_a_resumed_step_counts(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(row(step, loss=value) for step, value in ((10, 3.0), (20, 9.0), (20, 2.0), (15, 2.5))))
    assert read_metrics("pretrain", path).series("train", "loss")[1].tolist() == [3.0, 2.5, 2.0]


def test_a_missing_or_endless_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DataError, match="metrics-log"):
        read_metrics("pretrain", tmp_path / "absent.jsonl")
    monkeypatch.setattr(metrics_log, "MAX_LOG_BYTES", 10)
    (tmp_path / "metrics.jsonl").write_text(row(10, loss=1.0))
    with pytest.raises(DataError, match="too large"):
        read_metrics("pretrain", tmp_path / "metrics.jsonl")


@pytest.mark.parametrize("length", [0, 1, 1500, 1501, 4001])
def test_thinning_keeps_the_mean_of_equal_runs(length: int):
    values = np.arange(length, dtype=np.float64)
    thinned = thin(values)
    assert len(thinned) <= 1500
    run = -(-length // 1500) or 1
    np.testing.assert_allclose(thinned, [values[i : i + run].mean() for i in range(0, length, run)])
