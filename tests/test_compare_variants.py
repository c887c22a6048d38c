"""The comparison of variants: its statistics, and a whole one at a size that shows that every figure is found."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import pytest

from test_benchmark_scripts import load_script
from vlm3d_ct.config import load_config
from vlm3d_ct.config.load import config_from_mapping, config_to_mapping


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("compare_variants")


def test_the_interval_is_students(script: ModuleType):
    # mean 2, standard deviation 1, t(0.975, 2) = 4.3027
    mean, half = script.interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(4.3027 / math.sqrt(3), rel=1e-4))
    assert math.isnan(script.interval([5.0])[1])


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_every_variant_is_a_valid_configuration_of_its_own(script: ModuleType, stage: str):
    plain = config_to_mapping(load_config(Path(__file__).parents[1] / f"configs/demo_{stage}.yaml"))
    seen = []
    for variant in script.VARIANTS.values():
        changes = [*variant.both, *(variant.finetune if stage == "finetune" else ())]
        changes += ["data.omniabnorm_dir=null"] if stage == "finetune" and not variant.slices else []
        seen.append(config_to_mapping(config_from_mapping(plain, source=stage, overrides=changes)))
    different = [settings for i, settings in enumerate(seen) if settings not in seen[:i]]
    alike = {"pretrain": 3, "finetune": 1}[stage]  # what differs in fine-tuning only is pre-trained alike
    assert len(different) == len(seen) - alike + 1


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_small_comparison_fills_the_page_and_does_nothing_twice(script: ModuleType, tmp_path: Path):
    sizes = ["--patients", "60", "--slices", "30", "--test_patients", "20", "--seeds", "1", "--minutes", "0.02"]
    command = ["--out", str(tmp_path / "out"), "--page", str(tmp_path / "page.md"), *sizes]
    script.main([*command, "--variants", "full", "plain CLIP"])
    page = (tmp_path / "page.md").read_text()
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    table = [line for line in page.splitlines() if line.startswith(("| full", "| plain CLIP"))]
    assert len(table) == 2
    assert all(line.count("|") == 4 + len(script.FIGURES) and "nan" not in line for line in table)
    script.main([*command, "--variants", "full", "plain CLIP"])
    assert (tmp_path / "page.md").read_text() == page
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()} == written
