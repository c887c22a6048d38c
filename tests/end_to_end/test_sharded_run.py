"""The command on two ranks: begun with replicated weights, continued with sharded ones."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from commands import ROOT, as_flags, free_port, run

from tiny import OVERRIDES
from vlm3d_ct.checkpoint import load_checkpoint
from vlm3d_ct.inference import load_encoder

RATE = 1e-3
RUN = (
    *OVERRIDES,
    "training.num_epochs=2",
    "training.batch_size=1",
    "training.accumulation_steps=3",
    "training.precision=fp32",
    "training.val_interval=1",
    "training.log_interval=1",
    "training.eps=1e-4",
    f"training.lr={RATE}",
)
TOLERANCE = 1e-3
"""Of the way that a weight can go in the steps of the second epoch; see `test_sharded_training.WEIGHT_TOLERANCE`."""


def train(output_dir: Path, data: tuple[str, ...], strategy: str) -> str:
    launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}")
    config = ("--config", str(ROOT / "configs/finetune_combined.yaml"), "--output_dir", str(output_dir))
    flags = as_flags((*RUN, *data, f"training.strategy={strategy}"))
    finished = run(*launcher, "training/train.py", *config, *flags)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def rows(folder: Path, kind: str) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line.pop("kind") == kind]


@pytest.mark.long
def test_a_run_of_replicas_is_continued_by_shards_to_the_same_end(phantom_data: tuple[str, ...], tmp_path: Path):
    said = train(tmp_path / "ddp", phantom_data, "ddp")
    assert "ddp over 2 ranks" in said
    first, last = sorted((tmp_path / "ddp").glob("checkpoint_step_*.pth"))
    steps = load_checkpoint(last)["step"] - load_checkpoint(first)["step"]
    (tmp_path / "fsdp").mkdir()
    for name in (first.name, "metrics.jsonl"):
        shutil.copy(tmp_path / "ddp" / name, tmp_path / "fsdp" / name)

    said = train(tmp_path / "fsdp", phantom_data, "fsdp")
    assert "differs from the checkpoint: training.strategy: ddp then, fsdp now" in said
    assert "fsdp over 2 ranks" in said
    expected, actual = (load_checkpoint(tmp_path / name / last.name) for name in ("ddp", "fsdp"))
    assert actual["step"] == expected["step"]
    assert actual["optimizer"]["param_groups"] == expected["optimizer"]["param_groups"]
    assert actual["model"].keys() == expected["model"].keys()
    for name, weight in expected["model"].items():
        assert float((actual["model"][name] - weight).abs().max()) <= TOLERANCE * RATE * steps, name
    for number, state in expected["optimizer"]["state"].items():
        for name, value in state.items():
            torch.testing.assert_close(actual["optimizer"]["state"][number][name], value, rtol=1e-2, atol=1e-5)
    for one, other in zip(rows(tmp_path / "fsdp", "train"), rows(tmp_path / "ddp", "train"), strict=True):
        assert one == pytest.approx(other, rel=1e-2, abs=1e-3)
    for one, other in zip(rows(tmp_path / "fsdp", "validation"), rows(tmp_path / "ddp", "validation"), strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=0.1)  # ranks of few cases may swap
    summary = json.loads((tmp_path / "fsdp" / "summary.json").read_text())
    assert summary["steps"] == expected["step"]
    assert load_encoder(tmp_path / "fsdp" / "checkpoint_last.pth").embed_text(["A nodule."]).shape == (1, 32)
