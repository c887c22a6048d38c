"""The loop around the step: when it validates, saves, records, stops and gives up."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertModel

from tiny import tiny_config
from vlm3d_ct.checkpoint import load_checkpoint
from vlm3d_ct.cli.train import make_validate
from vlm3d_ct.config import Config
from vlm3d_ct.data.dataset import CaseDataset
from vlm3d_ct.errors import ConfigError, DataError, Stopped
from vlm3d_ct.models import VisionLanguageModel
from vlm3d_ct.training.lock import LOCK_FILE
from vlm3d_ct.training.run import train
from vlm3d_ct.training.stop import STOPPED_FILE
from vlm3d_ct.training.trainer import Stopping, Validate

HOLD = """
import sys
from pathlib import Path
from vlm3d_ct.training.lock import only_run
with only_run(Path("{folder}")):
    print("held", flush=True)
    sys.stdin.read()
"""


def config_of(phantom_data: tuple[str, ...], *overrides: str) -> Config:
    """5 steps an epoch: 21 volumes take 4, 6 slices take 1."""
    return tiny_config(
        *phantom_data, "training.batch_size=6", "training.num_epochs=3", "training.val_interval=2", *overrides
    )


class Scores:
    """A validation with given scores that notes what it was given."""

    def __init__(self, *scores: float, interrupt: bool = False):
        self.scores, self.interrupt = list(scores), interrupt
        self.patients: set[str] = set()
        self.called = 0

    def __call__(self, config: Config, dataset: CaseDataset, device: torch.device) -> Validate:
        self.patients = {case.patient_id for case in dataset.cases}
        assert {case.kind for case in dataset.cases} == {"volume"}

        def validate(model: VisionLanguageModel, _stopping: Stopping) -> Mapping[str, float]:
            self.called += 1
            if self.interrupt:
                os.kill(os.getpid(), signal.SIGTERM)
            return {"R@1": 0.25, "score": self.scores.pop(0)}

        return validate


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_a_run_validates_saves_and_records_when_it_should(
    phantom_data: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "exp_log" / "pretrain"
    scores = Scores(0.7, 0.4)
    config = config_of(phantom_data, "training.num_epochs=3", "training.log_interval=4")
    train(config, out, None, scores)
    assert scores.called == 2  # after epoch 2 and after the last
    names = [f"checkpoint_step_{step:08d}.pth" for step in (10, 15)]
    assert sorted(p.name for p in out.iterdir()) == [
        "cases.json",
        "checkpoint_best.pth",
        "checkpoint_last.pth",
        *names,
        "metrics.jsonl",
        "run.lock",
        "summary.json",
    ]
    assert (out / "checkpoint_best.pth").readlink().name == names[0]
    content = load_checkpoint(out / "checkpoint_last.pth")
    assert (content["step"], content["stage"], content["step_batch"]) == (15, "pretrain", 6)
    assert content["config"]["training"]["num_epochs"] == 3
    assert not scores.patients & set(content["training_patients"])
    train_rows = records(out, "train")
    assert [row["step"] for row in train_rows] == [4, 8, 12, 15]
    expected = {
        "loss",
        "global_loss",
        "region_loss",
        "reasoning_loss",
        "sentence_loss",
        "sentence_region_loss",
        "occupancy_loss",
        "lr",
        "grad_norm",
        "temperature",
    }
    expected |= {f"grad_norm_{part}" for part in ("vision_encoder", "text_encoder", "region_path", "temperature")}
    expected |= {f"{side}_{name}" for side in ("volume", "text") for name in ("effective_rank", "mean_cosine")}
    expected |= {"matched_cosine", "unmatched_cosine", "logit_scale", "skipped_steps"}
    assert set(train_rows[0]) == {"step", "epoch", "kind", *expected}
    assert [row["score"] for row in records(out, "validation")] == [0.7, 0.4]
    assert {"samples_per_second", "data_wait_seconds"} <= set(records(out, "system")[0])
    assert list((tmp_path / "exp_log" / "tensorboard" / "pretrain").glob("events.*"))
    said = capsys.readouterr().out
    assert "1 rank x 6 pairs x 1 accumulated = 6 contrastive pairs per step, 5 negatives for each" in said
    assert "5 steps per epoch x 3 epochs = 15 steps" in said
    assert "a step of volumes of 8x32x32 with texts of 96 tokens: about 0." in said
    foretold = re.search(r"a checkpoint takes about ([\d.]+) MB, at most 6 of them ([\d.]+) MB", said)
    assert foretold is not None
    size = (out / names[1]).stat().st_size / 1e6
    assert 0.7 * size < float(foretold[1]) < size  # a tiny model's file is names and tokenizer, too
    assert float(foretold[2]) == pytest.approx(6 * float(foretold[1]), rel=0.01)
    assert "15 steps of 6 pairs, in" in said
    assert f"best score 0.700: {out}/{names[0]}" in said


def test_a_run_contrasts_its_micro_batches_on_their_own_and_flips_scans_alone_when_it_is_told_to(
    phantom_data: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    parts = (
        "training.batch_size=3",
        "training.accumulation_steps=2",
        "training.num_epochs=1",
        "training.log_interval=1",
    )
    losses = {}
    for change in ("training.accumulation=exact", "training.accumulation=naive", "augment.mirror_words=false"):
        train(config_of(phantom_data, *parts, change), tmp_path / change, None, Scores(0.5))
        losses[change] = records(tmp_path / change, "train")[0]["global_loss"]
    said = capsys.readouterr().out
    assert said.count("3 pairs x 2 accumulated = 6 contrastive pairs per step, 5 negatives for each") == 2
    assert said.count("3 pairs x 2 accumulated = 6 contrastive pairs per step, 2 negatives for each") == 1
    # the first step's, with the same weights: ln 3 rather than ln 6, and other words beside the flipped scans
    assert losses["training.accumulation=naive"] < losses["training.accumulation=exact"] - 0.3
    assert losses["augment.mirror_words=false"] != losses["training.accumulation=exact"]


def test_a_signal_stops_the_run_after_the_step_with_a_checkpoint(phantom_data: tuple[str, ...], tmp_path: Path):
    with pytest.raises(Stopped, match=r"stopped by SIGTERM after step 10; start the same command again"):
        train(config_of(phantom_data), tmp_path / "run", None, Scores(0.5, interrupt=True))
    assert load_checkpoint(tmp_path / "run" / "checkpoint_last.pth")["step"] == 10
    assert (tmp_path / "run" / "checkpoint_best.pth").exists()


def test_a_run_that_has_diverged_gives_up_and_names_the_cases(
    phantom_data: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = config_of(phantom_data, "training.lr=1e30", "training.max_nonfinite_steps=3", "training.warmup_epochs=0")
    with pytest.raises(DataError) as caught:
        train(config, tmp_path / "run", None, Scores(0.5))
    (problem,) = caught.value.problems
    assert problem.code == "not-finite"
    skipped = records(tmp_path / "run", "skipped")
    assert len(skipped) == 3
    assert ", ".join(skipped[-1]["cases"]) in problem.message
    said = capsys.readouterr().err
    for number, row in enumerate(skipped, 1):
        assert f"warning: step {row['step']} was skipped on all ranks: " in said
        assert f"({number} in a row; 3 end the run)" in said
    assert problem.message.startswith("3 steps in a row had no finite gradient and were skipped; cases of the last one")
    assert problem.message.count("train_") + problem.message.count("_1_") >= 6


def test_a_scaler_that_finds_its_scale_is_logged_and_not_warned_of(
    phantom_data: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = config_of(phantom_data, "training.num_epochs=1", "training.precision=fp16", "objective.global_weight=1000")
    train(config, tmp_path / "run", None, Scores(0.5))
    rows = records(tmp_path / "run", "skipped")
    assert rows
    assert all((row["cause"], row["cases"]) == ("overflow", []) for row in rows)
    content = load_checkpoint(tmp_path / "run" / "checkpoint_last.pth")
    assert (content["skipped_in_a_row"], content["scaler"]["scale"]) == (0, 65536 / 2 ** len(rows))
    assert "skipped" not in capsys.readouterr().err


def interrupted_validation(config: Config, dataset: CaseDataset, device: torch.device) -> Validate:
    """The command's own validation, which a signal reaches when it begins."""
    validate = make_validate(config, dataset, device)

    def interrupted(model: VisionLanguageModel, stopping: Stopping) -> Mapping[str, float]:
        os.kill(os.getpid(), signal.SIGUSR1)
        return validate(model, stopping)

    return interrupted


