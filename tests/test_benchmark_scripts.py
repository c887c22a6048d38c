"""The benchmark scripts measure what they say, at a size that takes no time."""

from __future__ import annotations

import importlib.util
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from vlm3d_ct.config import Config, config_from_mapping, load_config

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # where Python puts it when a script is run


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tiny() -> Config:
    model = {"embed_dim": 16, "depth": 4, "num_heads": 2, "patch_size": [4, 8, 8]}
    return config_from_mapping(
        {"preprocess": {"size": [8, 32, 32], "slice_size": [4, 32, 32]}, "model": model}, source="test"
    )


def test_the_page_is_named_by_theme_hardware_and_month():
    pages = load_script("pages")
    path = pages.result_path(Path("r"), "theme", "NVIDIA H200 (141 GB)", datetime(2026, 3, 9, tzinfo=UTC))
    assert path == Path("r/theme_nvidia_h200_141_gb_202603.md")


@pytest.fixture(scope="module")
def evaluation_speed() -> ModuleType:
    return load_script("evaluation_speed")


@pytest.mark.parametrize("right", ["own", "patient"])
def test_a_retrieval_evaluation_is_measured_with_its_time_and_memory(evaluation_speed: ModuleType, right: str):
    measured = evaluation_speed.measure(cases=300, width=16, num_samples=40, right=right)
    assert (measured.cases, measured.right) == (300, right)
    assert 100 < measured.patients < 300
    assert 0 < measured.ranks_s < 60
    assert 0 < measured.bootstrap_s < 60
    assert 0.05 < measured.peak_gb < 20


def test_the_page_of_the_evaluation_says_time_memory_and_load(evaluation_speed: ModuleType):
    row = evaluation_speed.Measurement(
        cases=25_000, patients=13_000, right="own", ranks_s=11.25, bootstrap_s=1.0, peak_gb=0.654, load=(0.0, 1.5)
    )
    page = evaluation_speed.render([row], 768, 1000, "Some CPU", datetime(2026, 11, 23, tzinfo=UTC))
    assert "| 25,000 | 13,000 | own | 11.2 s | 1.0 s | 12.2 s | 0.65 GB | 0.0, 1.5 |" in page
    assert "1000 samples" in page


def test_derived_regions_are_scored_by_overlap_and_distance():
    script = load_script("derived_regions")
    truth = np.zeros((10, 12, 14), bool)
    truth[2:8, 2:8, 2:8] = True
    shifted = np.roll(truth, 1, axis=0)
    assert script.scores(truth, truth, (2.0, 1.0, 1.0)) == (1.0, 0.0)
    dice, distance = script.scores(shifted, truth, (2.0, 1.0, 1.0))
    assert dice == pytest.approx(5 / 6)
    assert 0 < distance < 2.0


@pytest.fixture(scope="module")
def reference_run() -> ModuleType:
    return load_script("reference_run")


def write_stage(folder: Path, losses: list[float], steps_per_epoch: int) -> None:
    """Four-digit epochs and a validation after every second epoch, as a run records them."""
    folder.mkdir(parents=True)
    lines = []
    for step, loss in enumerate(losses, 1):
        epoch = round(step / steps_per_epoch, 4)
        row = {"loss": loss, "global_loss": loss / 2, "region_loss": None, "sentence_loss": 2.5}
        row["occupancy_loss"] = 0.125
        lines.append({"step": step, "epoch": epoch, "kind": "train", **row})
        lines.append({"step": step, "epoch": epoch, "kind": "system", "step_seconds": 1.0})
        if step % (2 * steps_per_epoch) == 0:
            scores = {"image_to_text/MRR": 0.5, "score": 0.25}
            lines.append({"step": step, "epoch": epoch, "kind": "validation", **scores})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = {"stage": "pretrain", "seed": 3, "steps": len(losses), "pairs_per_step": 16, "skipped_steps": 1}
    best = {"best_score": 0.25, "best_checkpoint": "checkpoint_step_00000006.pth"}
    (folder / "summary.json").write_text(json.dumps({**summary, **best}))


def test_the_reference_page_is_filled_between_its_markers_with_means_by_epoch(
    reference_run: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_stage(tmp_path / "out" / "pretrain", [4.0, 3.0, 2.0, 1.0, 1.0, 0.25], steps_per_epoch=3)
    page = tmp_path / "page.md"
    page.write_text(reference_run.PAGE.read_text(encoding="utf-8"))
    reference_run.main([str(tmp_path / "out"), "--page", str(page)])
    reference_run.main([str(tmp_path / "out"), "--page", str(page)])  # again: in place of the first
    text = page.read_text()
    assert text.startswith("# A reference run")
    assert "Not measured yet" not in text
    assert text.count("Stage pretrain, seed 3: 6 steps of 16 pairs, 1 of them skipped; best score 0.250") == 1
    assert text.count("| 1 | 3.000 | 1.500 |  | 2.500 | 0.125 |  |  |  |  |  |") == 1
    assert text.count("| 2 | 0.750 | 0.375 |  | 2.500 | 0.125 |  | 0.500 |  |  | 0.250 |") == 1
    assert text.count(reference_run.BEGIN) == text.count(reference_run.END) == 1
    with pytest.raises(SystemExit, match="no finished stage"):
        reference_run.main([str(tmp_path), "--page", str(page)])


@pytest.fixture(scope="module")
def trainer_overhead() -> ModuleType:
    return load_script("trainer_overhead")


def test_the_overhead_is_measured_of_valid_configurations(trainer_overhead: ModuleType):
    assert load_config(trainer_overhead.DEMO, trainer_overhead.TINY).model.depth == 4


def test_the_overhead_of_logging_is_measured_against_the_bare_step(trainer_overhead: ModuleType, tiny: Config):
    measured = trainer_overhead.measure("tiny", tiny, pairs=2, num_steps=4)
    assert measured.num_steps == 4
    assert measured.step_seconds > 0
    assert 0 < measured.log_seconds < 60
    assert measured.overhead(10) == pytest.approx(measured.log_seconds / (10 * measured.step_seconds))
