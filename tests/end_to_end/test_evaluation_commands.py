"""Every evaluation as a command: the same bytes with one and two ranks and twice, and bad input said clearly."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import ROOT, free_port, run
from threadpoolctl import threadpool_limits

from tiny import tiny_config, write_checkpoint
from vlm3d_ct.cli.main import run as main
from vlm3d_ct.config import Config
from vlm3d_ct.data.cohort import hash_patient
from vlm3d_ct.text.findings import ABNORMALITIES

pytestmark = pytest.mark.timeout(600)
FEW = ("--num_bootstraps", "30")


@pytest.fixture(scope="module")
def config(phantom_data: tuple[str, ...]) -> Config:
    return tiny_config(*phantom_data)


@pytest.fixture(scope="module")
def checkpoint(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "checkpoint_best.pth"
    write_checkpoint(path, config)
    return path


@pytest.fixture(scope="module")
def halves(phantom_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders that share no patient: the cohort's first 8 volumes and the other 20."""
    folders = (tmp_path_factory.mktemp("validation"), tmp_path_factory.mktemp("test"))
    source = phantom_cohort / "ct_rate"
    volumes = sorted((source / "volumes").iterdir(), key=lambda path: int(path.name.split("_")[1]))
    for folder, chosen in zip(folders, (volumes[:8], volumes[8:]), strict=True):
        for name in ("volumes", "masks", "lesions", "cot"):
            (folder / name).mkdir()
        for path in chosen:
            for name in ("volumes", "masks", "lesions"):
                if (source / name / path.name).exists():
                    shutil.copy2(source / name / path.name, folder / name / path.name)
        keep_texts(source, folder, {path.name for path in chosen})
        for name in ("labels.csv", "truth.json"):
            shutil.copy2(source / name, folder / name)
    return folders


def keep_texts(source: Path, folder: Path, names: set[str]) -> None:
    """Copy the records of these volumes."""
    kept = []
    for path in sorted((source / "cot").iterdir()):
        content = json.loads(path.read_text())
        kept += [record for record in content if record["volumename"] in names]
    (folder / "cot" / "cot.json").write_text(json.dumps(kept))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def results(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return loaded


def flags(checkpoint: Path, data: Path, output: Path, *more: str) -> list[str]:
    return ["--checkpoint", str(checkpoint), "--data_dir", str(data), "--output_dir", str(output), *more]


@pytest.mark.parametrize(
    ("kind", "data", "more", "files"),
    [
        ("retrieval", "test", ("--pool", "unique_text", "--right", "text", *FEW), {"ranks.csv", "pool_cases.txt"}),
        (
            "zero_shot",
            "test",
            ("--validation_dir", "validation", *FEW),
            {"classes.csv", "predictions.csv", "wordings.csv", "thresholds.json", "pool_cases.txt"},
        ),
        ("zero_shot", "omniabnorm", ("--label_set", "omniabnorm", *FEW), {"classes.csv", "predictions.csv"}),
        ("regions", "test", FEW, {"alignment.csv", "region_cases.csv"}),
        ("probe", "test", FEW, {"classes.csv", "predictions.csv", "pool_cases.txt"}),
    ],
    ids=["retrieval", "zero-shot", "zero-shot-omniabnorm", "regions", "probe"],
)
def test_one_and_two_ranks_and_a_second_run_write_the_same_bytes(
    kind: str,
    data: str,
    more: tuple[str, ...],
    files: set[str],
    checkpoint: Path,
    halves: tuple[Path, Path],
    phantom_cohort: Path,
    tmp_path: Path,
):
    folders = {"validation": halves[0], "test": halves[1], "omniabnorm": phantom_cohort / "omniabnorm"}
    more = tuple(str(folders.get(part, part)) if part == "validation" else part for part in more)
    name = kind.replace("_", "-")
    one, two = tmp_path / "one", tmp_path / "two"
    with threadpool_limits(2), torch_threads(2):  # the ranks have one thread each
        assert main(["evaluate", name, *flags(checkpoint, folders[data], one, *more)]) == 0
    first = written(one)
    assert first.keys() >= files | {"results.json", "report.html", "embeddings.npz"}
    assert main(["evaluate", name, *flags(checkpoint, folders[data], one, *more)]) == 0  # reuses the embeddings
    assert written(one) == first
    other_cache = ("--cache_dir", str(tmp_path / "cache"))
    launch = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}")
    ranks = run(*launch, f"evaluation/{kind}.py", *flags(checkpoint, folders[data], two, *more, *other_cache))
    assert ranks.returncode == 0, ranks.stderr[-3000:]
    assert ranks.stdout.count("report: ") == 1
    found = written(two)
    assert found.keys() == first.keys()
    assert [path for path in first if found[path] != first[path]] == []
    assert str(tmp_path) not in first["report.html"].decode() + first["results.json"].decode()


