"""The plan's four commands, as they are written there, with a small model, on phantoms, into another folder."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from commands import PROGRAM, as_flags, free_port, run, start
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tiny import OVERRIDES
from vlm3d_ct.checkpoint import load_checkpoint
from vlm3d_ct.data.cohort import hash_patient
from vlm3d_ct.data.names import volume_patient, volume_stem

pytestmark = pytest.mark.timeout(900)  # the first test of the file pays for the training
LAUNCH = (sys.executable, "-m", "torch.distributed.launch", "--nproc_per_node=2")
QUICK = (
    "preprocess.size=[8, 16, 16]",
    "preprocess.slice_size=[4, 16, 16]",
    "model.attn_dropout=0",
    "text.max_len=32",
    "training.gradient_checkpointing=false",
    "training.val_interval=25",
    "training.log_interval=5",
)
TRAINING_TAGS = {"train/loss", "train/global_loss", "train/region_loss", "train/lr", "train/grad_norm"}
SYSTEM_TAGS = {"system/data_wait_seconds", "system/samples_per_second"}
VALIDATION_TAGS = {
    f"validation/{direction}/{metric}"
    for direction in ("image_to_text", "text_to_image")
    for metric in ("R@1", "R@5", "R@10", "MRR")
}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with phantoms for two ranks with 16 pairs each of both kinds."""
    folder = tmp_path_factory.mktemp("experiment")
    made = run(PROGRAM, "phantom", str(folder / "data"), "--patients", "44", "--slices", "40", "--workers", "1")
    assert made.returncode == 0, made.stderr
    return folder


def overrides(folder: Path, *more: str) -> list[str]:
    data = (f"data.ctrate_dir={folder}/data/ct_rate", f"data.cache_dir={folder}/cache")
    return as_flags((*OVERRIDES, *QUICK, *data, *more))


@pytest.fixture(scope="module")
def pretrained(experiment: Path) -> subprocess.CompletedProcess[str]:
    return run(
        *(*LAUNCH, f"--master_port={free_port()}", "training/train.py"),
        *("--config", "configs/pretrain_ctrate.yaml", "--output_dir", str(experiment / "exp_log/pretrain")),
        *("--num_epochs", "50", "--batch_size", "8", "--lr", "1e-4", "--fp16"),
        *overrides(experiment),
    )