@pytest.mark.parametrize("step", [10, 15])
def test_a_validation_that_a_signal_ends_is_made_up_for(step: int, phantom_data: tuple[str, ...], tmp_path: Path):
    config = config_of(phantom_data, "training.val_interval=2" if step == 10 else "training.val_interval=3")
    train(config, tmp_path / "straight", None, make_validate)
    out = tmp_path / "run"
    with pytest.raises(Stopped, match=f"stopped by SIGUSR1 after step {step}; start the same command again"):
        train(config, out, None, interrupted_validation)
    assert load_checkpoint(out / "checkpoint_last.pth")["kept"] == [{"step": step, "score": None}]
    assert records(out, "validation") == []
    assert f"stopped by SIGUSR1 after step {step}" in (out / STOPPED_FILE).read_text()
    train(config, out, None, make_validate)
    assert not (out / STOPPED_FILE).exists()
    assert records(out, "validation") == records(tmp_path / "straight", "validation")
    ends = [load_checkpoint(folder / "checkpoint_last.pth") for folder in (out, tmp_path / "straight")]
    assert ends[0]["kept"] == ends[1]["kept"]
    assert all(torch.equal(ends[0]["model"][name], tensor) for name, tensor in ends[1]["model"].items())


def test_the_epochs_before_a_validation_that_fails_are_kept(phantom_data: tuple[str, ...], tmp_path: Path):
    config, out = config_of(phantom_data), tmp_path / "run"
    with pytest.raises(IndexError):
        train(config, out, None, Scores())  # it has no score to give
    assert load_checkpoint(out / "checkpoint_last.pth")["kept"] == [{"step": 10, "score": None}]
    again = Scores(0.5, 0.6)
    train(config, out, None, again)
    assert again.called == 2
    train(config, tmp_path / "straight", None, Scores(0.5, 0.6))
    ends = [load_checkpoint(folder / "checkpoint_last.pth") for folder in (out, tmp_path / "straight")]
    assert ends[0]["kept"] == ends[1]["kept"] == [{"step": 10, "score": 0.5}, {"step": 15, "score": 0.6}]
    assert all(torch.equal(ends[0]["model"][name], tensor) for name, tensor in ends[1]["model"].items())