def evaluate(kind: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["evaluate", kind, *arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out + captured.err


@pytest.fixture
def folder(phantom_cohort: Path, tmp_path: Path) -> Path:
    """A copy of a few volumes, one of them without a text."""
    source, copied = phantom_cohort / "ct_rate", tmp_path / "data"
    names = sorted(path.name for path in (source / "volumes").iterdir())[:6]
    for part in ("volumes", "masks"):
        (copied / part).mkdir(parents=True)
        for name in names:
            if (source / part / name).exists():
                shutil.copy2(source / part / name, copied / part / name)
    (copied / "cot").mkdir()
    keep_texts(source, copied, set(names[1:]))
    shutil.copy2(source / "labels.csv", copied / "labels.csv")
    return copied


def test_a_case_without_a_text_takes_part_where_none_is_needed(
    folder: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    embeddings = ("--embeddings", str(tmp_path / "shared.npz"), *FEW)
    code, said = evaluate("retrieval", capsys, *flags(checkpoint, folder, tmp_path / "r", *embeddings))
    assert code == 0
    assert "1 volumes have no text" in said
    assert results(tmp_path / "r")["pool"]["size"] == 5
    assert results(tmp_path / "r")["left_out"] == {"without a text": 1}
    assert "Left out: 1 (without a text)" in (tmp_path / "r" / "report.html").read_text()
    code, said = evaluate("zero-shot", capsys, *flags(checkpoint, folder, tmp_path / "z", *embeddings))
    assert code == 0
    assert "6 read from" in said
    assert results(tmp_path / "z")["pool"]["size"] == 6
    assert results(tmp_path / "z")["left_out"] == {}


def test_pools_of_the_published_tree_hold_what_they_declare(
    phantom_cohort: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = tmp_path / "tree" / "dataset"
    sources = sorted((phantom_cohort / "ct_rate" / "volumes").iterdir())
    names = ["valid_1_a_1", "valid_1_a_2", "valid_1_b_1", "valid_2_a_1", "valid_3_a_1"]
    for name, source in zip(names, sources, strict=False):
        patient, scan = name.rsplit("_", 2)[0], name.rsplit("_", 1)[0]
        (root / "valid_fixed" / patient / scan).mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, root / "valid_fixed" / patient / scan / f"{name}.nii.gz")
    texts = {
        "valid_1_a_1": "A nodule.",
        "valid_1_a_2": "A nodule.",
        "valid_1_b_1": "Clear.",
        "valid_2_a_1": "A nodule.",
    }
    for part, file, header, rows in (
        ("radiology_text_reports", "validation_reports.csv", "VolumeName,Findings_EN", texts.items()),
        ("metadata", "no_chest_valid.txt", "valid_2_a_1.nii.gz", ()),
    ):
        (root / part).mkdir()
        (root / part / file).write_text("\n".join([header, *(f"{name}.nii.gz,{text}" for name, text in rows)]) + "\n")
    expected = {
        "all": ["valid_1_a_1", "valid_1_a_2", "valid_1_b_1", "valid_2_a_1"],
        "first_reconstruction": ["valid_1_a_1", "valid_1_b_1", "valid_2_a_1"],
        "chest_only": ["valid_1_a_1", "valid_1_b_1"],
        "unique_text": ["valid_1_a_1", "valid_1_b_1"],
        "patient_unique": ["valid_1_a_1", "valid_2_a_1"],
    }
    for pool, cases in expected.items():
        more = ("--pool", pool, "--right", "scan", "--embeddings", str(tmp_path / "e.npz"), "--num_bootstraps", "0")
        cache = ("--cache_dir", str(tmp_path / "cache"))
        code, said = evaluate("retrieval", capsys, *flags(checkpoint, root.parent, tmp_path / pool, *more, *cache))
        assert code == 0, said
        assert (tmp_path / pool / "pool_cases.txt").read_text().split() == cases
        found = results(tmp_path / pool)
        assert found["pool"] == {"name": f"tree, {pool}", "size": len(cases), "cases_file": "pool_cases.txt"}
        assert sum(found["left_out"].values()) == 5 - len(cases)
        assert found["left_out"]["without a text"] == 1


def test_names_match_whatever_their_case_and_ending(
    folder: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with (folder / "labels.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    spelled = [
        [row[0].upper().removesuffix(".NII.GZ") if i % 2 else f"x/{row[0]}", *row[1:]] for i, row in enumerate(rows)
    ]
    with (tmp_path / "other.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[name.upper() for name in header], *spelled])
    for name, more in (("own", ()), ("other", ("--labels", str(tmp_path / "other.csv")))):
        code, _ = evaluate("zero-shot", capsys, *flags(checkpoint, folder, tmp_path / name, *more, *FEW))
        assert code == 0
    assert results(tmp_path / "own")["classes"] == results(tmp_path / "other")["classes"]


def test_missing_label_columns_are_said_or_counted(
    folder: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with (folder / "labels.csv").open(newline="") as file:
        rows = [row[:-2] for row in csv.reader(file)]
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows[:-1])
    arguments = flags(checkpoint, folder, tmp_path / "z", *FEW)
    code, said = evaluate("zero-shot", capsys, *arguments)
    assert code == 3
    assert f"2 of 18 classes have no column: {', '.join(ABNORMALITIES[-2:])}." in said
    assert not (tmp_path / "z").exists()
    code, said = evaluate("zero-shot", capsys, *arguments, "--skip_invalid")
    assert code == 0
    found = results(tmp_path / "z")
    assert len(found["classes"]["main"]) == 16
    assert found["left_out"] == {f"classes without a label column: {', '.join(ABNORMALITIES[-2:])}": 2}
    (folder / "labels.csv").unlink()
    code, said = evaluate("zero-shot", capsys, *arguments)
    assert (code, "no-labels" in said) == (3, True)
    code, said = evaluate("retrieval", capsys, *flags(checkpoint, folder, tmp_path / "r", *FEW))
    assert code == 0
    assert results(tmp_path / "r")["label_only"] is None
    assert "the data folder has no labels" in results(tmp_path / "r")["protocol"]["labels"]


def test_cases_without_labels_are_counted(
    folder: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with (folder / "labels.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    present = {path.name for path in (folder / "volumes").iterdir()}
    known = [row for row in rows if row[0] in present or f"{row[0]}.nii.gz" in present]
    assert len(known) == 6
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *known[:4]])
    code, said = evaluate("zero-shot", capsys, *flags(checkpoint, folder, tmp_path / "z", *FEW))
    assert code == 0
    assert "2 cases have no label and are left out" in said
    assert results(tmp_path / "z")["left_out"] == {"without a label": 2}
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header])
    code, said = evaluate("zero-shot", capsys, *flags(checkpoint, folder, tmp_path / "none", *FEW))
    assert (code, "No label of a case of" in said) == (3, True)


def test_stale_embeddings_are_refused_by_what_differs(
    folder: Path, checkpoint: Path, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    stored = ("--embeddings", str(tmp_path / "e.npz"), *FEW)
    assert evaluate("retrieval", capsys, *flags(checkpoint, folder, tmp_path / "r", *stored))[0] == 0
    other = tmp_path / "other.pth"
    model = write_checkpoint(other, config)
    weights = {name: tensor + 0.01 for name, tensor in model.state_dict().items()}
    write_checkpoint(other, config, model=weights)
    code, said = evaluate("retrieval", capsys, *flags(other, folder, tmp_path / "r", *stored))
    assert code == 3
    assert "other weights: The embeddings come from another checkpoint" in said
    assert "--recompute" in said
    code, said = evaluate("retrieval", capsys, *flags(other, folder, tmp_path / "r", *stored, "--recompute"))
    assert code == 0
    code, said = evaluate("retrieval", capsys, *flags(other, folder, tmp_path / "r", "--embeddings", "e.txt"))
    assert (code, "give the name of a .npz file" in said) == (2, True)


def test_a_checkpoint_with_other_preprocessing_is_refused(
    folder: Path, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = tmp_path / "other.pth"
    write_checkpoint(other, config, fingerprint="0123456789ab")
    for kind in ("retrieval", "zero-shot", "regions"):
        code, said = evaluate(kind, capsys, *flags(other, folder, tmp_path / "o"))
        assert code == 3
        assert "was trained on preprocessing 0123456789ab" in said
    assert not (tmp_path / "o").exists()


def test_an_empty_pool_says_why(folder: Path, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trained = tmp_path / "trained.pth"
    patients = [hash_patient("_".join(path.name.split("_")[:2])) for path in (folder / "volumes").iterdir()]
    write_checkpoint(trained, config, training_patients=patients)
    for kind in ("retrieval", "zero-shot"):
        code, said = evaluate(kind, capsys, *flags(trained, folder, tmp_path / "o"))
        assert code == 3
        assert "No volume is left to evaluate: 6 patient seen in training" in said
    assert not (tmp_path / "o").exists()


def test_thresholds_are_never_tuned_on_the_test(
    halves: tuple[Path, Path], checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    validation, test = halves
    code, said = evaluate("zero-shot", capsys, *flags(checkpoint, test, tmp_path / "z", "--validation_dir", str(test)))
    assert code == 3
    assert "nothing may be fitted on the test" in said
    tuning = ("--validation_dir", str(validation), *FEW)
    assert evaluate("zero-shot", capsys, *flags(checkpoint, test, tmp_path / "z", *tuning))[0] == 0
    saved = ("--thresholds", str(tmp_path / "z" / "thresholds.json"), *FEW)
    code, said = evaluate("zero-shot", capsys, *flags(checkpoint, test, tmp_path / "again", *saved))
    assert code == 0
    assert results(tmp_path / "again")["classes"] == results(tmp_path / "z")["classes"]
    code, said = evaluate("zero-shot", capsys, *flags(checkpoint, validation, tmp_path / "wrong", *saved))
    assert (code, "tuned on patients of this test" in said) == (3, True)


def test_prompts_are_asked_of_regions_and_thresholds_know_it(
    halves: tuple[Path, Path], checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    validation, test = halves
    for against in ("volume", "regions"):
        more = ("--against", against, "--validation_dir", str(validation), *FEW)
        code, said = evaluate("zero-shot", capsys, *flags(checkpoint, test, tmp_path / against, *more))
        assert (code, "trained without objective.sentence_region_weight" in said) == (0, against == "regions")
    whole, regions = (results(tmp_path / against) for against in ("volume", "regions"))
    assert whole["prompts"]["regions"] is None
    assert regions["prompts"]["regions"]["Cardiomegaly"] == ["heart"]
    assert (whole["provenance"]["against"], regions["provenance"]["against"]) == ("volume", "regions")
    assert whole["macro"] != regions["macro"]
    for own, other in (("volume", "regions"), ("regions", "volume")):
        saved = ("--thresholds", str(tmp_path / own / "thresholds.json"), *FEW)
        code, said = evaluate("zero-shot", capsys, *flags(checkpoint, test, tmp_path / "x", *saved, "--against", other))
        assert (code, "tuned for another prompts (or --against)" in said) == (3, True)
        code, _ = evaluate("zero-shot", capsys, *flags(checkpoint, test, tmp_path / "y", *saved, "--against", own))
        assert code == 0
        assert results(tmp_path / "y")["classes"] == results(tmp_path / own)["classes"]
    slices = ("--label_set", "omniabnorm", "--against", "regions")
    code, said = evaluate("zero-shot", capsys, *flags(checkpoint, test, tmp_path / "x", *slices))
    assert (code, "--against regions: cannot be combined with --label_set omniabnorm" in said) == (2, True)


def test_a_probe_never_tests_patients_that_it_was_fitted_on(
    folder: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    code, said = evaluate("probe", capsys, *flags(checkpoint, folder, tmp_path / "half", "--shares", "1", *FEW))
    assert code == 0, said
    found = results(tmp_path / "half")
    volumes = len(list((folder / "volumes").iterdir()))
    fitted = found["probes"]["linear"]["1"]["num_cases"]
    assert found["pool"]["size"] + fitted == volumes
    assert found["left_out"]["of the half of the patients that the probes are fitted on"] == fitted
    both = ("--train_dir", str(folder), "--shares", "1", *FEW)
    code, said = evaluate("probe", capsys, *flags(checkpoint, folder, tmp_path / "both", *both))
    assert code == 0, said
    assert (tmp_path / "both" / "pool_cases.txt").read_text() == (tmp_path / "half" / "pool_cases.txt").read_text()
    code, said = evaluate("probe", capsys, *flags(checkpoint, folder, tmp_path / "share", "--shares", "0"))
    assert (code, "above 0 and up to 1" in said) == (2, True)


def test_prompts_and_mapping_of_ones_own(
    folder: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    prompts, mapping = tmp_path / "prompts.csv", tmp_path / "mapping.csv"
    prompts.write_text("class,wording,positive,negative\nFluid,plain,There is fluid.,There is no fluid.\n")
    mapping.write_text("class,column\nFluid,Pleural effusion\nFluid,Pericardial effusion\n")
    own = ("--prompts", str(prompts), "--mapping", str(mapping), "--pool", "patient_unique", *FEW)
    code, said = evaluate("zero-shot", capsys, *flags(checkpoint, folder, tmp_path / "z", *own))
    assert code == 0, said
    found = results(tmp_path / "z")
    assert list(found["classes"]["main"]) == ["Fluid"]
    assert found["prompts"]["main"] == "plain"
    assert found["pool"]["name"] == "data, patient_unique"


def test_two_evaluations_are_put_side_by_side(
    folder: Path, checkpoint: Path, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = tmp_path / "other.pth"
    model = write_checkpoint(other, config)
    write_checkpoint(other, config, model={name: 1.1 * tensor for name, tensor in model.state_dict().items()})
    for name, path in (("a", checkpoint), ("b", other)):
        assert evaluate("retrieval", capsys, *flags(path, folder, tmp_path / name, *FEW))[0] == 0
    for out in ("one", "two"):
        both = (str(tmp_path / "a"), str(tmp_path / "b"), "--output_dir", str(tmp_path / out))
        code, said = evaluate("compare", capsys, *both, *FEW)
        assert code == 0, said
        assert "image_to_text/MRR" in said
    assert written(tmp_path / "one") == written(tmp_path / "two")
    assert written(tmp_path / "one").keys() == {"results.json", "differences.csv", "report.html"}
    metrics = results(tmp_path / "one")["metrics"]
    assert metrics["image_to_text/MRR"]["runs"]["a"]["estimate"] == results(tmp_path / "a")["image_to_text"]["MRR"]
    code, said = evaluate("compare", capsys, str(tmp_path / "a"), str(folder), "--output_dir", str(tmp_path / "o"))
    assert (code, "no finished evaluation" in said) == (3, True)
    assert not (tmp_path / "o").exists()


def test_another_kind_of_evaluation_leaves_a_folder_of_results_as_it_is(
    folder: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert evaluate("retrieval", capsys, *flags(checkpoint, folder, tmp_path / "o", *FEW))[0] == 0
    before = written(tmp_path / "o")
    for kind in ("zero-shot", "regions", "probe"):
        code, said = evaluate(kind, capsys, *flags(checkpoint, folder, tmp_path / "o", *FEW))
        assert (code, "holds the results of `evaluate retrieval`" in said) == (2, True), kind
    assert written(tmp_path / "o") == before


def test_cases_by_which_the_checkpoint_was_chosen_are_counted(
    config: Config, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    patients = ["_".join(path.name.split("_")[:2]) for path in sorted((folder / "volumes").iterdir())[:3]]
    write_checkpoint(tmp_path / "c.pth", config, validation_patients=[hash_patient(name) for name in patients])
    code, said = evaluate("retrieval", capsys, *flags(tmp_path / "c.pth", folder, tmp_path / "o", *FEW))
    assert code == 0, said
    assert "3 of them are of patients by whose scores the training chose its best checkpoint" in said
    assert results(tmp_path / "o")["provenance"]["cases_that_chose_the_checkpoint"] == "3"


def test_the_shims_of_the_plan_are_there():
    for kind in ("retrieval", "zero_shot", "regions", "probe"):
        assert f'"{kind.replace("_", "-")}"' in (ROOT / "evaluation" / f"{kind}.py").read_text()


def test_retrieval_without_the_masks_is_another_result_and_says_so(
    checkpoint: Path, halves: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    found = {}
    for masks in ("true", "predicted", "none"):
        out = tmp_path / masks
        assert evaluate("retrieval", capsys, *flags(checkpoint, halves[1], out, *FEW, "--masks", masks))[0] == 0
        found[masks] = json.loads((out / "results.json").read_text())
        assert (out / ("embeddings.npz" if masks == "true" else f"embeddings_{masks}.npz")).is_file()
    assert "withheld" in found["predicted"]["provenance"]["masks"]
    assert found["predicted"]["provenance"]["masks"] in (tmp_path / "predicted" / "report.html").read_text()
    assert len({json.dumps(result["embedding_health"]) for result in found.values()}) == 3
