"""``vlm3d-ct verify`` as a user runs it: what it prints, what it writes, what it returns."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from vlm3d_ct.cli.main import run as main


def test_verify_finds_nothing_in_good_data_and_every_fault_in_bad(
    phantom_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["verify", str(phantom_cohort / "ct_rate"), "--workers", "1"]) == 0
    assert "28 cases, 28 usable, 0 problems" in capsys.readouterr().out
    bad = tmp_path / "bad"
    shutil.copytree(phantom_cohort / "ct_rate", bad)
    volumes, masks = bad / "volumes", bad / "masks"
    (volumes / "train_2_a_1.nii.gz").write_bytes((volumes / "train_2_a_1.nii.gz").read_bytes()[:4000])
    (volumes / "train_3_a_1.nii.gz").unlink()
    shutil.copy(masks / "train_5_a_1.nii.gz", volumes / "train_77_a_1.nii.gz")
    raw = bytearray(gzip.decompress((masks / "train_4_a_1.nii.gz").read_bytes()))
    raw[-1000:] = b"\x63" * 1000
    (masks / "train_4_a_1.nii.gz").write_bytes(gzip.compress(bytes(raw)))
    assert main(["verify", str(bad), "--json", str(tmp_path / "faults.json"), "--workers", "1"]) == 3
    said = capsys.readouterr().out
    (found,) = json.loads((tmp_path / "faults.json").read_text())
    faults = {(problem["code"], Path(problem["file"]).name) for problem in found["problems"]}
    for name in ("train_2_a_1.nii.gz", "train_4_a_1.nii.gz", "train_77_a_1.nii.gz"):
        assert any(file == name for _, file in faults), (name, faults)
        assert name in said
    assert {code for code, _ in faults} >= {"text-without-volume", "mask-without-volume", "volume-without-text"}
    assert (found["num_cases"], found["num_usable"]) == (27, 25)
    for problem in found["problems"]:
        assert problem["file"]
        assert problem["message"]
        assert problem["remedy"]


def test_verify_reads_the_folders_of_a_configuration(
    phantom_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "c.yaml"
    file.write_text(f"data: {{ctrate_dir: {phantom_cohort}/ct_rate, omniabnorm_dir: {phantom_cohort}/omniabnorm}}\n")
    assert main(["verify", str(file), "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "28 cases, 28 usable" in said
    assert "7 cases, 7 usable" in said
    (tmp_path / "none.yaml").write_text("stage: pretrain\n")
    assert main(["verify", str(tmp_path / "none.yaml")]) == 2


def test_verify_writes_a_page_that_needs_nothing_else(
    phantom_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    page = tmp_path / "audit.html"
    flags = ["verify", str(phantom_cohort / "ct_rate"), "--html", str(page), "--workers", "1"]
    assert main(flags) == 0
    assert f"written: {page}" in capsys.readouterr().out
    html = page.read_text()
    assert "28 cases, 28 usable, 0 problems." in html
    assert "://" not in html
    assert "<script" not in html
    assert main([*flags[:2], "--html", str(tmp_path / "no" / "folder" / "a.html"), "--workers", "1"]) == 2
    assert "cannot write it" in capsys.readouterr().err