@pytest.fixture(scope="module")
def finetuned(experiment: Path, pretrained: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert pretrained.returncode == 0, pretrained.stderr[-2000:]
    return run(
        *(*LAUNCH, f"--master_port={free_port()}", "training/train.py"),
        *("--config", "configs/finetune_combined.yaml", "--output_dir", str(experiment / "exp_log/finetune")),
        *("--num_epochs", "20", "--batch_size", "16", "--lr", "5e-5", "--fp16"),
        *("--resume", str(experiment / "exp_log/pretrain/checkpoint_best.pth")),
        *overrides(experiment, f"data.omniabnorm_dir={experiment}/data/omniabnorm"),
    )


def tags(folder: Path) -> dict[str, list[float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_pre_training_runs_on_two_ranks(experiment: Path, pretrained: subprocess.CompletedProcess[str]):
    assert pretrained.returncode == 0, pretrained.stderr[-2000:]
    for line in (
        "2 ranks x 8 pairs x 2 accumulated = 32 contrastive pairs per step, 31 negatives for each",
        "precision fp16; device cpu",
        "2 steps per epoch x 50 epochs = 100 steps",
    ):
        assert pretrained.stdout.count(line) == 1, pretrained.stdout
    content = load_checkpoint(experiment / "exp_log/pretrain/checkpoint_last.pth")
    assert (content["stage"], content["step"], content["step_batch"]) == ("pretrain", 100, 32)
    assert content["config"]["training"]["lr"] == 1e-4
    assert content["config"]["training"]["precision"] == "fp16"


def test_fine_tuning_starts_from_the_best_pre_trained_checkpoint(
    experiment: Path, finetuned: subprocess.CompletedProcess[str]
):
    assert finetuned.returncode == 0, finetuned.stderr[-2000:]
    assert "new stage 'finetune' at epoch 0 with the weights of stage 'pretrain'" in finetuned.stdout
    assert "2 ranks x 16 pairs x 1 accumulated = 32 contrastive pairs per step" in finetuned.stdout
    assert "38 volumes and 35 slices to train on" in finetuned.stdout
    assert "4 steps per epoch x 20 epochs = 80 steps" in finetuned.stdout
    content = load_checkpoint(experiment / "exp_log/finetune/checkpoint_last.pth")
    assert (content["stage"], content["step"]) == ("finetune", 80)
    assert content["config"]["training"]["lr"] == 5e-5


@pytest.fixture(scope="module")
def results(experiment: Path, finetuned: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What the evaluation wrote."""
    assert finetuned.returncode == 0, finetuned.stderr[-2000:]
    output = experiment / "exp_log/eval_results"
    evaluated = run(
        *(sys.executable, "evaluation/retrieval.py", "--checkpoint"),
        *(str(experiment / "exp_log/finetune/checkpoint_best.pth"), "--data_dir", f"{experiment}/data/ct_rate"),
        *("--output_dir", str(output)),
    )
    assert evaluated.returncode == 0, evaluated.stderr
    assert "chance" in evaluated.stdout
    assert f"report: {output}/report.html" in evaluated.stdout
    loaded: dict[str, Any] = json.loads((output / "results.json").read_text())
    return loaded


def test_retrieval_writes_the_results_that_others_rely_on(experiment: Path, results: dict[str, Any]):
    assert results.keys() >= {"pool", "image_to_text", "text_to_image", "chance", "provenance"}
    assert set(results["pool"]) == {"name", "size", "cases_file"}
    for direction in ("image_to_text", "text_to_image"):
        assert results[direction].keys() >= {"R@1", "R@5", "R@10", "MRR", "median_rank"}
        assert all(0 <= results[direction][name] <= 1 for name in ("R@1", "R@5", "R@10", "MRR"))
    size = results["pool"]["size"]
    assert results["chance"] == {f"R@{k}": pytest.approx(min(1, k / size)) for k in (1, 5, 10)}
    output = experiment / "exp_log/eval_results"
    cases = (output / results["pool"]["cases_file"]).read_text().splitlines()
    assert len(cases) == size
    assert (output / "report.html").read_text().lstrip().startswith("<!doctype html>")


def test_no_patient_of_the_training_is_in_the_pool(experiment: Path, results: dict[str, Any]):
    content = load_checkpoint(experiment / "exp_log/finetune/checkpoint_best.pth")
    stems = [volume_stem(path.name) for path in (experiment / "data/ct_rate/volumes").iterdir()]
    unseen = {stem for stem in stems if hash_patient(volume_patient(stem)) not in content["training_patients"]}
    pool = (experiment / "exp_log/eval_results" / results["pool"]["cases_file"]).read_text().split()
    assert set(pool) == unseen
    assert len(unseen) == 6
    assert results["left_out"] == {"patient seen in training": 38}


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_tensorboard_holds_what_the_plan_logs(
    stage: str, experiment: Path, finetuned: subprocess.CompletedProcess[str]
):
    found = tags(experiment / "exp_log/tensorboard" / stage)
    assert found.keys() >= TRAINING_TAGS | SYSTEM_TAGS | VALIDATION_TAGS | {"validation/region_alignment_accuracy"}
    steps = {"pretrain": 100, "finetune": 80}[stage]
    assert len(found["train/loss"]) == steps // 5
    assert max(found["train/lr"]) <= {"pretrain": 1e-4, "finetune": 5e-5}[stage] + 1e-9


def test_the_tensorboard_command_serves_both_stages(experiment: Path, finetuned: subprocess.CompletedProcess[str]):
    port = free_port()
    tensorboard = str(Path(sys.executable).with_name("tensorboard"))
    server = start(tensorboard, "--logdir", str(experiment / "exp_log/tensorboard"), "--port", str(port))
    try:
        assert server.stderr is not None
        assert any(f"http://localhost:{port}/" in line for line in server.stderr)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(100):  # it answers before it has read all files
            with direct.open(f"http://127.0.0.1:{port}/data/plugin/scalars/tags", timeout=30) as answer:
                found = {run: set(names) for run, names in json.load(answer).items()}
            if found.keys() == {"pretrain", "finetune"} and all(names >= TRAINING_TAGS for names in found.values()):
                break
            time.sleep(0.1)
        else:
            raise AssertionError(found)
    finally:
        server.terminate()
        server.communicate(timeout=30)
