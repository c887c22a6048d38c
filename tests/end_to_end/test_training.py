"""Training as a whole: interrupted and continued to the bit, able to learn, and particular about what it continues."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import ROOT, TRAIN, as_flags, run, start, wait_for_steps

from tiny import NO_DROPOUT, OVERRIDES, tiny_config
from vlm3d_ct.checkpoint import load_checkpoint
from vlm3d_ct.cli.main import run as main
from vlm3d_ct.data.augment import to_intensities
from vlm3d_ct.data.cohort import find_cohort, prepare_cohort
from vlm3d_ct.data.dataset import CaseDataset, evaluation_batches, open_cache
from vlm3d_ct.evaluation.retrieval import measure_retrieval
from vlm3d_ct.inference import embed_cases
from vlm3d_ct.models import build
from vlm3d_ct.objectives import ContrastiveObjective
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.text.tokenize import ReportTokenizer, train_small_tokenizer
from vlm3d_ct.training.optimizer import build_optimizer
from vlm3d_ct.training.step import Update, backward, micro_batch
from vlm3d_ct.volumes.preprocess import Preprocess

NUM_EPOCHS = 4
RUN = (
    "training.optimizer=muon",  # AdamW: test_kill_and_resume.py
    *OVERRIDES,
    f"training.num_epochs={NUM_EPOCHS}",
    "training.batch_size=3",
    "training.accumulation_steps=2",
    "training.precision=fp16",
    "training.val_interval=3",
    "training.log_interval=1",
)
"""5 steps an epoch of 6 pairs, with every dropout and augmentation."""


def command(output_dir: Path, data: tuple[str, ...], *overrides: str) -> list[str]:
    flags = as_flags((*RUN, *data, *overrides))
    return [*TRAIN, "--config", str(ROOT / "configs/finetune_combined.yaml"), "--output_dir", str(output_dir), *flags]


def digest(value: Any) -> str:
    """SHA-256 over everything in nested dicts and lists, tensors by their bytes."""
    hashed = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, dict):
            for key in sorted(part, key=str):
                hashed.update(str(key).encode())
                add(part[key])
        elif isinstance(part, list | tuple):
            for entry in part:
                add(entry)
        elif isinstance(part, torch.Tensor):
            hashed.update(f"{part.dtype}{tuple(part.shape)}".encode())
            hashed.update(part.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            hashed.update(repr(part).encode())

    add(value)
    return hashed.hexdigest()


def state_of(folder: Path) -> dict[str, str]:
    content = load_checkpoint(folder / "checkpoint_last.pth")
    return {name: digest(content[name]) for name in ("model", "objective", "optimizer", "scaler", "step", "kept")}


def rows(folder: Path, kind: str) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, phantom_data: tuple[str, ...]) -> Path:
    """A run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    finished = run(*command(folder, phantom_data))
    assert finished.returncode == 0, finished.stderr
    return folder


