"""The report of a zero-shot evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from vlm3d_ct.evaluation.charts import interval_bars, matrix_picture, reliability_diagram
from vlm3d_ct.evaluation.examples import Example
from vlm3d_ct.evaluation.metrics.binary import RATES
from vlm3d_ct.evaluation.metrics.bootstrap import Interval
from vlm3d_ct.evaluation.prompt_scores import SCORINGS, Scoring
from vlm3d_ct.evaluation.results import CASES_FILE, format_interval, format_number
from vlm3d_ct.evaluation.zero_shot_files import WORDINGS_FILE, ZeroShotEvaluation, mean_spread, spread
from vlm3d_ct.pages.page import Block, Card, Facts, Gallery, Page, Picture, Prose, Section, Table
from vlm3d_ct.pages.pictures import thumbnail

CARDS_PER_LIST = 4
"""Cases in the gallery of hits and in that of misses."""
MAX_CLASSES_SHOWN = 40
"""Charts and tables by class show so many, the most frequent ones; the files hold all of them."""
MAX_TEXT_CHARACTERS = 600


def choose_examples(evaluation: ZeroShotEvaluation) -> dict[str, list[tuple[str, str]]]:
    """(case, class) pairs to show: ``hits``, ``misses`` (present, called absent) and ``false alarms``.

    By the ensemble's probability: the surest of each, one of each class, no case twice in a list.
    """
    probabilities = evaluation.scores.probabilities("ensemble")
    present, absent = evaluation.labels == 1, evaluation.labels == 0
    called = probabilities >= 0.5
    lists = {
        "hits": np.where(present & called, probabilities, -1.0),
        "misses": np.where(present & ~called, 1 - probabilities, -1.0),
        "false alarms": np.where(absent & called, probabilities, -1.0),
    }
    return {title: _surest(evaluation, sure) for title, sure in lists.items()}


def _surest(evaluation: ZeroShotEvaluation, sure: Float64[np.ndarray, "n c"]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    cases, classes = set[int](), set[int]()
    for flat in np.argsort(-sure, axis=None, kind="stable"):
        row, column = divmod(int(flat), sure.shape[1])
        if sure[row, column] < 0 or len(found) == CARDS_PER_LIST:
            break
        if row not in cases and column not in classes:
            cases.add(row)
            classes.add(column)
            found.append((evaluation.case_ids[row], evaluation.scores.table.classes[column]))
    return found


def zero_shot_page(evaluation: ZeroShotEvaluation, examples: Sequence[Example], window_hu: tuple[float, float]) -> Page:
    """The page.

    Args:
        evaluation: what was measured.
        examples: the cases that `choose_examples` named.
        window_hu: (centre, width) of the pictures.
    """
    left_out = " ".join(f"Left out: {count} ({reason})." for reason, count in evaluation.left_out.items())
    lead = (
        f"Checkpoint {evaluation.provenance.get('checkpoint', 'unknown')} on {evaluation.pool_name}: "
        f"{len(evaluation.case_ids)} cases, {len(evaluation.scores.table.classes)} classes of {evaluation.label_set}. "
        f"{left_out}"
    )
    shown = _shown_classes(evaluation)
    return Page(
        title="Zero-shot classification by prompts",
        lead=lead.strip(),
        sections=(
            Section(title="Results", blocks=_macro(evaluation)),
            Section(title="By class", blocks=_classes(evaluation, shown)),
            Section(title="At thresholds", blocks=_thresholds(evaluation, shown)),
            Section(title="Calibration", blocks=_calibration(evaluation)),
            Section(title="Sensitivity to the wording", blocks=_wordings(evaluation, shown)),
            Section(title="What is taken for what", blocks=(_confusion(evaluation, shown),)),
            Section(title="Single cases", blocks=_galleries(evaluation, examples, window_hu)),
            Section(title="Provenance", blocks=(Facts(rows=_facts(evaluation)),)),
        ),
    )


def _shown_classes(evaluation: ZeroShotEvaluation) -> list[str]:
    """The most frequent classes, in the order of the table."""
    found = evaluation.scored["main"].classes
    frequent = sorted(found, key=lambda name: -found[name].num_positive)[:MAX_CLASSES_SHOWN]
    return [name for name in found if name in set(frequent)]


def _macro(evaluation: ZeroShotEvaluation) -> tuple[Block, ...]:
    rows = []
    for scoring in SCORINGS:
        found = evaluation.scored[scoring]
        rows.append(
            (
                evaluation.scoring_names[scoring],
                format_interval(found.macro["auroc"]),
                format_interval(found.macro["average_precision"]),
                format_number(found.macro_ece),
                *(format_number(value) for value in found.crg.values()),
            )
        )
    rows.append(
        ("chance", "0.500", format_number(_mean_prevalence(evaluation)), "-", *("-" for _ in _cuts(evaluation)))
    )
    top = ", ".join(f"{name} {value:.3f}" for name, value in evaluation.top.items())
    note = (
        f"Means over the {evaluation.scored['main'].num_auroc_classes} classes that have positive and negative cases; "
        "in brackets 95 % intervals, patients drawn with replacement. AUROC: how often a positive case scores above a "
        "negative one. CRG weighs hits and false alarms by prevalence (VLM3D challenge); it is no mean, but one number "
        f"of all classes and of the {evaluation.scored['main'].num_crg_cases} cases whose every label is known. "
        "Label sets and pools differ between publications; a difference of a point means little."
    )
    blocks: list[Block] = [
        Table(
            header=("", "AUROC", "average precision", "ECE", *(f"CRG at {cut}" for cut in _cuts(evaluation))),
            rows=tuple(rows),
            muted=frozenset({len(rows) - 1}),
        ),
        Prose(text=note, soft=True),
    ]
    if top:
        chance = 1 / len(evaluation.scores.table.classes)
        blocks.append(Prose(text=f"Choosing one class for each case: {top}; chance of the first {chance:.3f}."))
    return tuple(blocks)


def _cuts(evaluation: ZeroShotEvaluation) -> tuple[str, ...]:
    return tuple(evaluation.scored["main"].crg)


def _mean_prevalence(evaluation: ZeroShotEvaluation) -> float:
    """Over the classes that the mean average precision is over."""
    classes = evaluation.scored["main"].classes.values()
    found = [c.num_positive / c.num_cases for c in classes if 0 < c.num_positive < c.num_cases]
    return float(np.mean(found)) if found else float("nan")


def _classes(evaluation: ZeroShotEvaluation, shown: Sequence[str]) -> tuple[Block, ...]:
    main, ensemble = (evaluation.scored[scoring].classes for scoring in SCORINGS)
    names = evaluation.scoring_names
    rows = tuple(
        (
            name,
            f"{main[name].num_positive} of {main[name].num_cases}",
            *(format_interval(found[name].numbers["auroc"]) for found in (main, ensemble)),
            *(format_interval(found[name].numbers["average_precision"]) for found in (main, ensemble)),
        )
        for name in shown
    )
    header = ("class", "positive", *(f"{m}, {names[s]}" for m in ("AUROC", "AP") for s in SCORINGS))
    bars = interval_bars({name: ensemble[name].numbers["auroc"] for name in shown}, label="AUROC", chance=0.5)
    more = len(evaluation.scores.table.classes) - len(shown)
    blocks: list[Block] = [
        Picture(data_uri=bars, alt="AUROC by class with intervals", caption=f"AUROC, {names['ensemble']} wordings."),
        Table(header=header, rows=rows),
    ]
    if more:
        blocks.append(Prose(text=f"{more} rarer classes are in classes.csv only.", soft=True))
    return tuple(blocks)


def _thresholds(evaluation: ZeroShotEvaluation, shown: Sequence[str]) -> tuple[Block, ...]:
    found = evaluation.scored["ensemble"]
    same: dict[tuple[float, ...], list[str]] = {}
    for cut in _cuts(evaluation):
        same.setdefault(tuple(result.cuts[cut] for result in found.classes.values()), []).append(cut)
    blocks: list[Block] = []
    for cuts in same.values():
        rows = [
            (name, format_number(result.cuts[cuts[0]]), *_rates(result.numbers, cuts[0]))
            for name, result in ((name, found.classes[name]) for name in shown)
        ]
        rows.append((f"mean of {found.num_rate_classes[cuts[0]]}", "", *_rates(found.macro, cuts[0])))
        header = ("class", "threshold", *(rate.replace("_", " ") for rate in RATES))
        caption = f"{evaluation.scoring_names['ensemble']} wordings, threshold: {' = '.join(cuts)}"
        blocks.append(Table(header=header, rows=tuple(rows), caption=caption))
    note = (
        "The means are over the classes that have positive and negative cases and a threshold; the precision of a "
        "class that is never called counts as 0 there. "
        f"Thresholds: {evaluation.tuned_note}. They are never tuned on the cases of the test. For a pair of prompts "
        "the argmax is the threshold 0.5. The weighted F1, as CT-CLIP reports it, is near 1 for rare findings that are "
        "never found."
    )
    if evaluation.scores.asked:
        note += (
            " The prompts were held against regions, of which the best counts: a high margin may be chance, 0.5 is no "
            "even chance, and probabilities of classes with many regions are higher. Tuned thresholds allow for that."
        )
    return (*blocks, Prose(text=note, soft=True))


def _rates(numbers: Mapping[str, Interval], cut: str) -> list[str]:
    return [format_number(numbers[f"{rate}@{cut}"].estimate) for rate in RATES]


def _calibration(evaluation: ZeroShotEvaluation) -> tuple[Block, ...]:
    blocks = []
    for scoring in SCORINGS:
        found = evaluation.scored[scoring]
        curve = found.curve
        uri = reliability_diagram(curve.mean_probability, curve.share_positive, curve.count)
        caption = (
            f"{evaluation.scoring_names[scoring]}: all classes together; expected calibration error (10 bins), mean of "
            f"{found.num_auroc_classes} classes with positive and negative cases: {format_number(found.macro_ece)}."
        )
        blocks.append(Picture(data_uri=uri, alt=f"reliability of {scoring}", caption=caption))
    return tuple(blocks)


def _wordings(evaluation: ZeroShotEvaluation, shown: Sequence[str]) -> tuple[Block, ...]:
    names = list(dict.fromkeys(wording for name in shown for wording in evaluation.wordings[name]))[:8]
    rows = []
    for name in shown:
        found = evaluation.wordings[name]
        low, high = spread(evaluation, name)
        cells = (format_number(found[wording]) if wording in found else "-" for wording in names)
        rows.append((name, *cells, format_number(high - low)))
    note = (
        f"AUROC of every wording alone. Mean over classes of the highest minus the lowest: "
        f"{format_number(mean_spread(evaluation))}. The sentences are in {WORDINGS_FILE}."
    )
    return (Table(header=("class", *names, "spread"), rows=tuple(rows)), Prose(text=note, soft=True))


def _confusion(evaluation: ZeroShotEvaluation, shown: Sequence[str]) -> Block:
    """Of the cases with a finding (row), the share called positive for each class (column), by the ensemble.

    Where every case has exactly one class, the share for which the class of the column was chosen.
    """
    columns = [evaluation.scores.table.classes.index(name) for name in shown]
    if evaluation.top:
        positive = evaluation.scores.positive
        called = np.arange(positive.shape[1])[None, :] == positive.argmax(axis=1)[:, None]
        caption = "Per cent of the cases of the class of the row for which that of the column was chosen."
    else:
        called = evaluation.scores.probabilities("ensemble") >= _limits(evaluation, "ensemble")
        cut = "the tuned thresholds" if evaluation.tuned is not None else "0.5"
        caption = (
            f"Per cent of the cases with the finding of the row that are called positive for the column's, at {cut}."
        )
    shares = np.full((len(columns), len(columns)), np.nan)
    for row, own in enumerate(columns):
        with_finding = evaluation.labels[:, own] == 1
        if with_finding.any():
            shares[row] = called[with_finding][:, columns].mean(axis=0)
    column_label = "class that was chosen" if evaluation.top else "called positive for"
    uri = matrix_picture(shares, shown, shown, row_label="finding in the case", column_label=column_label)
    return Picture(data_uri=uri, alt="confusion by finding", caption=caption)


def _limits(evaluation: ZeroShotEvaluation, scoring: Scoring) -> Float64[np.ndarray, " c"]:
    cut = _cuts(evaluation)[-1]
    limits = np.array([result.cuts[cut] for result in evaluation.scored[scoring].classes.values()])
    return np.where(np.isfinite(limits), limits, 0.5)


def _galleries(
    evaluation: ZeroShotEvaluation, examples: Sequence[Example], window_hu: tuple[float, float]
) -> tuple[Block, ...]:
    by_id = {example.case_id: example for example in examples}
    probabilities = evaluation.scores.probabilities("ensemble")
    blocks = []
    for title, pairs in choose_examples(evaluation).items():
        cards = []
        for case_id, name in pairs:
            if case_id not in by_id:
                continue
            example = by_id[case_id]
            row, column = evaluation.case_ids.index(case_id), evaluation.scores.table.classes.index(name)
            uri = thumbnail(example.voxels_hu, example.labels, example.spacing_mm, window_hu=window_hu)
            said = f"{name}: probability {probabilities[row, column]:.3f}"
            label = "present" if evaluation.labels[row, column] == 1 else "absent"
            cards.append(
                Card(
                    title=case_id,
                    facts=(said, f"label {label}"),
                    pictures=(Picture(data_uri=uri, alt=f"sections of {case_id}", caption="Case"),),
                    texts=(("Text", _shorten(example.text)),) if example.text else (),
                    wrong=title != "hits",
                )
            )
        if cards:
            blocks.append(Gallery(title=title.capitalize(), cards=tuple(cards)))
    return tuple(blocks)


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARACTERS else text[:MAX_TEXT_CHARACTERS].rsplit(" ", 1)[0] + " …"


def _facts(evaluation: ZeroShotEvaluation) -> tuple[tuple[str, str], ...]:
    own = (
        ("prompts", f"{evaluation.scores.table.name}, hash {evaluation.scores.table.identity}"),
        *((f"regions asked for {name}", ", ".join(found)) for name, found in evaluation.scores.asked.items()),
        ("thresholds", evaluation.tuned_note),
        ("cases", f"{evaluation.pool_name}, {len(evaluation.case_ids)} (listed in {CASES_FILE})"),
    )
    left_out = tuple(("left out", f"{count}: {reason}") for reason, count in evaluation.left_out.items())
    return (*evaluation.provenance.items(), *own, *left_out)
