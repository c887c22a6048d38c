"""The page of an audit: what the folder holds, what is wrong with it, how its cases are spread, and the odd ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from vlm3d_ct.audit.charts import bars, histograms
from vlm3d_ct.audit.facts import PERCENTILES, CaseFacts
from vlm3d_ct.audit.oddness import ODD_FROM, Odd
from vlm3d_ct.audit.verify import SHOWN_PER_CODE, VerifyReport
from vlm3d_ct.config.schema import WINDOW_PRESETS
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.load import load_case
from vlm3d_ct.pages.page import Block, Card, Facts, Gallery, Page, Picture, Prose, Section, Table
from vlm3d_ct.pages.pictures import windows_picture
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.volumes.slices import SliceStack

PICTURE_STEP = 256
"""Pictures are drawn from about so many voxels along each axis."""


def audit_page(reports: Sequence[VerifyReport]) -> str:
    """The page as HTML; the odd cases are read once more for their pictures. It names case ids and shows no text.

    Raises:
        DataError: an odd case can no longer be read.
    """
    sections: list[Section] = []
    for report in reports:
        prefix = f"{report.directory.name}: " if len(reports) > 1 else ""
        for title, blocks in (
            ("What is there", _summary(report)),
            ("What is wrong", _problems(report)),
            ("Volumes", _volumes(report)),
            ("Slices", _slices(report)),
            ("Texts and regions", _regions(report)),
            ("Labels", _labels(report)),
            ("Odd cases", _odd_cases(report)),
        ):
            heading = f"{prefix}{title}"
            sections.append(Section(title=heading, blocks=tuple(blocks)))
    problems = sum(len(report.problems) for report in reports)
    usable, cases = (sum(getattr(report, name) for report in reports) for name in ("num_usable", "num_cases"))
    lead = f"{cases} cases, {usable} usable, {problems} problems."
    return Page(title="Audit of the data", lead=lead, sections=tuple(sections)).render()


def _summary(report: VerifyReport) -> list[Block]:
    rows = [("folder", str(report.directory))]
    rows += [("recognised", line) for line in report.description.splitlines()]
    rows += [("cases with a text", str(report.num_cases)), ("usable", str(report.num_usable))]
    rows += [("patients", str(len({facts.patient_id for facts in report.facts})))]
    groups = Counter((f.kind, f.split or "not declared", f.mask_labels or "none") for f in report.facts)
    table = Table(
        header=("kind", "split", "mask", "cases read"),
        rows=tuple((*group, str(count)) for group, count in sorted(groups.items())),
    )
    return [Facts(rows=tuple(rows)), table]


def _problems(report: VerifyReport) -> list[Block]:
    if not report.problems:
        return [Prose(text="Nothing.")]
    blocks: list[Block] = []
    for code, count in report.counts.items():
        same = [problem for problem in report.problems if problem.code == code]
        blocks.append(
            Table(
                caption=f"{code}: {count}. {same[0].message} {same[0].remedy}",
                header=("file", "field", "value"),
                rows=tuple((problem.file, problem.field, problem.value) for problem in same[:SHOWN_PER_CODE]),
            )
        )
        if count > SHOWN_PER_CODE:
            blocks.append(Prose(text=f"... and {count - SHOWN_PER_CODE} more; --json lists all of them.", soft=True))
    return blocks


def _volumes(report: VerifyReport) -> list[Block]:
    volumes = [facts for facts in report.facts if facts.kind == "volume"]
    if not volumes:
        return []
    spacings = np.array([facts.spacing_mm for facts in volumes if facts.spacing_mm is not None])
    series: list[tuple[str, Sequence[int | float]]] = [
        ("slices", [facts.shape[0] for facts in volumes]),
        ("slice spacing, mm", spacings[:, 0].tolist()),
        ("pixel spacing, mm", spacings[:, 2].tolist()),
        ("length, mm", [f.shape[0] * mm for f, mm in zip(volumes, spacings[:, 0].tolist(), strict=True)]),
        ("columns", [facts.shape[2] for facts in volumes]),
        ("aerated lung, ml", [facts.lung_ml for facts in volumes]),
        *_levels(volumes, "HU"),
        ("air below -500 HU, share", [facts.air_share for facts in volumes]),
        ("body above -300 HU, share", [facts.body_share for facts in volumes]),
        ("words of the text", [facts.num_words for facts in volumes]),
    ]
    return [_histograms(series, "volumes")]


def _slices(report: VerifyReport) -> list[Block]:
    slices = [facts for facts in report.facts if facts.kind == "slice"]
    if not slices:
        return []
    series: list[tuple[str, Sequence[int | float]]] = [
        ("columns", [facts.shape[2] for facts in slices]),
        ("black, share", [facts.air_share for facts in slices]),
        ("words of the text", [facts.num_words for facts in slices]),
        *_levels(slices, "grey"),
    ]
    if lesions := [facts.coverage[0] for facts in slices if facts.coverage]:
        series.append(("lesion, share of the slice", lesions))
    return [_histograms(series, "slices")]


def _levels(cases: Sequence[CaseFacts], unit: str) -> list[tuple[str, list[float]]]:
    """The percentiles of HU or grey values, each as a series."""
    return [(f"{unit}, percentile {p}", [f.percentiles[i] for f in cases]) for i, p in enumerate(PERCENTILES)]


def _histograms(series: Sequence[tuple[str, Sequence[int | float]]], what: str) -> Picture:
    return Picture(data_uri=histograms(series), alt=f"Histograms over the {what}.", caption=f"Number of {what}.")


def _regions(report: VerifyReport) -> list[Block]:
    """Cases that mention each region, and what the masks hold of it."""
    if not report.facts:
        return []
    names = load_region_table().names
    mentions = Counter(region for facts in report.facts for region in facts.mentions)
    counts = [mentions[number] for number in range(1, len(names) + 1)]
    blocks: list[Block] = [_bars(names, counts, "cases whose texts mention the region")]
    masks = np.array([f.coverage for f in report.facts if f.kind == "volume" and f.coverage])
    if len(masks):
        blocks.append(_bars(names, (masks > 0).sum(axis=0).tolist(), f"masks that hold the region, of {len(masks)}"))
        held = np.where(masks > 0, masks, np.nan)
        shares = [float(np.nanmedian(column)) if (column > 0).any() else 0.0 for column in held.T]
        label = "share of the scan that the region takes, %, median"
        blocks.append(_bars(names, [100 * share for share in shares], label))
    return blocks


def _labels(report: VerifyReport) -> list[Block]:
    labels = report.labels
    if not labels.num_labelled:
        return []
    names = tuple(labels.positives)
    note = f"{labels.num_labelled} volumes have a row; {labels.num_strangers} rows speak of volumes that are not here."
    return [_bars(names, [labels.positives[n] for n in names], "volumes with the abnormality"), Prose(text=note)]


def _bars(names: Sequence[str], values: Sequence[int | float], label: str) -> Picture:
    return Picture(data_uri=bars(names, values, label=label), alt=f"Bars: {label}.")


def _odd_cases(report: VerifyReport) -> list[Block]:
    if not report.odd:
        return []
    note = (
        f"Cases with a robust z-score of {ODD_FROM} or more in something. An odd case need not be wrong; look at it. "
        "Windows: lung above, soft tissue below; outlined: the lobes or, where the mask has none, all that it marks."
    )
    return [Prose(text=note, soft=True), Gallery(cards=tuple(_card(case, odd) for case, odd in report.odd))]


def _card(case: Case, odd: Odd) -> Card:
    loaded, mask = load_case(case)
    windows = [WINDOW_PRESETS["lung"], WINDOW_PRESETS["soft_tissue"]]
    if isinstance(loaded, SliceStack):
        lesion = None if loaded.lesion is None else np.repeat(loaded.lesion[None], len(loaded.grey), axis=0)
        picture = windows_picture(loaded.grey, lesion, (1.0, 1.0, 1.0), windows_hu=windows[:1])
    else:
        steps = [max(1, size // PICTURE_STEP) for size in loaded.voxels_hu.shape]
        every = tuple(slice(None, None, step) for step in steps)
        z, y, x = (mm * step for mm, step in zip(loaded.spacing_mm, steps, strict=True))
        labels = None if mask is None else _outlined(mask.labels[every])
        picture = windows_picture(loaded.voxels_hu[every], labels, (z, y, x), windows_hu=windows)
    shape = " x ".join(map(str, odd.facts.shape))
    return Card(
        title=odd.facts.case_id,
        facts=(f"{odd.facts.kind}, {shape} (z, y, x)",),
        pictures=(Picture(data_uri=picture, alt=f"Sections of {odd.facts.case_id}."),),
        texts=(("Why it is odd", "\n".join(odd.reasons)),),
    )


def _outlined(labels: UInt8[np.ndarray, "z y x"]) -> UInt8[np.ndarray, "z y x"]:
    """The lobes alone: the border of all regions together is only that of the body."""
    lobes = np.isin(labels, [region.id for region in load_region_table().regions if region.lobe is not None])
    return lobes.astype(np.uint8) if lobes.any() else labels
