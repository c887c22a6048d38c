"""Step and epoch times: measured at a size that takes no time, and computed by hand."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from vlm3d_ct.config import Config, config_from_mapping
from vlm3d_ct.models.flops import text_flops, vision_flops

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # where Python puts it when a script is run
TINY = (
    "preprocess.size=[8,64,64]",
    "preprocess.slice_size=[4,64,64]",
    "model.embed_dim=32",
    "model.depth=6",
    "model.num_heads=2",
    "model.patch_size=[4,8,8]",
    "text.max_len=16",
)


@pytest.fixture(scope="module")
def step_time() -> ModuleType:
    return importlib.import_module("step_time")


@pytest.fixture(scope="module")
def epoch_time() -> ModuleType:
    return importlib.import_module("epoch_time")


@pytest.fixture(scope="module")
def tiny() -> Config:
    return config_from_mapping({}, source="test", overrides=["training.precision=bf16", *TINY])


@pytest.fixture(scope="module")
def bert_json() -> str:
    from transformers import BertConfig

    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    return json.dumps(BertConfig(vocab_size=30, **small).to_dict())


def test_a_forward_pass_is_measured_of_the_patches_that_are_read(tiny: Config, bert_json: str):
    from speed.cases import cases_for
    from speed.measure import measure

    cases = {case.name: case for case in cases_for("cpu", "bf16")}
    whole, skipped = (
        measure(cases[name], tiny, bert_json, "cpu", 2) for name in ("slice_region", "slice_region, air skipped")
    )
    assert whole.read == 1.0
    assert 0.6 < skipped.read < 0.8  # columns of 8 x 8 patches that the body touches
    assert whole.flops == vision_flops(tiny.model, tiny.preprocess.size)
    assert skipped.flops == vision_flops(tiny.model, tiny.preprocess.size, skipped.read) < whole.flops
    assert all(0 < seconds < 60 for row in (whole, skipped) for seconds in row.seconds)
    assert 0.05 < whole.gib < 20  # torch alone takes more than 50 MiB


def test_a_training_step_is_measured_in_three_parts(tiny: Config, bert_json: str):
    from speed.cases import CHEAP, Case
    from speed.measure import measure

    row = measure(Case("cheap", (CHEAP,), batch=2, trains=True), tiny, bert_json, "cpu", 1)
    assert len(row.seconds) == 3
    assert all(0 < seconds < 60 for seconds in row.seconds)
    one = vision_flops(tiny.model, tiny.preprocess.size) + text_flops(tiny, json.loads(bert_json), 16)
    assert row.flops == 2 * 3 * one  # a forward pass, and a backward pass that costs two


def test_every_case_is_a_valid_configuration_of_the_plan():
    from speed.cases import cases_for

    for device in ("cpu", "cuda"):
        cases = cases_for(device, "fp16")
        assert len({case.name for case in cases}) == len(cases)
        assert all(case.config(Config()).training.precision == "fp16" for case in cases)


def test_every_part_of_a_step_is_timed_once(tiny: Config, bert_json: str):
    from speed.parts import ATTENTION, SMALL, profile_parts

    names = [part.name for part in profile_parts(tiny, bert_json, 1, "cpu", 1)]
    rest = {"linear maps, norms, GELU, dropout", "text", "optimizer"}
    assert sorted(names) == sorted({*SMALL, *ATTENTION, *rest})


def test_texts_are_timed_for_each_way_to_read_them(tiny: Config, bert_json: str):
    from speed.texts import WAYS, text_seconds

    seconds = text_seconds(tiny, bert_json, 2, "cpu", 1)
    assert tuple(seconds) == WAYS
    assert all(0 < taken < 60 for taken in seconds.values())


def test_the_small_parts_have_their_share_of_all():
    from speed.parts import Part, small_share

    assert small_share([Part("text", 6.0), Part("losses", 1.0), Part("augmentation", 3.0)]) == 0.4


def test_the_page_and_its_figures_are_written(step_time: ModuleType, epoch_time: ModuleType, tmp_path: Path):
    from speed.cases import cases_for
    from speed.measure import Row
    from speed.parts import Part

    seconds = {"slice_region": 2.0, "dense": 12.0}
    rows = [
        Row(case, [4.0, 8.0, 1.0] if case.trains else [seconds.get(case.name, 1.0)], 3.0, 10**12, 1.0)
        for case in cases_for("cpu", "bf16")
    ]
    parts = [Part("text", 9.0), Part("losses", 1.0)]
    parsed = step_time.parse(["--results", str(tmp_path), "--device", "cpu"])
    step_time.write(rows, parts, {"learns": 2.0, "frozen": 0.5}, Config(), parsed, 1e12)
    (page,) = tmp_path.glob("step_time_*.md")
    text = page.read_text()
    assert "| slice_region | 1 | 100% | 2 s | 6.00 times as fast | 1.00 | 50% | 3.00 GiB |" in text
    assert "| slice_region, batch 4 | 4 | 100% | 1 s | 48.00 times as fast |" in text  # 12 s for each of four volumes
    assert "| nothing recomputed | 1 | 100% | 4 s | 8 s | 1 s | 13 s | 1.00 | 8% | 3.00 GiB |" in text
    assert "| slice_region, 64 slices | 1 | 100% | 1 s | - | 1.00 | 100% | 3.00 GiB |" in text
    assert "32 to 64 slices: 1.00 times the time" in text
    assert "| text | 9 s | 90.0% |" in text
    assert "| frozen | 0.5 s |" in text
    hardware, measured = epoch_time.read(page.with_suffix(".json"), 1e6)
    assert hardware.endswith(", bf16")
    assert measured["nothing recomputed"] == epoch_time.Measured(1, 4.0, 8.0, 1.0, 4e6)


def test_what_does_not_fit_is_said_and_the_rest_is_kept(step_time: ModuleType, tmp_path: Path):
    from speed.cases import cases_for
    from speed.measure import Row

    rows = [
        Row(case, [] if "dense" in case.name or "nothing" in case.name else [2.0] * (1 + 2 * case.trains), 1.0, 1, 1.0)
        for case in cases_for("cuda", "bf16")
    ]
    text = step_time.write(rows, [], {}, Config(), step_time.parse(["--results", str(tmp_path)]), 1e12)
    assert "| dense | 1 | did not fit |" in text
    assert "| nothing recomputed | 8 | did not fit |" in text
    assert "| slice_region | 1 | 100% | 2 s | - |" in text


def test_the_plans_steps_are_the_plans(epoch_time: ModuleType):
    micro_batch = epoch_time.Measured(8, 0.05, 0.1, 0.01, 8e8)
    counts = [[epoch_time.steps_of(stage, micro_batch, gpus) for stage in epoch_time.STAGES] for gpus in (1, 2, 4)]
    assert counts == [[34_250, 19_400]] * 3
    assert epoch_time.steps_of(epoch_time.STAGES[0], micro_batch, 64) == 50 * 43  # of 512 pairs


def test_a_step_takes_what_its_formula_says(epoch_time: ModuleType):
    m = epoch_time.Measured(8, 0.05, 0.1, 0.01, 8e8)
    assert epoch_time.step_seconds(m, 1, None, None) == pytest.approx(4 * 0.2 + 0.01)
    assert epoch_time.step_seconds(m, 2, 100, None) == pytest.approx(2 * 0.2 + 0.01 + 8e8 / 1e11)
    assert epoch_time.step_seconds(m, 4, 100, None) == pytest.approx(0.15 + 0.01 + 1.5 * 8e8 / 1e11)
    assert epoch_time.step_seconds(m, 2, 100, 20) == pytest.approx(16 / 20)  # the loader is what takes time
    with pytest.raises(ValueError, match="2 GPUs"):
        epoch_time.step_seconds(m, 2, None, None)


def test_the_peak_is_that_of_a_product_of_matrices():
    from speed.clock import matrix_peak

    assert 1e8 < matrix_peak(torch.device("cpu"), torch.float32, side=256) < 1e14
