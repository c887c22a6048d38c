"""The audit as a whole: silent on good data, complete in its report, and a page that shows what it found."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vlm3d_ct.audit.cohort_checks import check_splits
from vlm3d_ct.audit.examine import examine
from vlm3d_ct.audit.facts import CaseFacts, lung_volume_ml, thin_out
from vlm3d_ct.audit.oddness import oddest, robust_z
from vlm3d_ct.audit.page import audit_page
from vlm3d_ct.audit.verify import verify_directory
from vlm3d_ct.data.layout import read_cases
from vlm3d_ct.data.load import load_case
from vlm3d_ct.phantom.cohort import write_cohort
from vlm3d_ct.volumes.stored import StoredScan
from vlm3d_ct.volumes.volume import Volume

REAL = Path(__file__).parents[4] / "shared" / "realdata"


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms of every kind, each in a folder of its own."""
    return _write(tmp_path_factory.mktemp("kinds"), 1)


def _write(folder: Path, times: int) -> Path:
    kinds = {"plain": {}, "hard": {"hard": "both"}, "rough": {"rough_masks": True}}
    kinds["both"] = {"hard": "both", "rough_masks": True}
    for seed, (name, settings) in enumerate(kinds.items(), 31):
        write_cohort(folder / name, patients=12 * times, slices=3 * times, seed=seed, workers=1, **settings)
    return folder


@pytest.mark.parametrize("kind", ["plain", "hard", "rough", "both"])
def test_phantoms_raise_no_alarm(cohorts: Path, kind: str) -> None:
    report = verify_directory(cohorts / kind, workers=0)
    assert (report.num_cases, report.num_usable, report.problems) == (15, 15, ())
    assert len(report.facts) == 15


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_500_phantoms_raise_no_alarm(tmp_path: Path) -> None:
    _write(tmp_path, 10)
    reports = [verify_directory(folder, workers=2) for folder in sorted(tmp_path.iterdir())]
    assert sum(report.num_usable for report in reports) == 600
    assert not [problem for report in reports for problem in report.problems]


@pytest.mark.skipif(not REAL.is_dir(), reason="the real scans are not there")
def test_real_scans_raise_no_alarm(tmp_path: Path) -> None:
    tree, plan = tmp_path / "tree", tmp_path / "plan"
    scans = {"train_1_a_1": "thorax_cta", "train_2_a_1": "abdomen_small"}
    for stem, name in scans.items():
        patient, scan = stem[: stem.index("_a")], stem.removesuffix("_1")
        for root, suffix in ((tree / "train_fixed", ""), (tree / "ts_seg/ts_total/train_fixed", "_ids")):
            target = root / patient / scan / f"{stem}.nii.gz"
            target.parent.mkdir(parents=True)
            files = {"": f"{name}{'' if name == 'thorax_cta' else '_ct'}", "_ids": f"{name}_totalsegmentator_ids"}
            shutil.copy(REAL / f"{files[suffix]}.nii.gz", target)
    _write_texts(tree, list(scans))
    for name, file in (("volumes", "chest_right_ct"), ("masks", "chest_right_lung_mask")):
        (plan / name).mkdir(parents=True)
        shutil.copy(REAL / f"{file}.nii.gz", plan / name / "train_3_a_1.nii.gz")
    _write_texts(plan, ["train_3_a_1"])
    report = verify_directory(tmp_path, workers=0)
    assert (report.num_cases, report.num_usable, report.problems) == (3, 3, ())
    assert sum(bool(facts.coverage) for facts in report.facts) == 3


def _write_texts(folder: Path, stems: list[str]) -> None:
    (folder / "cot").mkdir()
    records = [{"volumename": stem, "question": "", "answer": f"The lungs of {stem} are clear."} for stem in stems]
    (folder / "cot" / "texts.json").write_text(json.dumps(records))


