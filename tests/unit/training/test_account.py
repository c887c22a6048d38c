"""What a run says about itself: norms of the parts, health, alarm, estimate, totals and summary."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tiny import NO_DROPOUT, random_pairs, rows_of, tiny_config, tiny_model
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.health import effective_rank, mean_cosine
from vlm3d_ct.objectives import ContrastiveObjective, Targets
from vlm3d_ct.training.account import Account
from vlm3d_ct.training.gradients import clip_gradients, gradient_norms, parts_of
from vlm3d_ct.training.health import LEAST_PAIRS, MOST_PAIRS, PATIENCE, CollapseAlarm, PairWatch
from vlm3d_ct.training.keeper import Kept
from vlm3d_ct.training.step import backward
from vlm3d_ct.training.summary import SUMMARY_FILE, summarise, write_summary
from vlm3d_ct.training.totals import STEPS_BEFORE_AN_ESTIMATE, STEPS_OF_WARMING_UP, Pace, Totals

CPU = torch.device("cpu")


def test_the_parts_are_all_parameters_once_and_the_region_path_is_what_the_region_loss_alone_moves():
    config = tiny_config()
    model, objective = tiny_model(config), ContrastiveObjective(config.objective)
    parts = parts_of(model, objective)
    assert list(parts) == ["vision_encoder", "text_encoder", "region_path", "temperature"]
    together = [id(p) for part in parts.values() for p in part]
    assert sorted(together) == sorted(id(p) for p in (*model.parameters(), *objective.parameters()))
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)].rpartition(".")[0].partition(".")[2] for p in parts["region_path"]} == {
        "",  # vision_encoder.region_embedding
        "occupancy_norm",
        "occupancy_head",
        "region_proj",
        "region_projection",
    }


def test_norms_are_those_of_the_parts_and_clipping_is_torchs():
    config = tiny_config(*NO_DROPOUT)
    model, objective = tiny_model(config).train(), ContrastiveObjective(config.objective)
    backward(model, objective, [random_pairs(config, 4)])
    parts = parts_of(model, objective)
    for name, norm in gradient_norms(parts).items():
        flat = torch.cat([p.grad.flatten().double() for p in parts[name] if p.grad is not None])
        assert float(norm) == pytest.approx(float(flat.norm()), rel=1e-5), name
    parameters = [*model.parameters(), *objective.parameters()]
    before = [p.grad.clone() for p in parameters if p.grad is not None]
    norm = clip_gradients(parameters, 0.5)
    whole = torch.cat([gradient.flatten() for gradient in before])
    assert float(norm) == pytest.approx(float(whole.norm()), rel=1e-5)
    after = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    torch.testing.assert_close(after, whole * 0.5 / whole.norm(), rtol=1e-4, atol=1e-8)


def test_the_watch_measures_all_pairs_of_the_step_whatever_the_accumulation():
    config = tiny_config(*NO_DROPOUT)
    model, objective = tiny_model(config).train(), ContrastiveObjective(config.objective)
    watch, pairs = PairWatch(objective), random_pairs(config, 8)
    with torch.no_grad():
        seen = model(pairs.model_input)[0]
    volume, text = seen.volume.double().numpy(), seen.text.double().numpy()
    cosines = volume @ text.T
    found = []
    for size in (8, 2):
        backward(model, objective, [rows_of(pairs, start, start + size, seed=0) for start in range(0, 8, size)])
        found.append(watch.measure())
    for measured in found:
        assert measured["volume_effective_rank"] == pytest.approx(effective_rank(volume), rel=1e-3)
        assert measured["text_mean_cosine"] == pytest.approx(mean_cosine(text), abs=1e-4)
        assert measured["matched_cosine"] == pytest.approx(cosines.trace() / 8, abs=1e-4)
        assert measured["unmatched_cosine"] == pytest.approx((cosines.sum() - cosines.trace()) / 56, abs=1e-4)
        assert measured["logit_scale"] == pytest.approx(1 / 0.07, rel=1e-5)


def test_the_watch_measures_few_of_many_pairs_and_no_broken_ones():
    config = tiny_config()
    objective = ContrastiveObjective(config.objective)
    watch = PairWatch(objective)
    rows = F.normalize(torch.randn(3 * MOST_PAIRS, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    regions = F.normalize(torch.ones(len(rows), 2, 8), dim=-1)
    mentions, groups = torch.zeros(len(rows), 2, dtype=torch.bool), torch.zeros(len(rows), 2, dtype=torch.long)
    nothing, targets = (
        regions[:, :0],
        Targets(mentions, groups, *[groups[:, :0]] * 3, mentions[:, :0], mentions[:, None][:, :0]),
    )
    objective(rows, rows, regions, regions, *[nothing] * 6, targets)
    assert watch.measure()["volume_effective_rank"] == pytest.approx(effective_rank(rows[::3].double().numpy()))
    broken = rows.clone()
    broken[6, 3] = math.nan
    objective(broken, rows, regions, regions, *[nothing] * 6, targets)
    measured = watch.measure()
    assert math.isnan(measured["volume_effective_rank"])
    assert measured["logit_scale"] == pytest.approx(1 / 0.07, rel=1e-5)


GOOD = {"volume_mean_cosine": 0.5, "volume_effective_rank": 9.0, "text_mean_cosine": 0.5, "text_effective_rank": 9.0}


def alarms(alarm: CollapseAlarm, first: int, count: int, **changes: float) -> list[str]:
    return [said for step in range(first, first + count) for said in alarm(step, {**GOOD, **changes})]


ALIKE = [{"text_mean_cosine": 0.96}, {"text_effective_rank": 1.9}]


@pytest.mark.parametrize("change", ALIKE)
def test_a_lasting_collapse_is_warned_of_once_and_again_after_a_recovery(change: dict[str, float]):
    alarm = CollapseAlarm(late_step=1000.0, pairs=32)
    assert alarms(alarm, 1, PATIENCE) == []  # it is spread
    assert alarms(alarm, 11, PATIENCE - 1, **change) == []
    assert alarms(alarm, 20, 1) == []
    (said,) = alarms(alarm, 21, 3 * PATIENCE, **change)
    assert said.startswith(f"step {20 + PATIENCE}: the reports have collapsed")
    assert alarms(alarm, 50, 1) == []
    assert len(alarms(alarm, 51, PATIENCE, **change)) == 1


@pytest.mark.parametrize("change", ALIKE)
def test_what_begins_alike_is_warned_of_only_when_it_is_late(change: dict[str, float]):
    alarm = CollapseAlarm(late_step=100.0, pairs=32)
    assert alarms(alarm, 1, 100, **change) == []
    (said,) = alarms(alarm, 101, 100, **change)
    assert said.startswith("step 105: the reports have never been told apart")


def test_a_skipped_step_neither_spreads_nor_recovers():
    alarm, nothing = CollapseAlarm(1000.0, 32), {"text_mean_cosine": math.nan, "text_effective_rank": math.nan}
    assert alarms(alarm, 1, 50, **nothing) == []
    assert alarms(alarm, 51, 50, text_mean_cosine=0.96) == []  # it never was spread
    assert alarms(alarm, 101, PATIENCE) == []
    assert alarms(alarm, 111, PATIENCE - 1, text_mean_cosine=0.96) == []
    assert alarms(alarm, 121, 3, **nothing) == []
    assert len(alarms(alarm, 131, 1, text_mean_cosine=0.96)) == 1


def test_no_alarm_without_reason():
    assert alarms(CollapseAlarm(0.0, 32), 1, 50) == []
    assert alarms(CollapseAlarm(0.0, LEAST_PAIRS - 1), 1, 50, volume_effective_rank=1.0) == []


def test_the_estimate_comes_once_and_from_the_steps_after_warming_up():
    pace, steps = Pace(), 2 * STEPS_BEFORE_AN_ESTIMATE
    said = [pace.after_step(60.0 if i < STEPS_OF_WARMING_UP else 2.0, 1000 - i) for i in range(steps)]
    (line,) = [text for text in said if text is not None]
    assert said[STEPS_BEFORE_AN_ESTIMATE - 1] == line
    assert line == "after 20 steps: 2 s a step, about 32 min 42 s for the 981 steps that are left, without validation"


def test_the_summary_holds_the_whole_run_and_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = tiny_config("seed=7", "data.ctrate_dir=some where")
    totals = Totals(step_seconds=90.0, wait_seconds=10.0, skipped_steps=1)  # from before an interruption
    totals.count(10.0, 10.0, taken=False)
    kept = [Kept(5, 0.5), Kept(10, 0.75), Kept(15, 0.75), Kept(20, None)]
    summary = summarise(config, totals, kept, steps=20, pairs=4, output_dir=tmp_path / "run", device=CPU)
    (tmp_path / "run").mkdir()
    write_summary(summary, tmp_path / "run")
    stored = json.loads((tmp_path / "run" / SUMMARY_FILE).read_text())
    assert 50 << 20 < stored.pop("peak_memory_bytes") < 20 << 30
    command = (
        f"vlm3d-ct evaluate retrieval --checkpoint {tmp_path}/run/checkpoint_best.pth --data_dir 'some where' "
        f"--output_dir {tmp_path}/run/retrieval"
    )
    assert stored == {
        "stage": "pretrain",
        "seed": 7,
        "steps": 20,
        "epochs": 50,
        "pairs_per_step": 4,
        "step_seconds": 100.0,
        "samples_per_second": 0.8,
        "data_wait_share": 0.2,
        "skipped_steps": 2,
        "best_score": 0.75,
        "best_checkpoint": "checkpoint_step_00000010.pth",
        "next_command": command,
    }
    said = capsys.readouterr().out
    assert "20 steps of 4 pairs, 2 of them skipped, in 1 min 40 s" in said
    assert f"best score 0.750: {tmp_path}/run/checkpoint_step_00000010.pth" in said
    assert f"next: {command}\n" in said


def test_without_a_validation_there_is_no_best(tmp_path: Path):
    summary = summarise(tiny_config(), Totals(1.0), [Kept(5, None)], steps=5, pairs=4, output_dir=tmp_path, device=CPU)
    assert (summary.best_score, summary.best_checkpoint) == (None, None)


def test_the_loss_scale_is_taken_out_of_the_norms():
    config = tiny_config(*NO_DROPOUT)
    model, objective = tiny_model(config).train(), ContrastiveObjective(config.objective)
    account = Account(config, model, objective, steps_per_epoch=5, pairs=4)
    pairs, found = random_pairs(config, 4), []
    for scale in (1.0, 1024.0):
        for parameter in (*model.parameters(), *objective.parameters()):
            parameter.grad = None
        backward(model, objective, [pairs], loss_scale=scale)
        found.append(account.gradient_norms(torch.tensor(scale)))
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_a_summary_that_cannot_be_written_is_said_all_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    gone = tmp_path / "gone"
    summary = summarise(tiny_config(), Totals(1.0), [], steps=5, pairs=4, output_dir=gone, device=CPU)
    with pytest.raises(ConfigError, match=r"gone/summary\.json: cannot be written: No such file or directory"):
        write_summary(summary, gone)
    assert "5 steps of 4 pairs" in capsys.readouterr().out
