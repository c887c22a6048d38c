"""What leaves the data folder: no text of a report and no patient id in logs, metrics or event files (S4 in spirit)."""

from __future__ import annotations

import json
from pathlib import Path

from commands import ROOT, TRAIN, as_flags, run

from tiny import OVERRIDES


def test_a_run_leaves_no_text_and_no_patient_behind(
    phantom_cohort: Path, phantom_data: tuple[str, ...], tmp_path: Path
):
    settings = ("training.num_epochs=1", "training.batch_size=3", "training.precision=fp32", "training.log_interval=1")
    flags = as_flags((*OVERRIDES, *settings, *phantom_data))
    folder = tmp_path / "logs" / "run"
    done = run(*TRAIN, "--config", str(ROOT / "configs/finetune_combined.yaml"), "--output_dir", str(folder), *flags)
    assert done.returncode == 0, done.stderr
    # the list of the cases that the run began with holds their ids, and is needed to continue it
    begun = (folder / "cases.json").read_bytes()
    written = {
        path: path.read_bytes()
        for path in (tmp_path / "logs").rglob("*")
        if path.is_file() and path.name != "cases.json"
    }
    assert any("tfevents" in path.name for path in written)
    assert folder / "metrics.jsonl" in written
    secrets = set()
    for record in json.loads((phantom_cohort / "ct_rate" / "cot" / "cot_0000.json").read_text()):
        secrets |= {record["volumename"].removesuffix("_a_1.nii.gz") + "_", *record["answer"].split(". ")}
    for path in (phantom_cohort / "omniabnorm" / "cot").glob("*.json"):
        for record in json.loads(path.read_text()):
            secrets |= {record["case_id"], "omni_" + record["case_id"].split("_")[0]}
    secrets = {secret for secret in secrets if len(secret) > 7}
    assert len(secrets) > 60
    said = {Path("output"): (done.stdout + done.stderr).encode(), **written}
    leaks = {(str(path), secret) for path, content in said.items() for secret in secrets if secret.encode() in content}
    assert not leaks
    texts = {secret for secret in secrets if " " in secret}
    assert texts
    assert not {secret for secret in texts if secret.encode() in begun}