@pytest.mark.parametrize(
    ("number", "to_the_group", "workers"),
    [(signal.SIGTERM, False, (0, 2)), (signal.SIGINT, True, (2, 0))],
    ids=["terminated", "interrupted at the keyboard, workers too"],
)
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does_to_the_bit(
    number: signal.Signals,
    to_the_group: bool,
    workers: tuple[int, int],
    straight: Path,
    phantom_data: tuple[str, ...],
    tmp_path: Path,
):
    folder = tmp_path / "run"
    process = start(*command(folder, phantom_data, f"data.num_workers={workers[0]}"))
    wait_for_steps(process, folder / "metrics.jsonl", 7)
    (os.killpg if to_the_group else os.kill)(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4, err
    stopped = re.fullmatch(
        rf"stopped: stopped by {number.name} after step (\d+); start the same command again to continue\.",
        err.strip().splitlines()[-1],
    )
    assert stopped is not None, err
    step = int(stopped[1])
    assert 7 <= step < 5 * NUM_EPOCHS
    assert load_checkpoint(folder / "checkpoint_last.pth")["step"] == step

    continued = run(*command(folder, phantom_data, f"data.num_workers={workers[1]}"))
    assert continued.returncode == 0, continued.stderr
    assert f"continuing this run exactly, from {folder}/checkpoint_step_{step:08d}.pth at step {step}" in (
        continued.stdout
    )
    expected, actual = state_of(straight), state_of(folder)
    del expected["kept"], actual["kept"]  # the stop itself left a checkpoint without a score
    assert actual == expected
    for kind in ("train", "validation"):
        assert rows(folder, kind) == rows(straight, kind)
    assert [row["step"] for row in rows(folder, "train")] == list(range(1, 5 * NUM_EPOCHS + 1))


def test_eight_pairs_can_be_learned_by_heart(phantom_data: tuple[str, ...]):
    config = tiny_config(*phantom_data, *NO_DROPOUT, "training.weight_decay=0", "training.gradient_checkpointing=false")
    cases = prepare_cohort(find_cohort(config), config, workers=0).training[:8]
    texts = [case.reports[0].answer for case in cases]
    assert len(set(texts)) == 8
    torch.manual_seed(0)
    built = build(config, train_small_tokenizer(texts, 600))
    table, device = load_region_table(), torch.device("cpu")
    dataset = CaseDataset(
        cases, open_cache(config), ReportTokenizer(built.tokenizer_json, config.text.max_len), table, None, 0
    )
    (batch,) = evaluation_batches(dataset, [range(8)], Preprocess.from_config(config.preprocess))
    step = micro_batch(batch, config, table, seed=0)
    assert to_intensities(batch, config.model.windows_hu, table)[0].shape == (8, 1, 8, 32, 32)
    objective = ContrastiveObjective(config.objective)
    modules = (built.model.train(), objective)
    update = Update(
        [p for module in modules for p in module.parameters()],
        build_optimizer(modules, config.training),
        torch.amp.GradScaler("cpu", enabled=False),
        1.0,
    )
    first = float(backward(built.model, objective, [step]).total)
    for _ in range(8):
        for _ in range(25):
            losses = backward(built.model, objective, [step])
            update(2e-3)
        result = measure_retrieval(embed_cases(built.model, config, dataset, device, {}))
        if result.image_to_text["R@1"] == result.text_to_image["R@1"] == 1.0 and float(losses.total) < first / 4:
            return
    raise AssertionError(f"{result.image_to_text} {result.text_to_image} {losses}")


def in_process(output_dir: Path, data: tuple[str, ...], *flags: str, overrides: tuple[str, ...] = ()) -> int:
    """The same command line in this process; returns the exit code."""
    arguments = command(output_dir, data, *overrides)[len(TRAIN) :]
    return main(["train", *arguments, *flags])


def test_changed_settings_are_refused_and_listed(
    straight: Path, phantom_data: tuple[str, ...], capsys: pytest.CaptureFixture[str]
):
    before = state_of(straight)
    changes = ("training.lr=0.5", "model.dropout=0.2")
    assert in_process(straight, phantom_data, "--batch_size", "2", overrides=changes) == 2
    said = capsys.readouterr().err
    for line in (
        "configuration: ",
        "cannot be continued exactly:",
        "model.dropout: 0.1 then, 0.2 now",
        "training.lr: 5e-05 then, 0.5 now",
        "pairs per step: 6 then, 4 now",
    ):
        assert line in said
    assert state_of(straight) == before


def test_another_stage_starts_at_epoch_0_with_the_weights(
    straight: Path, phantom_data: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    flags = ("--resume", str(straight / "checkpoint_best.pth"), "--num_epochs", "1", "--lr", "1e-20")
    assert in_process(tmp_path / "next", phantom_data, *flags, overrides=("stage=second", "training.min_lr=0")) == 0
    said = capsys.readouterr().out
    assert "new stage 'second' at epoch 0 with the weights of stage 'finetune'" in said
    assert "optimiser, schedule and temperature start anew" in said
    before = load_checkpoint(straight / "checkpoint_best.pth")
    after = load_checkpoint(tmp_path / "next" / "checkpoint_last.pth")
    assert (after["stage"], after["step"]) == ("second", 5)
    assert after["tokenizer_json"] == before["tokenizer_json"]
    for name, tensor in before["model"].items():  # at a rate of almost nothing they stay where they were
        torch.testing.assert_close(after["model"][name], tensor)
    assert float(after["objective"]["logit_scale"]) == pytest.approx(math.log(1 / 0.07))


def test_a_checkpoint_of_another_model_is_refused(
    straight: Path, phantom_data: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    flags = ("--resume", str(straight / "checkpoint_best.pth"))
    overrides = ("stage=second", "model.embed_dim=16")
    assert in_process(tmp_path / "next", phantom_data, *flags, overrides=overrides) == 3
    said = capsys.readouterr().err
    assert "is a checkpoint of another model" in said
    assert "in the checkpoint" in said
    assert not (tmp_path / "next").exists()