def test_a_run_may_be_continued_in_fp16_where_it_began_in_another_precision(
    phantom_data: tuple[str, ...], tmp_path: Path
):
    with pytest.raises(Stopped):
        train(config_of(phantom_data), tmp_path / "run", None, Scores(0.5, interrupt=True))
    half = config_of(phantom_data, "training.precision=fp16")
    train(half, tmp_path / "run", None, Scores(0.6), frozenset({"training.precision"}))
    content = load_checkpoint(tmp_path / "run" / "checkpoint_last.pth")
    assert content["step"] == 15
    assert content["scaler"]["scale"] > 0


def test_a_folder_that_another_run_writes_to_is_refused(phantom_data: tuple[str, ...], tmp_path: Path):
    out = tmp_path / "run"
    holder = [sys.executable, "-c", HOLD.format(folder=str(out))]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=rf"another run writes there \(host .*, process {process.pid}\)"):
            train(config_of(phantom_data), out, None, Scores(0.5))
        assert [path.name for path in out.iterdir()] == [LOCK_FILE]
        process.kill()  # even so, the folder is free again
    train(config_of(phantom_data, "training.num_epochs=1"), out, None, Scores(0.5))
    assert load_checkpoint(out / "checkpoint_last.pth")["step"] == 5


def test_a_run_that_waited_while_another_wrote_its_folder_does_not_overwrite_it(
    phantom_data: tuple[str, ...], tmp_path: Path
):
    config, out = config_of(phantom_data, "training.num_epochs=1"), tmp_path / "run"

    def overtaken(config: Config, dataset: CaseDataset, device: torch.device) -> Validate:
        """Called once the run has decided where to start from, before it trains."""
        train(config, out, None, Scores(0.5))
        return Scores(0.6)(config, dataset, device)

    with pytest.raises(ConfigError, match="another run has written there since this one started"):
        train(config, out, None, overtaken)
    assert load_checkpoint(out / "checkpoint_last.pth")["kept"] == [{"step": 5, "score": 0.5}]


