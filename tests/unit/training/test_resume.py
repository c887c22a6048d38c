"""Where a run starts from, what it says about it, and what it refuses to continue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tiny import tiny_config
from vlm3d_ct.checkpoint import save_checkpoint
from vlm3d_ct.config import Config, config_to_mapping
from vlm3d_ct.errors import CheckpointError, ConfigError
from vlm3d_ct.training.resume import HARMLESS, Start, check_same_run, find_start
from vlm3d_ct.volumes.preprocess import Preprocess


def content(config: Config, step: int = 3) -> dict[str, Any]:
    return {
        "stage": config.stage,
        "step": step,
        "step_batch": 8,
        "config": config_to_mapping(config),
        "cohort_identity": "abc",
        "fingerprint": Preprocess.from_config(config.preprocess).fingerprint,
    }


def save(folder: Path, config: Config, step: int = 3) -> Path:
    path = folder / f"checkpoint_step_{step:08d}.pth"
    save_checkpoint(path, content(config, step))
    return path


def start_of(config: Config) -> Start:
    return Start(content(config), Path("before.pth"), continues=True)


PRETRAIN, FINETUNE = tiny_config(stage="pretrain"), tiny_config(stage="finetune")


def test_an_empty_folder_starts_from_scratch(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert find_start(PRETRAIN, tmp_path, None) == Start(None, None, continues=False)
    assert capsys.readouterr().out == "starting from scratch\n"


def test_a_folder_with_checkpoints_is_continued_whatever_resume_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    save(tmp_path / "run", PRETRAIN, 3)
    newest = save(tmp_path / "run", PRETRAIN, 12)
    start = find_start(PRETRAIN, tmp_path / "run", save(tmp_path / "other", FINETUNE))
    assert (start.source, start.continues) == (newest, True)
    assert f"continuing this run exactly, from {newest} at step 12" in capsys.readouterr().out


def test_a_new_stage_names_what_its_weights_did_not_learn_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = save(tmp_path / "run", PRETRAIN)
    other = tiny_config(
        "text.attention=sentence", "text.pooling=mean", "text.small_depth=2", "training.lr=1e-5", stage="finetune"
    )
    find_start(other, tmp_path / "new", path)
    said = [line for line in capsys.readouterr().out.splitlines() if "learned with another" in line]
    assert said == [
        "the weights learned with another text.attention: text then, sentence now",
        "the weights learned with another text.pooling: cls then, mean now",
    ]


def test_resuming_the_same_stage_continues_and_another_stage_starts_at_epoch_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = save(tmp_path / "run", PRETRAIN)
    same = find_start(PRETRAIN, tmp_path / "new", path)
    assert same.continues
    assert f"continuing exactly, from {path} at step 3" in capsys.readouterr().out
    other = find_start(FINETUNE, tmp_path / "new", path)
    assert not other.continues
    assert other.content is not None
    assert (
        f"new stage 'finetune' at epoch 0 with the weights of stage 'pretrain' ({path}, step 3); "
        "optimiser, schedule and temperature start anew" in capsys.readouterr().out
    )


def test_a_folder_of_another_stage_is_refused(tmp_path: Path):
    save(tmp_path, PRETRAIN)
    with pytest.raises(ConfigError, match=r"holds checkpoints of stage 'pretrain', this is 'finetune'"):
        find_start(FINETUNE, tmp_path, None)


def test_a_file_that_is_no_checkpoint_of_a_training_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"absent\.pth: cannot be read"):
        find_start(PRETRAIN, tmp_path / "new", tmp_path / "absent.pth")
    save_checkpoint(tmp_path / "other.pth", {"weights": 1})
    with pytest.raises(CheckpointError, match=r"other\.pth: has no 'stage'"):
        find_start(PRETRAIN, tmp_path / "new", tmp_path / "other.pth")


def test_all_changed_settings_are_listed_at_once():
    now = tiny_config("training.lr=0.5", "model.depth=5", "augment.noise_sigma=0.5", "data.num_workers=3")
    with pytest.raises(ConfigError) as caught:
        check_same_run(start_of(tiny_config()), now, "other cases", step_batch=9)
    message = str(caught.value)
    assert message.startswith("before.pth: cannot be continued exactly:\n")
    for line in (
        "training.lr: 0.0001 then, 0.5 now",
        "model.depth: 4 then, 5 now",
        "augment.noise_sigma: 0.01 then, 0.5 now",
        "pairs per step: 8 then, 9 now",
        "the training and validation cases are not the same",
    ):
        assert line in message
    assert "num_workers" not in message


def test_settings_that_move_no_weight_may_change_and_are_named(capsys: pytest.CaptureFixture[str]):
    now = tiny_config(
        "data.num_workers=3", "training.log_interval=7", "training.batch_size=2", "training.accumulation_steps=2"
    )
    check_same_run(start_of(tiny_config()), now, "abc", step_batch=8)
    said = capsys.readouterr().out
    assert "differs from the checkpoint: data.num_workers: 0 then, 3 now" in said
    assert "training.batch_size: 4 then, 2 now" in said


def test_a_setting_that_is_newer_than_the_checkpoint_counts_as_its_default(capsys: pytest.CaptureFixture[str]):
    before = start_of(PRETRAIN)
    assert before.content is not None
    newer = {
        "objective.soft_targets=false": "True then, False now",
        "model.attention=dense": "slice_region then, dense now",
        "training.accumulation=naive": "exact then, naive now",
        "augment.mirror_words=false": "True then, False now",
    }
    for setting in newer:
        section, _, name = setting.partition("=")[0].partition(".")
        del before.content["config"][section][name]
    check_same_run(before, PRETRAIN, "abc", step_batch=8)
    assert "differs" not in capsys.readouterr().out
    for setting, difference in newer.items():
        with pytest.raises(ConfigError, match=f"{setting.partition('=')[0]}: {difference}"):
            check_same_run(before, tiny_config(setting, stage="pretrain"), "abc", step_batch=8)


def test_micro_batches_that_are_contrasted_on_their_own_keep_their_size():
    naive = ("training.accumulation=naive", "training.batch_size=4", "training.accumulation_steps=2")
    now = tiny_config(*naive[:1], "training.batch_size=2", "training.accumulation_steps=4")
    with pytest.raises(ConfigError, match=r"training\.batch_size: 4 then, 2 now"):
        check_same_run(start_of(tiny_config(*naive)), now, "abc", step_batch=8)


def test_a_setting_may_change_when_that_is_asked_for(capsys: pytest.CaptureFixture[str]):
    now = tiny_config("training.lr=0.5", "training.num_epochs=9")
    with pytest.raises(ConfigError, match=r"training\.num_epochs: 50 then, 9 now"):
        check_same_run(start_of(tiny_config()), now, "abc", 8, {"training.lr"})
    check_same_run(start_of(tiny_config()), now, "abc", 8, {"training.lr", "training.num_epochs"})
    assert (
        "training.lr: 0.0001 then, 0.5 now (as asked for: from here on this is another run)" in capsys.readouterr().out
    )
    check_same_run(start_of(now), now, "abc", 8, {"training.lr"})  # started once more with the same command
    with pytest.raises(ConfigError, match=r"--allow_changes training\.rate: no such setting"):
        check_same_run(start_of(now), now, "abc", 8, {"training.rate"})
    with pytest.raises(ConfigError, match="pairs per step: 8 then, 9 now"):
        check_same_run(start_of(now), now, "abc", 9, {"training.batch_size"})


@pytest.mark.parametrize("setting", ["text.frozen=true", "training.optimizer=muon"])
def test_what_the_optimiser_holds_moments_of_cannot_change_within_a_run(setting: str):
    with pytest.raises(ConfigError, match=r"\(text\.frozen, training\.optimizer\): that takes another stage"):
        check_same_run(start_of(tiny_config()), tiny_config(setting), "abc", 8, {setting.partition("=")[0]})


def test_readings_of_texts_may_move_but_neither_begin_nor_end_within_a_run():
    without, here, there = (
        tiny_config("text.frozen=true", *more) for more in ([], ["text.cache_dir=here"], ["text.cache_dir=there"])
    )
    check_same_run(start_of(here), there, "abc", step_batch=8)
    for before, now in ((without, here), (here, without)):
        with pytest.raises(ConfigError, match=r"text\.cache_dir: (None|here) then, (here|None) now"):
            check_same_run(start_of(before), now, "abc", step_batch=8)


def test_the_list_of_harmless_settings_names_settings():
    mapping = config_to_mapping(tiny_config())
    assert [key for key in HARMLESS if key.split(".")[1] not in mapping[key.split(".")[0]]] == []


def test_another_preprocessing_is_refused():
    start = start_of(tiny_config())
    assert start.content is not None
    start.content["fingerprint"] = "0" * 12
    with pytest.raises(ConfigError, match="preprocessing: 000000000000 then"):
        check_same_run(start, tiny_config(), "abc", step_batch=8)
