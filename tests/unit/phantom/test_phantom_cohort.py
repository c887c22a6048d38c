"""A cohort has the plan's file formats, tells one truth everywhere, and is a function of its settings."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from vlm3d_ct.audit.verify import verify_directory
from vlm3d_ct.data.names import volume_patient
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.phantom.cohort import write_cohort, write_volume
from vlm3d_ct.phantom.settings import Hard, Settings
from vlm3d_ct.phantom.tables import SLICES_PER_FILE
from vlm3d_ct.text.findings import ABNORMALITIES
from vlm3d_ct.volumes.nifti import read_mask, read_volume

PATIENTS, SLICES, SEED = 6, 3, 1
NAMES = [f"train_{SEED}00000{index}_a_1.nii.gz" for index in range(1, PATIENTS + 1)]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("cohort") / "demo"
    write_cohort(directory, patients=PATIENTS, slices=SLICES, seed=SEED, workers=1)
    return directory


@pytest.fixture(scope="module")
def truth(cohort: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((cohort / "ct_rate" / "truth.json").read_text())
    return loaded


def contents(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(cohort: Path, tmp_path: Path) -> None:
    write_cohort(tmp_path / "two", patients=PATIENTS, slices=SLICES, seed=SEED, workers=2)
    assert contents(tmp_path / "two") == contents(cohort)


def test_instalments_give_the_same_bytes_as_everything_at_once(cohort: Path, tmp_path: Path) -> None:
    folder = tmp_path / "grown"
    write_cohort(folder, patients=2, slices=0, seed=SEED, workers=1)
    write_cohort(folder, patients=3, slices=2, seed=SEED, workers=1, append=True)
    write_cohort(folder, patients=1, slices=1, seed=SEED, workers=1, append=True)
    assert contents(folder) == contents(cohort)


def test_an_instalment_that_was_cut_off_is_written_again(cohort: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    write_cohort(folder, patients=PATIENTS, slices=SLICES, seed=SEED, workers=1)
    settings = json.loads((folder / "phantom.json").read_text())
    (folder / "phantom.json").write_text(json.dumps(settings | {"patients": 4, "slices": 1}))
    (folder / "ct_rate" / "volumes" / NAMES[-1]).unlink()
    write_cohort(folder, patients=2, slices=2, seed=SEED, workers=1, append=True)
    assert contents(folder) == contents(cohort)


def test_nothing_is_added_to_a_cohort_of_other_settings(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    write_cohort(folder, patients=1, workers=1)
    before = contents(folder)
    for other in ({"seed": 3}, {"size": "full"}, {"hard": "words"}, {"rough_masks": True}, {"headers": "blank"}):
        with pytest.raises(ConfigError, match=next(iter(other))):
            write_cohort(folder, patients=1, workers=1, append=True, **other)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--append adds to a folder"):
        write_cohort(tmp_path / "nothing", patients=1, workers=1, append=True)
    (folder / "phantom.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        write_cohort(folder, patients=1, workers=1, append=True)
    assert {name: contents(folder)[name] for name in before if name != "phantom.json"} == {
        name: digest for name, digest in before.items() if name != "phantom.json"
    }


def test_a_patient_depends_on_the_seed_and_its_number_only(cohort: Path, tmp_path: Path) -> None:
    write_cohort(tmp_path / "fewer", patients=2, seed=SEED, workers=1)
    name = f"ct_rate/volumes/{NAMES[1]}"
    assert contents(tmp_path / "fewer")[name] == contents(cohort)[name]


def test_cohorts_of_different_seeds_share_no_patient_and_no_voxels() -> None:
    seeds = [Settings(seed=seed) for seed in range(3)]
    numbers = [s.volume_number(i) for s in seeds for i in (1, 499_999)]
    numbers += [s.slice_number(i) for s in seeds for i in (1, 499_999)]
    assert len(set(numbers)) == len(numbers)
    assert volume_patient(f"train_{seeds[2].volume_number(7)}_a_1") == "train_2000007"


def test_the_audit_finds_nothing_wrong(cohort: Path) -> None:
    report = verify_directory(cohort, workers=1)
    assert (report.num_cases, report.num_usable) == (PATIENTS + SLICES, PATIENTS + SLICES)
    assert not report.problems


def test_volumes_are_int16_hu_with_a_true_header(cohort: Path, truth: dict[str, Any]) -> None:
    for name in NAMES:
        acquisition = truth[name]["acquisition"]
        image = nib.load(cohort / "ct_rate" / "volumes" / name)
        assert image.get_data_dtype() == np.int16
        assert "".join(nib.aff2axcodes(image.affine)) == acquisition["orientation"]
        volume = read_volume(cohort / "ct_rate" / "volumes" / name)
        assert volume.voxels_hu.shape == (32, 96, 96)
        np.testing.assert_allclose(volume.spacing_mm, acquisition["spacing_mm"], rtol=1e-5)
        padding = acquisition["padding_hu"]
        assert volume.voxels_hu.min() == (padding if padding is not None else volume.voxels_hu.min())
        assert -1024 <= np.min(volume.voxels_hu[volume.voxels_hu != padding]) < -950
        assert volume.voxels_hu.max() <= 3071


def test_masks_lie_on_the_volumes_grid_with_all_regions(cohort: Path) -> None:
    for name in NAMES:
        volume = read_volume(cohort / "ct_rate" / "volumes" / name)
        mask = read_mask(cohort / "ct_rate" / "masks" / name, like=volume)
        assert nib.load(cohort / "ct_rate" / "masks" / name).get_data_dtype() == np.uint8
        assert np.unique(mask.labels).tolist() == list(range(21))
        assert min(np.median(volume.voxels_hu[mask.labels == lobe]) for lobe in range(1, 6)) < -600
        left, right = (np.argwhere(np.isin(mask.labels, lobes))[:, 2].mean() for lobes in ((4, 5), (1, 2, 3)))
        assert left > right


def test_labels_truth_and_text_list_the_same_patients_and_findings(cohort: Path, truth: dict[str, Any]) -> None:
    folder = cohort / "ct_rate"
    records = json.loads((folder / "cot" / "cot_0000.json").read_text())
    rows = list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))
    assert list(rows[0]) == ["VolumeName", *ABNORMALITIES]
    assert [row["VolumeName"] for row in rows] == [r["volumename"] for r in records] == list(truth) == NAMES
    stated = 0
    for row, record in zip(rows, records, strict=True):
        assert set(record) == {"volumename", "question", "answer"}
        assert record["question"]
        findings = truth[row["VolumeName"]]["findings"]
        assert {finding["abnormality"] for finding in findings} == {name for name in ABNORMALITIES if row[name] == "1"}
        assert {row[name] for name in ABNORMALITIES} <= {"0", "1"}
        sentences = [finding["sentence"] for finding in findings if finding["sentence"] is not None]
        assert all(sentence in record["answer"] for sentence in sentences)
        stated += len(sentences)
    assert stated


def test_truth_describes_the_lesion_mask(cohort: Path, truth: dict[str, Any]) -> None:
    seen = 0
    for name, entry in truth.items():
        volume = read_volume(cohort / "ct_rate" / "volumes" / name)
        lesions = read_mask(cohort / "ct_rate" / "lesions" / name, like=volume, max_label=255).labels
        assert set(np.unique(lesions)) <= {0, *(finding["lesion"] for finding in entry["findings"])}
        extent = np.array(entry["acquisition"]["spacing_mm"])[::-1] * np.array(volume.voxels_hu.shape)[::-1]
        for number, finding in enumerate(entry["findings"], start=1):
            assert finding["lesion"] == number
            assert finding["voxels"] == np.count_nonzero(lesions == number)
            assert all(1 <= region <= 20 for region in finding["regions"])
            assert (np.array(finding["centre_mm"]) > 0).all()
            assert (np.array(finding["centre_mm"]) < extent).all()
            if finding["box_mm"] is None:
                assert finding["voxels"] == 0
                continue
            seen += 1
            spacing = np.array(volume.spacing_mm)
            places = np.argwhere(lesions == number)
            low, high = places.min(0) * spacing, (places.max(0) + 1) * spacing
            np.testing.assert_allclose(finding["box_mm"], [*low[::-1], *(high - low)[::-1]], atol=0.011)
    assert seen > PATIENTS


def test_rough_masks_differ_as_the_truth_says_and_volumes_do_not(cohort: Path, tmp_path: Path) -> None:
    folder = tmp_path / "rough"
    write_cohort(folder, patients=2, seed=SEED, rough_masks=True, workers=1)
    rough, exact = contents(folder / "ct_rate"), contents(cohort / "ct_rate")
    truth = json.loads((folder / "ct_rate" / "truth.json").read_text())
    for name in NAMES[:2]:
        for part in ("volumes", "lesions"):
            assert rough[f"{part}/{name}"] == exact[f"{part}/{name}"]
        assert rough[f"masks/{name}"] != exact[f"masks/{name}"]
        assert truth[name]["mask"]
    assert not verify_directory(folder, workers=1).problems


def test_blank_headers_come_with_metadata_that_brings_back_the_same_scan(cohort: Path, tmp_path: Path) -> None:
    folder = tmp_path / "blank"
    write_cohort(folder, patients=3, seed=SEED, headers="blank", workers=1)
    assert not (cohort / "ct_rate" / "metadata.csv").exists()
    rows = list(csv.DictReader((folder / "ct_rate" / "metadata.csv").read_text().splitlines()))
    assert [row["VolumeName"] for row in rows] == NAMES[:3]
    for row in rows:
        name = row["VolumeName"]
        true = read_volume(cohort / "ct_rate" / "volumes" / name)
        image = nib.load(folder / "ct_rate" / "volumes" / name)
        hu = np.asarray(image.dataobj) * float(row["RescaleSlope"]) + float(row["RescaleIntercept"])
        np.testing.assert_array_equal(hu.transpose(2, 1, 0), true.voxels_hu)
        spacing = [float(row["ZSpacing"]), *json.loads(row["XYSpacing"])]
        np.testing.assert_allclose(spacing, true.spacing_mm, rtol=1e-5)
        assert row["NumberofSlices"] == "32"
    problems = verify_directory(folder, workers=1).problems
    assert problems == ()  # the readers take geometry and scale from the table


def test_a_hard_cohort_is_written_and_read(tmp_path: Path) -> None:
    write_cohort(tmp_path / "hard", patients=2, slices=1, seed=SEED, hard="both", workers=1)
    truth = json.loads((tmp_path / "hard" / "ct_rate" / "truth.json").read_text())
    assert {entry["patient"]["phase"] for entry in truth.values()} == {"arterial"}
    assert {entry["acquisition"]["kernel"] for entry in truth.values()} == {"lung"}
    assert not verify_directory(tmp_path / "hard", workers=1).problems


def test_a_cohort_is_hard_in_its_scans_or_in_its_words(tmp_path: Path) -> None:
    kinds: tuple[Hard, ...] = ("none", "scans", "words", "both")
    for hard in kinds:
        write_cohort(tmp_path / hard, patients=2, slices=1, seed=SEED, hard=hard, workers=1)

    def files(hard: str, pattern: str) -> list[bytes]:
        return [path.read_bytes() for path in sorted((tmp_path / hard).glob(pattern))]

    for pattern in ("ct_rate/volumes/*", "omniabnorm/images/*/*"):
        assert files("none", pattern) == files("words", pattern)
        assert files("scans", pattern) == files("both", pattern) != files("none", pattern)
    assert files("none", "ct_rate/cot/*") != files("words", "ct_rate/cot/*")
    for hard in ("scans", "both"):  # the contrast medium, too, is told of
        assert files("none", "ct_rate/cot/*") != files(hard, "ct_rate/cot/*") != files("words", "ct_rate/cot/*")


def test_batch_files_grow_in_order(tmp_path: Path) -> None:
    from vlm3d_ct.phantom.slices import SliceRecord
    from vlm3d_ct.phantom.tables import add_slices

    def records(*numbers: int) -> list[SliceRecord]:
        return [
            SliceRecord(
                case_id=f"c{n}", image_path="i", mask_path="m", region="Chest", category="x", cot_reasoning=["s"]
            )
            for n in numbers
        ]

    (tmp_path / "cot").mkdir()
    add_slices(tmp_path, records(*range(30)), 0)
    add_slices(tmp_path, records(*range(30, 130)), 30)
    files = sorted((tmp_path / "cot").iterdir())
    batches = [json.loads(path.read_text()) for path in files]
    assert [path.name for path in files] == ["batch_0000.json", "batch_0001.json", "batch_0002.json"]
    assert [len(batch) for batch in batches] == [SLICES_PER_FILE, SLICES_PER_FILE, 30]
    assert [record["case_id"] for batch in batches for record in batch] == [f"c{n}" for n in range(130)]


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="not empty"):
        write_cohort(tmp_path, patients=1, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "arguments",
    [{"patients": 0}, {"patients": -1}, {"patients": 1, "workers": 0}, {"patients": 1, "seed": -1}],
)
def test_senseless_numbers_are_refused(arguments: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        write_cohort(tmp_path / "new", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


def test_more_patients_than_a_seed_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="another seed"):
        write_cohort(tmp_path / "many", patients=500_000, workers=1)


@pytest.mark.long
def test_full_size_volume_has_clinical_dimensions(tmp_path: Path) -> None:
    for name in ("volumes", "masks", "lesions"):
        (tmp_path / name).mkdir()
    record = write_volume(tmp_path, Settings(size="full"), 1)
    volume = read_volume(tmp_path / "volumes" / record.name)
    mask = read_mask(tmp_path / "masks" / record.name, like=volume)
    read_mask(tmp_path / "lesions" / record.name, like=volume, max_label=255)
    slices, rows, columns = volume.voxels_hu.shape
    assert 90 <= slices <= 420
    assert (rows, columns) == (512, 512)
    assert 0.6 <= volume.spacing_mm[2] <= 0.85
    assert np.unique(mask.labels).tolist() == list(range(21))