def test_workers_change_nothing(cohorts: Path) -> None:
    alone, many = (verify_directory(cohorts / "plain", workers=workers) for workers in (0, 2))
    assert alone == many


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_without_anything_is_one_problem(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    report = verify_directory(tmp_path / name, workers=0)
    assert report.num_cases == 0
    assert len(report.problems) == 1


def test_the_report_counts_by_code_and_shortens_for_people_only(tmp_path: Path) -> None:
    (tmp_path / "volumes").mkdir()
    _write_texts(tmp_path, [f"train_{number}_a_1" for number in range(1, 31)])
    report = verify_directory(tmp_path, workers=0)
    content = json.loads(json.dumps(report.as_dict()))
    assert content["counts"] == {"text-without-volume": 30}
    assert len(content["problems"]) == 30
    assert set(content["problems"][0]) == {"code", "file", "field", "value", "message", "remedy"}
    lines = list(report.render())
    assert len([line for line in lines if "[" in line]) == 20
    assert lines[-1] == "  ... and 10 more; --json lists all of them"
    assert "and 10 more" in audit_page([report])


def test_the_page_shows_the_odd_case_and_no_text(cohorts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(cohorts / "plain", folder)
    texts = folder / "ct_rate" / "cot" / "cot_0000.json"
    records = json.loads(texts.read_text())
    records[4]["answer"] = "Unremarkable chest. " * 400
    texts.write_text(json.dumps(records))
    report = verify_directory(folder, workers=0)
    case, odd = report.odd[0]
    assert case.case_id == odd.facts.case_id == records[4]["volumename"].removesuffix(".nii.gz")
    assert odd.reasons[0].startswith("words 800, more than usual")
    html = audit_page([report])
    assert case.case_id in html
    assert html.count("data:image/png") >= 7
    for record in records:
        assert record["answer"][:40] not in html
    for heading in ("What is there", "What is wrong", "Volumes", "Slices", "Texts and regions", "Labels", "Odd cases"):
        assert f"<h2>{heading}</h2>" in html


def test_robust_z_is_the_z_score_of_a_normal_sample_whatever_one_outlier_says() -> None:
    sample = np.random.default_rng(0).normal(10, 2, (4001, 1))
    sample[0] = 1e6
    scores = robust_z(sample, np.array([1e-9]))[1:, 0]
    np.testing.assert_allclose(scores, (sample[1:, 0] - 10) / 2, atol=0.2)
    assert robust_z(np.array([[1.0], [1.0], [1.5]]), np.array([0.25])).ravel().tolist() == [0, 0, 2]


def test_few_cases_have_no_odd_one(cohorts: Path) -> None:
    facts = verify_directory(cohorts / "plain", workers=0).facts
    strange = replace(facts[-1], num_words=10**6)
    assert [odd.facts for odd in oddest([*facts[:-1], strange], 1)] == [strange]
    few: list[CaseFacts] = [each for each in facts if each.kind == "slice"]
    assert oddest([*few, replace(few[0], num_words=10**6)], 5) == []


def test_a_patient_in_both_splits_is_found(cohorts: Path) -> None:
    one, two, three, *_ = (case for case in read_cases(cohorts / "plain").cases if case.kind == "volume")
    cases = [replace(one, split="train"), replace(two, split="validation", patient_id=one.patient_id), three]
    (found,) = check_splits(cases)
    assert (found.code, found.value, found.file) == ("split-overlap", one.patient_id, str(two.image_paths[0]))
    assert not list(check_splits([one, replace(one, case_id="again"), three]))


def test_a_header_that_contradicts_the_metadata_is_found(cohorts: Path) -> None:
    case = next(case for case in read_cases(cohorts / "plain").cases if case.kind == "volume")
    volume, _ = load_case(case)
    assert isinstance(volume, Volume)
    z, y, x = volume.spacing_mm
    for factor, codes in ((1.0, []), (1.3, ["spacing-metadata"])):
        row = StoredScan(slope=1.0, intercept_hu=0.0, spacing_mm=(factor * z, y, x), table=Path("metadata.csv"))
        assert [problem.code for problem in examine(replace(case, stored=row)).problems] == codes


def test_lung_volume_counts_enclosed_air_only() -> None:
    voxels = np.full((20, 40, 40), -1000, np.int16)
    voxels[:, 5:35, 5:35] = 40
    voxels[2:18, 10:30, 10:30] = -850
    noise = np.random.default_rng(0).normal(0, 60, voxels.shape)
    volume = Volume(voxels_hu=(voxels + noise).astype(np.int16), spacing_mm=(2.0, 2.0, 2.0), source=Path("x"))
    assert lung_volume_ml(thin_out(volume, None)) == pytest.approx(16 * 20 * 20 * 8 / 1000, rel=0.15)
    open_to_the_border = voxels.copy()
    open_to_the_border[:, 15:25, :] = -850
    cut = replace(volume, voxels_hu=open_to_the_border)
    assert lung_volume_ml(thin_out(cut, None)) == 0
