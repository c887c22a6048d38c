"""Every seeded fault is found, by itself and among all others, with file, field, value and remedy; and nothing else."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from seeded_damage import Site
from seeded_faults import FAULTS, Fault

from vlm3d_ct.audit.verify import VerifyReport, verify_directory
from vlm3d_ct.phantom.cohort import write_cohort

VOLUME_FAULTS = sum(not fault.of_slice for fault in FAULTS)
SLICE_FAULTS = sum(fault.of_slice for fault in FAULTS)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many good cases as there are faults, and one more volume; nobody writes into it."""
    folder = tmp_path_factory.mktemp("good")
    write_cohort(folder, patients=VOLUME_FAULTS + 1, slices=2 * SLICE_FAULTS, seed=21, workers=1)
    return folder


def take(cohort: Path, folder: Path, volumes: list[str], slices: list[str]) -> Path:
    """A folder of some of the cases, each with a text file of its own."""
    if volumes:
        source, target = cohort / "ct_rate", folder / "ct_rate"
        for name in ("volumes", "masks", "cot"):
            (target / name).mkdir(parents=True)
        for stem in volumes:
            for name in ("volumes", "masks"):
                shutil.copy(source / name / f"{stem}.nii.gz", target / name)
        for record in json.loads((source / "cot" / "cot_0000.json").read_text()):
            stem = record["volumename"].removesuffix(".nii.gz")
            if stem in volumes:
                (target / "cot" / f"{stem}.json").write_text(json.dumps([record]))
        with (source / "labels.csv").open(newline="") as file:
            header, *rows = csv.reader(file)
        with (target / "labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *(row for row in rows if row[0].removesuffix(".nii.gz") in volumes)])
    if slices:
        source, target = cohort / "omniabnorm", folder / "omniabnorm"
        (target / "cot").mkdir(parents=True)
        for path in source.glob("cot/*.json"):
            for record in json.loads(path.read_text()):
                if record["case_id"] in slices:
                    shutil.copytree(source / "images" / record["case_id"], target / "images" / record["case_id"])
                    (target / "masks").mkdir(exist_ok=True)
                    shutil.copy(source / record["mask_path"], target / "masks")
                    (target / "cot" / f"{record['case_id']}.json").write_text(json.dumps([record]))
    return folder


def names(cohort: Path) -> tuple[list[str], list[str]]:
    """Names of the volumes and of the slices, in order."""
    volumes = sorted(path.name.removesuffix(".nii.gz") for path in (cohort / "ct_rate" / "volumes").iterdir())
    # the faults of neighbours are seeded at slices that have this one
    return volumes, sorted(path.parent.name for path in (cohort / "omniabnorm" / "images").glob("*/1.jpg"))


def expected(fault: Fault, case: str) -> tuple[str, str]:
    part = "omniabnorm" if fault.of_slice else "ct_rate"
    return fault.code, f"{part}/{fault.file.format(case=case)}"


def found(report: VerifyReport) -> list[tuple[str, str]]:
    return sorted((p.code, str(Path(p.file).relative_to(report.directory))) for p in report.problems)


def test_there_are_many_faults_with_names_of_their_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 80


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_alone_is_found(cohort: Path, tmp_path: Path, fault: Fault) -> None:
    volumes, slices = names(cohort)
    case = slices[0] if fault.of_slice else volumes[1]
    folder = take(cohort, tmp_path, [] if fault.of_slice else volumes[:2], slices[:1] if fault.of_slice else [])
    fault.damage(Site(folder, case, volumes[0]))
    report = verify_directory(folder, workers=0)
    assert found(report) == [expected(fault, case)]
    (problem,) = report.problems
    assert problem.field.startswith(fault.field)
    assert all(problem.as_dict().values())
    if not fault.of_slice:
        assert report.num_usable == 2 - (not fault.usable)


def test_all_faults_together_are_found_in_one_pass(cohort: Path, tmp_path: Path) -> None:
    volumes, slices = names(cohort)
    folder = take(cohort, tmp_path, volumes, slices)
    seeded = [fault for fault in FAULTS if not fault.alone]
    waiting = {False: volumes[1:], True: slices}
    wanted = []
    for fault in seeded:
        case = waiting[fault.of_slice].pop(0)
        fault.damage(Site(folder, case, volumes[0]))
        wanted.append((expected(fault, case), fault))
    report = verify_directory(folder, workers=0)
    assert found(report) == sorted(place for place, _ in wanted)
    for place, fault in wanted:
        same = [p for p in report.problems if (p.code, str(Path(p.file).relative_to(folder))) == place]
        assert any(problem.field.startswith(fault.field) for problem in same), fault.name
    for problem in report.problems:
        assert all(problem.as_dict().values())