def test_a_finished_run_started_again_does_nothing(
    phantom_data: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = config_of(phantom_data, "training.num_epochs=1")
    train(config, tmp_path / "run", None, Scores(0.5))
    before = (tmp_path / "run" / "checkpoint_last.pth").read_bytes()
    again = Scores()
    train(config, tmp_path / "run", None, again)
    assert again.called == 0
    assert (tmp_path / "run" / "checkpoint_last.pth").read_bytes() == before
    assert "at step 5" in capsys.readouterr().out


def test_the_same_stage_is_continued_into_another_folder(phantom_data: tuple[str, ...], tmp_path: Path):
    with pytest.raises(Stopped):
        train(config_of(phantom_data), tmp_path / "a", None, Scores(0.5, interrupt=True))
    train(config_of(phantom_data), tmp_path / "b", tmp_path / "a" / "checkpoint_last.pth", Scores(0.6))
    assert load_checkpoint(tmp_path / "b" / "checkpoint_last.pth")["step"] == 15
    assert [row["step"] for row in records(tmp_path / "b", "validation")] == [15]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.batch_size=7", "6 cases of kind 'slice', but a step contrasts 7"),
        ("data.validation_fraction=0", "data.validation_fraction = 0.0: leaves no volume for validation"),
    ],
)
def test_a_run_that_cannot_be_leaves_nothing_behind(
    override: str, said: str, phantom_data: tuple[str, ...], tmp_path: Path
):
    with pytest.raises(ConfigError, match=said):
        train(config_of(phantom_data, override), tmp_path / "run", None, Scores())
    assert list(tmp_path.iterdir()) == []


def test_a_pretrained_bert_trains_with_its_dropout_from_the_first_step(
    phantom_data: tuple[str, ...], bert_folder: Path, tmp_path: Path
):
    """`from_pretrained` hands it over in evaluation mode; a resumed run would then differ from an uninterrupted one."""
    config = config_of(
        phantom_data, "training.num_epochs=1", "text.source=pretrained", f"text.name_or_path={bert_folder}"
    )

    def make_validate(_config: Config, _dataset: CaseDataset, _device: torch.device) -> Validate:
        def validate(model: VisionLanguageModel, _stopping: Stopping) -> Mapping[str, float]:
            assert all(module.training for module in model.modules())
            return {"score": 0.0}

        return validate

    train(config, tmp_path / "out", None, make_validate)


def test_readings_of_a_frozen_bert_are_found_by_the_next_run_and_change_nothing(
    phantom_data: tuple[str, ...], bert_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    frozen = ("training.num_epochs=2", "text.source=pretrained", f"text.name_or_path={bert_folder}", "text.frozen=true")
    config = config_of(phantom_data, *frozen, f"text.cache_dir={tmp_path / 'readings'}")
    before = BertModel.from_pretrained(bert_folder).state_dict()
    models = []
    for name in ("one", "two"):
        train(config, tmp_path / name, None, Scores(0.5))
        models.append(load_checkpoint(tmp_path / name / "checkpoint_last.pth")["model"])
    said = capsys.readouterr().out
    counts = re.findall(r"readings of texts are kept in .*: (\d+) there, .* of 50 GB", said)
    kept = len(list((tmp_path / "readings").rglob("*.reading")))
    assert [int(count) for count in counts] == [0, kept]
    assert kept > 21
    assert models[0].keys() == models[1].keys()
    for name, weight in models[0].items():
        assert torch.equal(weight, models[1][name]), name
    for name, weight in before.items():
        assert torch.equal(models[0][f"text_encoder.bert.{name}"], weight)
    assert f", frozen {sum(w.numel() for w in before.values()) / 1e6:.2f} M, and the temperature" in said


def test_a_bert_that_has_read_nothing_cannot_be_frozen(phantom_data: tuple[str, ...], tmp_path: Path):
    with pytest.raises(ConfigError, match=r"text\.frozen = true: a BERT made on the spot"):
        train(config_of(phantom_data, "text.frozen=true"), tmp_path / "run", None, Scores())
    assert list(tmp_path.iterdir()) == []
