"""``vlm3d-ct predict``: what the evaluation says of the same scans, without texts and labels; and faulty scans."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiny import tiny_config, write_checkpoint
from vlm3d_ct import load_encoder
from vlm3d_ct.cli.main import run as main
from vlm3d_ct.evaluation.prompt_scores import AGAINST
from vlm3d_ct.evaluation.prompts import shipped_prompts
from vlm3d_ct.text.findings import ABNORMALITIES

NAMES = ("train_1_a_1", "train_2_a_1", "train_3_a_1")
"""So few are read in the process itself."""


@pytest.fixture(scope="module")
def checkpoint(phantom_data: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "checkpoint.pth"
    write_checkpoint(
        path,
        tiny_config(
            *phantom_data, "objective.sentence_region_weight=1", "text.attention=sentence", "text.pooling=mean"
        ),
    )
    return path


def predict(checkpoint: Path, output_dir: Path, *more: object) -> int:
    return main(["predict", *map(str, more), "--checkpoint", str(checkpoint), "--output_dir", str(output_dir)])


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def arrays_of(folder: Path) -> dict[str, Any]:
    with np.load(folder / "embeddings.npz") as file:
        return {name: file[name] for name in file}


@pytest.mark.parametrize("against", AGAINST)
def test_it_says_what_the_evaluation_says_of_the_same_scans(
    against: str, checkpoint: Path, phantom_cohort: Path, tmp_path: Path
):
    data = phantom_cohort / "ct_rate"
    flags = ["--data_dir", str(data), "--output_dir", str(tmp_path / "z"), "--num_bootstraps", "0"]
    assert main(["evaluate", "zero-shot", "--checkpoint", str(checkpoint), *flags, "--against", against]) == 0
    with (tmp_path / "z" / "predictions.csv").open(encoding="utf-8", newline="") as file:
        expected = {(row["case_id"], row["class"]): row for row in csv.DictReader(file)}
    masks = ["--masks", data / "masks", "--against", against, "--workers", "0" if against == "volume" else "2"]
    assert predict(checkpoint, tmp_path / "p", data / "volumes", *masks) == 0
    rows = rows_of(tmp_path / "p")
    assert len(rows) == len(list((data / "volumes").iterdir()))
    compared = 0
    for row in rows:
        for name in ABNORMALITIES:
            if (row["scan"], name) in expected:
                wanted = expected[row["scan"], name]
                assert float(row[name]) == pytest.approx(float(wanted["probability_ensemble"]), abs=1e-4)
                assert float(row[f"margin {name}"]) == pytest.approx(float(wanted["margin_ensemble"]), abs=1e-3)
                compared += 1
    assert compared > 300


def test_embeddings_are_those_of_the_encoder_and_masks_guide_them(
    checkpoint: Path, phantom_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data, encoder = phantom_cohort / "ct_rate", load_encoder(checkpoint)
    scans = [data / "volumes" / f"{name}.nii.gz" for name in NAMES]
    assert predict(checkpoint, tmp_path, *scans) == 0
    arrays = arrays_of(tmp_path)
    assert arrays["names"].tolist() == list(NAMES)
    assert json.loads(arrays["header"].tobytes())["provenance"]["against"] == "volume"
    for row, scan in enumerate(scans):
        alone = encoder.embed_scan(scan)
        np.testing.assert_allclose(arrays["volume"][row], encoder.embed_volume(scan), atol=2e-5)
        np.testing.assert_allclose(arrays["regions"][row], alone.regions, atol=2e-5)
        np.testing.assert_array_equal(arrays["present"][row], alone.present)
    np.testing.assert_allclose(np.linalg.norm(arrays["regions"], axis=-1), 1, rtol=1e-5)
    said = capsys.readouterr().out
    assert said.count("train_") == 3
    assert predict(checkpoint, tmp_path / "guided", *scans, "--masks", data / "masks") == 0
    assert not np.allclose(arrays_of(tmp_path / "guided")["volume"], arrays["volume"], atol=1e-4)


def test_thresholds_of_a_validation_say_yes_or_no(checkpoint: Path, phantom_cohort: Path, tmp_path: Path):
    data = phantom_cohort / "ct_rate"
    assert predict(checkpoint, tmp_path / "first", data / "volumes" / f"{NAMES[0]}.nii.gz") == 0
    found = {name: float(rows_of(tmp_path / "first")[0][name]) for name in ABNORMALITIES}
    cuts: dict[str, float | None] = {name: found[name] + (1e-6 if i % 2 else 0) for i, name in enumerate(ABNORMALITIES)}
    cuts[ABNORMALITIES[2]] = None
    content = {
        "weights": load_encoder(checkpoint).provenance["checkpoint_weights_sha256"],
        "prompts": shipped_prompts("ct_rate").identity,
        "rule": "youden",
        "source": "by hand",
        "patients": [],
        "values": {"main": cuts, "ensemble": cuts},
    }
    file = tmp_path / "thresholds.json"
    file.write_text(json.dumps(content))
    scan = data / "volumes" / f"{NAMES[0]}.nii.gz"
    assert predict(checkpoint, tmp_path / "second", scan, "--thresholds", file) == 0
    (row,) = rows_of(tmp_path / "second")
    said = [row[f"present {name}"] for name in ABNORMALITIES]
    assert said == ["" if i == 2 else "01"[i % 2 == 0] for i in range(len(ABNORMALITIES))]
    file.write_text(json.dumps(content | {"weights": "of another model"}))
    assert predict(checkpoint, tmp_path / "third", scan, "--thresholds", file) == 3
    assert not (tmp_path / "third").exists()


def test_a_faulty_scan_is_named_and_the_others_are_predicted(
    checkpoint: Path, phantom_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = phantom_cohort / "ct_rate" / "volumes"
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in NAMES:
        (scans / f"{name}.nii.gz").write_bytes((source / f"{name}.nii.gz").read_bytes())
    (scans / f"{NAMES[1]}.nii.gz").write_bytes(b"no scan")
    assert predict(checkpoint, tmp_path / "out", scans, "--workers", 2) == 3
    assert [row["scan"] for row in rows_of(tmp_path / "out")] == [NAMES[0], NAMES[2]]
    said = capsys.readouterr()
    assert "2 of 3 scans were predicted" in said.out
    assert f"{NAMES[1]}.nii.gz" in said.err
    assert predict(checkpoint, tmp_path / "none", scans / f"{NAMES[1]}.nii.gz") == 3
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["absent.nii.gz"], "is neither a file nor a folder"),
        (["empty"], "no .nii.gz file is there"),
        (["a/s.nii.gz", "b/s.nii.gz"], "another scan has the same name"),
        (["a/s.nii.gz", "--masks", "absent"], "is not a folder"),
        (["a/s.nii.gz", "--masks", "empty"], "holds nothing, and no mask named like s"),
    ],
)
def test_wrong_names_are_refused(
    arguments: list[str],
    told: str,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b", "empty"):
        Path(folder).mkdir()
    for path in ("a/s.nii.gz", "b/s.nii.gz"):
        Path(path).touch()
    assert predict(checkpoint, tmp_path / "out", *arguments) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
