"""The comparison of variants: its statistics and goals, and a whole one at a size that shows that figures are found."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from test_benchmark_scripts import load_script
from vlm3d_ct.config import load_config
from vlm3d_ct.config.load import config_from_mapping, config_to_mapping

CONDITIONS = {"threads": 2, "test patients": 200}
STAGES = ("pretrain", "finetune")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("compare_variants")


@pytest.fixture(scope="module")
def parts(script: ModuleType) -> Any:
    from learning import goals, page, records, runs, variants  # found once the script is loaded

    return type("Parts", (), {"goals": goals, "page": page, "records": records, "runs": runs, "variants": variants})


def record(parts: Any, variant: str, seed: int, r5: float, auroc: float) -> Any:
    keys = [key for columns in parts.page.TABLES.values() for key in columns.values()]
    figures = dict.fromkeys(keys, 1.0) | {"AUROC": auroc, "findings below": 0.0, "alignment, true masks": 85.0}
    for words in ("to report", "to volume"):
        for suffix, change in (("", 0), (" without masks", -6), (" hard", -10), (" before fine-tuning", -5)):
            figures[f"R@5 {words}{suffix}"] = r5 + change
    finding = {"Emphysema": auroc, "Lung nodule": auroc}
    return parts.records.Record(variant, seed, CONDITIONS, 1.0, [2, 1], figures, finding)


def test_the_interval_is_students(parts: Any):
    # mean 2, standard deviation 1, t(0.975, 2) = 4.3027
    mean, half = parts.goals.interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(4.3027 / math.sqrt(3), rel=1e-4))
    for few in ([5.0], [4.0, 6.0]):
        mean, half = parts.goals.interval(few)
        assert mean == 5.0
        assert math.isnan(half)


def test_goals_are_judged_by_the_records(parts: Any):
    found = {
        "full": [record(parts, "full", seed, 61.0 + seed, 0.9) for seed in range(3)],
        "plain CLIP": [record(parts, "plain CLIP", seed, 40.0 + seed, 0.88) for seed in range(3)],
    }
    verdicts = {what: (shown, verdict) for what, shown, verdict in parts.goals.goals(found)}
    by_start = {what[:22]: found for what, found in verdicts.items()}
    assert verdicts["R@5 to report at least 60 %"] == ("62.0 ± 2.5", "reached")
    assert by_start["R@5 of the full design"] == ("+21.0", "reached")
    assert by_start["AUROC of the full desi"] == ("+0.020", "missed")
    assert by_start["R@5 lost without masks"] == ("+6.0 ± 0.0", "missed")
    assert by_start["R@5 lost on the hard s"] == ("+10.0 ± 0.0", "reached")
    assert by_start["R@5 won by fine-tuning"] == ("+5.0 ± 0.0", "reached")
    assert {verdict for _, _, verdict in parts.goals.goals({})} == {"not measured"}
    wide = {**found, "plain CLIP": [record(parts, "plain CLIP", seed, 30.0 + 10 * seed, 0.5) for seed in range(3)]}
    verdict = {what[:22]: verdict for what, _, verdict in parts.goals.goals(wide)}
    assert verdict["R@5 of the full design"] == "missed: the intervals overlap"
    single = {name: of_variant[:1] for name, of_variant in found.items()}
    verdict = {what[:22]: verdict for what, _, verdict in parts.goals.goals(single)}
    assert verdict["R@5 of the full design"] == "not measured: fewer than three seeds have no interval"


def test_records_are_kept_and_the_page_is_made_of_them_alone(script: ModuleType, parts: Any, tmp_path: Path):
    kept = [record(parts, name, seed, 50.0, 0.7) for name in ("full", "full, shorter") for seed in (0, 10)]
    for each in kept:
        parts.records.save(each, tmp_path / "records")
    assert parts.records.load(tmp_path / "records", "full") == kept[:2]
    assert parts.records.load(tmp_path / "records", "full, shorter") == kept[2:]
    (tmp_path / "benchmark_notes.md").write_text("## What did not happen\n")
    script.main(["--records", str(tmp_path / "records"), "--page", str(tmp_path / "page.md"), "--page_only"])
    page = (tmp_path / "page.md").read_text()
    assert "| full | 2 | 1.0 |" in page
    assert page.endswith("## What did not happen\n")
    for name in ("benchmark_variants.png", "benchmark_findings.png"):
        assert f"(pictures/{name})" in page
        with Image.open(tmp_path / "pictures" / name) as picture:
            assert picture.width > 600
        assert (tmp_path / "pictures" / name).stat().st_size < 100_000


def test_variants_are_compared_with_the_full_design_of_their_time_seed_by_seed(parts: Any, tmp_path: Path):
    found = {
        "full": [record(parts, "full", seed, 80.0, 0.9) for seed in (0, 1)],
        "plain CLIP": [record(parts, "plain CLIP", seed, 70.0 + seed, 0.8) for seed in (0, 1)],
        "full, shorter": [record(parts, "full, shorter", seed, 60.0 + 10 * seed, 0.7) for seed in range(3)],
        "dense": [record(parts, "dense", seed, 50.0 + 11 * seed, 0.7) for seed in range(3)],
    }
    page = parts.page.render(found, [], tmp_path / "none.md")
    assert "| plain CLIP | 2 | -10.0, -9.0 |" in page
    # -10, -9, -8: standard deviation 1, t(0.975, 2) = 4.3027, over the root of 3
    assert "| dense | 3 | -9.0 ± 2.5 |" in page
    assert page.count("| full, shorter |") == len(parts.page.TABLES)  # not compared with itself


def test_a_record_of_other_conditions_is_told_apart(parts: Any, tmp_path: Path):
    slower = replace(record(parts, "full", 1, 50.0, 0.7), conditions={"threads": 1})
    page = parts.page.render({"full": [record(parts, "full", 0, 50.0, 0.7), slower]}, [], tmp_path / "none.md")
    assert "- threads 2, test patients 200: full (0)." in page
    assert "- threads 1: full (1)." in page


def test_a_finding_that_one_test_set_cannot_measure_is_in_no_table(parts: Any, tmp_path: Path):
    rare = replace(record(parts, "full", 1, 50.0, 0.7), auroc={"Lung nodule": 0.7})
    page = parts.page.render({"full": [record(parts, "full", 0, 50.0, 0.7), rare]}, [], tmp_path / "none.md")
    assert "| Lung nodule |" in page
    assert "| Emphysema |" not in page


def test_what_is_recorded_is_not_run_again_and_what_differs_since_is_said(
    script: ModuleType, parts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name in parts.variants.VARIANTS:
        parts.records.save(record(parts, name, 0, 50.0, 0.7), tmp_path / "records")
    command = ["--records", str(tmp_path / "records"), "--page", str(tmp_path / "page.md"), "--seeds", "0"]
    command += ["--out", str(tmp_path / "out")]
    script.main([*command, "--minutes", "30", "--ablation_minutes", "10"])
    said = capsys.readouterr().out
    assert said.count("not run again") == len(parts.variants.VARIANTS)
    assert (
        f"full, shorter, seed 0: not run again, its record is {tmp_path / 'records'}/full_shorter_seed_0.json" in said
    )
    assert "planned minutes None then, 10.0 now" in said
    assert "test patients" not in said
    assert not (tmp_path / "out").exists()
    script.main([*command, "--minutes", "10", "--ablation_minutes", "10"])  # then full is what ablations are held to
    said = capsys.readouterr().out
    assert said.count("not run again") == len(parts.variants.VARIANTS) - 1
    assert "full, shorter" not in said


def test_a_folder_of_another_run_or_cohort_is_refused(parts: Any, tmp_path: Path):
    cohorts = parts.runs.Cohorts(tmp_path / "cohorts", 8, 4, 2)
    (tmp_path / "cohorts" / "training").mkdir(parents=True)
    (tmp_path / "cohorts" / "training.written").touch()
    (tmp_path / "cohorts" / "training" / "phantom.json").write_text('{"patients": 9, "slices": 4}')
    with pytest.raises(ValueError, match="holds 9 patients and 4 slices, wanted are 8 and 4"):
        cohorts.write()
    folder = tmp_path / "seed_0"
    folder.mkdir()
    (folder / "asked.json").write_text('{"minutes": 40, "settings": []}')
    with pytest.raises(ValueError, match=r"was begun with .*40.*, asked for is .*30"):
        parts.runs.run(parts.variants.VARIANTS["full"], 0, 30, folder, tmp_path / "pace", cohorts)


def test_fine_tuning_takes_the_time_that_whole_epochs_of_pre_training_leave(parts: Any):
    assert parts.runs.plan_epochs(40, [192.0, 96.0]) == [8, 9]
    assert parts.runs.plan_epochs(40, [187.0, 200.0]) == [8, 5]  # 904 s are left, not 960
    assert parts.runs.plan_epochs(0.1, [187.0, 200.0]) == [1, 1]


@pytest.mark.parametrize("stage", STAGES)
def test_naive_accumulation_splits_the_pairs_that_all_others_contrast(parts: Any, stage: str, tmp_path: Path):
    cohorts, variants = parts.runs.Cohorts(tmp_path, 8, 4, 2), parts.variants.VARIANTS
    more = ("training.batch_size=12", "training.accumulation_steps=3")
    for name, expected in (("full", (12, 3, "exact")), ("naive accumulation", (18, 2, "naive"))):
        settings = cohorts.settings(variants[name], stage, more)
        training = load_config(Path(__file__).parents[1] / f"configs/demo_{stage}.yaml", settings).training
        assert (training.batch_size, training.accumulation_steps, training.accumulation) == expected
    with pytest.raises(ValueError, match=r"9 pairs of .* cannot be split into 2"):
        cohorts.settings(variants["naive accumulation"], stage, ["training.batch_size=9"])


@pytest.mark.parametrize("stage", STAGES)
def test_every_variant_is_a_valid_configuration_of_its_own(parts: Any, stage: str):
    plain = config_to_mapping(load_config(Path(__file__).parents[1] / f"configs/demo_{stage}.yaml"))
    seen = []
    for variant in parts.variants.VARIANTS.values():
        changes = [*parts.runs.BASE, *variant.both, *(variant.finetune if stage == "finetune" else ())]
        changes += ["data.omniabnorm_dir=null"] if stage == "finetune" and not variant.slices else []
        seen.append(config_to_mapping(config_from_mapping(plain, source=stage, overrides=changes)))
    different = [settings for i, settings in enumerate(seen) if settings not in seen[:i]]
    alike = {"pretrain": 4, "finetune": 2}[stage]  # what differs in time or in fine-tuning only is pre-trained alike
    assert len(different) == len(seen) - alike + 1


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_small_comparison_fills_the_page_and_does_nothing_twice(script: ModuleType, parts: Any, tmp_path: Path):
    sizes = ["--patients", "60", "--slices", "50", "--test_patients", "20", "--minutes", "0.02"]
    command = ["--out", str(tmp_path / "out"), "--records", str(tmp_path / "records"), "--page"]
    command += [str(tmp_path / "page.md"), *sizes, "--seeds", "0", "--variants", "full", "plain CLIP"]
    script.main(command)
    page = (tmp_path / "page.md").read_text()
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    rows = [line for line in page.splitlines() if line.startswith(("| full", "| plain CLIP"))]
    assert len(rows) == 2 * len(parts.page.TABLES)
    assert all("nan" not in line for line in rows)
    script.main(command)
    assert (tmp_path / "page.md").read_text() == page
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()} == written
