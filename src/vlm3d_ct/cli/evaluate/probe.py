"""``vlm3d-ct evaluate probe``, also reached as ``evaluation/probe.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from vlm3d_ct.cli.arguments import Commands, add_command, existing_directory
from vlm3d_ct.cli.evaluate.shared import (
    Prepared,
    add_interval_flags,
    add_label_flags,
    add_shared_flags,
    load_labels,
    prepare,
)
from vlm3d_ct.data.labels import LabelTable, complete_rows
from vlm3d_ct.embeddings import EmbeddingSet
from vlm3d_ct.errors import ConfigError, DataError, Problem
from vlm3d_ct.evaluation.probe import SHARES, Labelled, ProbeResult, choose_share, make_probes, measure_probe
from vlm3d_ct.evaluation.probe_files import ProbeEvaluation, format_probes, probe_page, write_probe
from vlm3d_ct.evaluation.results import REPORT_FILE, write_text
from vlm3d_ct.log import is_main_rank, say
from vlm3d_ct.seeding import derive_seed

NO_LABELS = "without complete labels"
TO_FIT_ON = "of the half of the patients that the probes are fitted on"


def add_kind(kinds: Commands[argparse.ArgumentParser]) -> None:
    """Register the kind."""
    parser = add_command(
        kinds,
        "probe",
        "Fit small models on frozen embeddings and labels of other patients, and test them.",
        "vlm3d-ct evaluate probe --checkpoint exp_log/finetune/checkpoint_best.pth \\\n"
        "      --data_dir data/test --train_dir data/train --output_dir exp_log/eval_probe",
    )
    add_shared_flags(parser)
    parser.add_argument(
        "--train_dir",
        metavar="DIR",
        help="cases to fit on, patients of the test left out (default: --data_dir, the patients that the checkpoint "
        "was trained on; where it has none of them, half of its patients)",
    )
    add_label_flags(parser, "to fit on and to test against")
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        default=SHARES,
        metavar="SHARE",
        help="shares of the patients to fit on (default: 0.01 0.1 1)",
    )
    add_interval_flags(parser)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Run ``evaluate probe``."""
    shares = sorted(set(parsed.shares))
    if not all(0 < share <= 1 for share in shares):
        raise ConfigError(f"--shares {' '.join(map(str, parsed.shares))}: give numbers above 0 and up to 1.")
    train_dir = existing_directory("--train_dir", parsed.train_dir or parsed.data_dir)
    table, fit_table = (_labels(parsed, directory) for directory in (Path(parsed.data_dir), train_dir))
    prepared = prepare(parsed, fit_dir=train_dir, fit_on_trained=True)
    if not is_main_rank():
        return 0
    if table.names != fit_table.names:
        raise DataError(_problem(str(train_dir), "Its labels have other classes than those of --data_dir."))
    test, left_out = _labelled(prepared, prepared.embeddings, table)
    if prepared.fit is None:
        test, fit = _halves(prepared, test, parsed.seed)
        fit_name, fit_left_out = f"{prepared.name}, half of the patients", dict[str, int]()
        left_out[TO_FIT_ON] = len(fit)
    else:
        fit, fit_left_out = _labelled(prepared.fit, prepared.fit.embeddings, fit_table)
        fit_name = prepared.fit.name
    cases, fit_cases = _cases(test, table), _cases(fit, fit_table)
    found: dict[str, dict[float, ProbeResult]] = {}
    for kind in make_probes(parsed.seed):
        found[kind] = {}
        for share in shares:
            sampling = {"num_samples": parsed.num_bootstraps, "seed": parsed.seed}
            result = measure_probe(kind, fit_cases, cases, table.names, share, **sampling)
            found[kind][share] = result
            say(f"{kind} probe fitted on {result.num_cases} cases, draws of patients: {len(result.draws)}")
    evaluation = ProbeEvaluation(
        pool_name=prepared.name,
        fit_name=f"{fit_name}, {len(fit)} cases",
        names=table.names,
        case_ids=test.case_ids,
        patient_ids=test.patient_ids,
        labels=cases.labels,
        results=found,
        left_out=left_out,
        fit_left_out=fit_left_out,
        provenance=prepared.with_settings(
            fit_data_list_sha256=(prepared.fit or prepared).provenance["data_list_sha256"],
            num_bootstraps=parsed.num_bootstraps,
            seed=parsed.seed,
        ),
    )
    output_dir = Path(parsed.output_dir)
    write_text(output_dir / REPORT_FILE, probe_page(evaluation).render())
    write_probe(evaluation, output_dir)
    say(format_probes(evaluation))
    say(f"report: {output_dir / REPORT_FILE}")
    return 0


def _labels(parsed: argparse.Namespace, directory: Path) -> LabelTable:
    """The labels of a folder, or of ``--labels``.

    Raises:
        DataError: there are none, or they cannot be used.
    """
    existing_directory("--data_dir", str(directory))
    table, _ = load_labels(parsed) if parsed.labels else load_labels(parsed, directory=directory)
    if table is None:
        raise DataError(_problem(str(directory), "The folder has no label table."))
    return table


def _labelled(prepared: Prepared, embeddings: EmbeddingSet, table: LabelTable) -> tuple[EmbeddingSet, dict[str, int]]:
    """The cases with complete labels, and what was left out."""
    known = complete_rows(table.for_cases(embeddings.case_ids))
    left_out = dict(prepared.left_out)
    if not known.all():
        left_out[NO_LABELS] = int(np.count_nonzero(~known))
    if table.missing:
        left_out[f"classes without a label column: {', '.join(table.missing)}"] = len(table.missing)
    if not known.any():
        raise DataError(_problem(str(prepared.directory), "No case has complete labels."))
    return embeddings.select(np.flatnonzero(known).astype(np.int64)), left_out


def _halves(prepared: Prepared, cases: EmbeddingSet, seed: int) -> tuple[EmbeddingSet, EmbeddingSet]:
    """The cases of one half of the patients to test, those of the other half to fit on."""
    if len(set(cases.patient_ids)) < 2:
        raise DataError(_problem(str(prepared.directory), "One patient can not be both fitted on and tested."))
    fit = choose_share(cases.patient_ids, 0.5, derive_seed(seed, "probe halves"))
    test = np.setdiff1d(np.arange(len(cases), dtype=np.int64), fit)
    return cases.select(test), cases.select(fit)


def _cases(embeddings: EmbeddingSet, table: LabelTable) -> Labelled:
    """The global embedding of every scan, then its regions', with the labels."""
    tokens = np.concatenate([embeddings.volume[:, None], embeddings.region_volume], axis=1)
    return Labelled(
        tokens=tokens, labels=table.for_cases(embeddings.case_ids), patient_ids=tuple(embeddings.patient_ids)
    )


def _problem(file: str, message: str) -> Problem:
    remedy = "Add labels.csv with these cases, or give --labels FILE."
    return Problem(code="no-labels", file=file, field="labels", value="none", message=message, remedy=remedy)
