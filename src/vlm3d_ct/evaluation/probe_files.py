"""The files and the page of a probe evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int8

from vlm3d_ct.evaluation.charts import interval_bars, interval_curves
from vlm3d_ct.evaluation.probe import NUM_DRAWS, ProbeResult
from vlm3d_ct.evaluation.prompt_scores import probability
from vlm3d_ct.evaluation.results import (
    CASES_FILE,
    format_interval,
    format_number,
    write_cases,
    write_csv,
    write_results,
)
from vlm3d_ct.pages.page import Block, Facts, Page, Picture, Prose, Section, Table

CLASSES_FILE, PREDICTIONS_FILE = "classes.csv", "predictions.csv"
NOTE = (
    "Probes are fitted on labels of other patients; the encoder is frozen. A share below 100 % is drawn "
    f"{NUM_DRAWS} times: AUROC and average precision are means over the draws, beside them the lowest and the "
    "highest AUROC; cases, classes and ECE are those of the first draw. A class of which only one kind of label "
    "occurs cannot be fitted and counts as 0.5. In brackets 95 % intervals over patients of the test; the draws "
    "stay. A probe says what embeddings hold, not what the encoder does with prompts."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeEvaluation:
    """Everything that an evaluation by probes found.

    Attributes:
        pool_name: of the test cases, in words.
        fit_name: of the cases that were fitted on.
        names: of the classes.
        case_ids: of the test cases.
        patient_ids: of them.
        labels: of them; 1, 0, -1 unknown.
        results: by probe, then by share of the patients fitted on.
        left_out: test cases that do not take part, by reason.
        fit_left_out: likewise of the cases to fit on.
        provenance: what made the numbers.
    """

    pool_name: str
    fit_name: str
    names: tuple[str, ...]
    case_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    labels: Int8[np.ndarray, "n c"]
    results: Mapping[str, Mapping[float, ProbeResult]]
    left_out: Mapping[str, int]
    fit_left_out: Mapping[str, int]
    provenance: Mapping[str, str]

    def whole(self, probe: str) -> ProbeResult:
        """The result with the largest share."""
        return self.results[probe][max(self.results[probe])]


def write_probe(evaluation: ProbeEvaluation, output_dir: Path) -> None:
    """Write the case list, ``classes.csv``, ``predictions.csv`` (largest share) and, last, ``results.json``.

    In ``classes.csv`` macro numbers are means over the draws of a share, those of classes are of its first draw.
    """
    write_cases(output_dir, evaluation.case_ids)
    of_classes = ("probe", "share", "class", "metric", "estimate", "low", "high")
    write_csv(output_dir / CLASSES_FILE, of_classes, _class_rows(evaluation))
    columns = (f"{what}_{name}" for name in evaluation.results for what in ("probability", "margin"))
    of_cases = ("case_id", "patient_id", "class", "label", *columns)
    write_csv(output_dir / PREDICTIONS_FILE, of_cases, _predictions(evaluation))
    write_results(
        output_dir,
        "probe",
        {
            "pool": {"name": evaluation.pool_name, "size": len(evaluation.case_ids), "cases_file": CASES_FILE},
            "fit": {"name": evaluation.fit_name, "left_out": evaluation.fit_left_out},
            "probes": {
                name: {f"{share:g}": _summary(found) for share, found in of_probe.items()}
                for name, of_probe in evaluation.results.items()
            },
            "left_out": evaluation.left_out,
            "provenance": evaluation.provenance,
        },
    )


def format_probes(evaluation: ProbeEvaluation) -> str:
    """Macro numbers of every probe and share, for a terminal."""
    lines = [f"{'':24}{'cases':>8}{'classes':>9}{'AUROC':>26}{'average precision':>26}"]
    for name, of_probe in evaluation.results.items():
        for share, found in of_probe.items():
            macro = found.macro
            lines.append(
                f"{f'{name}, {100 * share:g} %':24}{found.num_cases:>8}{found.num_classes:>9}"
                f"{format_interval(macro['auroc']):>26}{format_interval(macro['average_precision']):>26}"
            )
    lines.append(f"{len(evaluation.case_ids)} test cases; fitted on {evaluation.fit_name}")
    return "\n".join(lines)


def probe_page(evaluation: ProbeEvaluation) -> Page:
    """The report."""
    left_out = " ".join(f"Left out: {count} ({reason})." for reason, count in evaluation.left_out.items())
    curves = {
        name: [(100 * share, found.macro["auroc"]) for share, found in of_probe.items()]
        for name, of_probe in evaluation.results.items()
    }
    rows = tuple(
        (
            f"{name}, {100 * share:g} %",
            str(found.num_cases),
            str(found.num_classes),
            format_interval(found.macro["auroc"]),
            _spread(found),
            format_interval(found.macro["average_precision"]),
            format_number(found.scored.macro_ece),
        )
        for name, of_probe in evaluation.results.items()
        for share, found in of_probe.items()
    )
    facts = (
        *evaluation.provenance.items(),
        ("fitted on", evaluation.fit_name),
        *(("left out", f"{count}: {reason}") for reason, count in evaluation.left_out.items()),
        *(("left out of the fit", f"{count}: {reason}") for reason, count in evaluation.fit_left_out.items()),
    )
    header = ("probe, share of patients", "cases", "classes", "AUROC", "over draws", "average precision", "ECE")
    curve = interval_curves(curves, x_label="per cent of the patients", y_label="macro AUROC", log_x=True)
    return Page(
        title="Probes on frozen embeddings",
        lead=f"Checkpoint {evaluation.provenance.get('checkpoint', 'unknown')} on {evaluation.pool_name}: "
        f"{len(evaluation.case_ids)} cases; fitted on {evaluation.fit_name}. {left_out}".strip(),
        sections=(
            Section(
                title="Label efficiency",
                blocks=(
                    Picture(data_uri=curve, alt="macro AUROC by share of the labels"),
                    Table(header=header, rows=rows),
                    Prose(text=f"{NOTE} {_mean_over(evaluation)}", soft=True),
                ),
            ),
            Section(title="By class, with all labels", blocks=_by_class(evaluation)),
            Section(title="Provenance", blocks=(Facts(rows=facts),)),
        ),
    )


def _mean_over(evaluation: ProbeEvaluation) -> str:
    """Which classes the means are over, for the page."""
    num = next(iter(next(iter(evaluation.results.values())).values())).scored.num_auroc_classes
    return f"All means are over the {num} of {len(evaluation.names)} classes with positive and negative test cases."


def _by_class(evaluation: ProbeEvaluation) -> tuple[Block, ...]:
    """AUROC of every class with the largest share: bars of the last probe, and all probes in a table."""
    whole = {name: evaluation.whole(name).scored.classes for name in evaluation.results}
    last = list(whole)[-1]
    rows = tuple(
        (
            name,
            str(whole[last][name].num_positive),
            *(format_interval(classes[name].numbers["auroc"]) for classes in whole.values()),
        )
        for name in evaluation.names
    )
    bars = {name: whole[last][name].numbers["auroc"] for name in evaluation.names}
    return (
        Picture(
            data_uri=interval_bars(bars, label="AUROC", chance=0.5),
            alt="AUROC by class",
            caption=f"AUROC, {last} probe.",
        ),
        Table(header=("class", "positive", *(f"AUROC, {name}" for name in whole)), rows=rows),
    )


def _spread(found: ProbeResult) -> str:
    if len(found.draws) == 1:
        return "-"
    return f"{format_number(min(found.draws))} to {format_number(max(found.draws))}"


def _summary(found: ProbeResult) -> dict[str, Any]:
    return {
        "num_cases": found.num_cases,
        "num_classes": found.num_classes,
        "macro": found.macro,
        "num_auroc_classes": found.scored.num_auroc_classes,
        "macro_auroc_of_draws": found.draws,
        "ece_of_first_draw": found.scored.macro_ece,
        "classes_of_first_draw": {
            name: {"num_cases": r.num_cases, "num_positive": r.num_positive, **r.numbers, "ece": r.ece}
            for name, r in found.scored.classes.items()
        },
    }


def _class_rows(evaluation: ProbeEvaluation) -> Iterator[tuple[object, ...]]:
    for probe, of_probe in evaluation.results.items():
        for share, found in of_probe.items():
            for name, numbers in (
                ("macro", found.macro),
                *((n, r.numbers) for n, r in found.scored.classes.items()),
            ):
                for metric, value in numbers.items():
                    yield probe, share, name, metric, value.estimate, value.low, value.high


def _predictions(evaluation: ProbeEvaluation) -> Iterator[tuple[object, ...]]:
    margins = [evaluation.whole(name).margins for name in evaluation.results]
    columns = [each for logits in margins for each in (probability(logits), logits)]
    for row, (case_id, patient_id) in enumerate(zip(evaluation.case_ids, evaluation.patient_ids, strict=True)):
        for column, name in enumerate(evaluation.names):
            label = int(evaluation.labels[row, column])
            values = (float(each[row, column]) for each in columns)
            yield case_id, patient_id, name, "" if label < 0 else label, *values
