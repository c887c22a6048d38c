"""What is said about volumes, each from the best source that speaks of it: reasoning, else report, else questions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vlm3d_ct.data.cot import VolumeText, collect_volume_texts
from vlm3d_ct.data.found_files import find_json, find_tables
from vlm3d_ct.data.names import volume_stem
from vlm3d_ct.data.records import TextRecord, read_records
from vlm3d_ct.data.tables import NAME_COLUMN, read_table, volume_rows
from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.text.report import Report
from vlm3d_ct.text.sentences import join_texts
from vlm3d_ct.volumes.faults import problem

COT, REPORT, VQA = "chain of thought", "report", "VQA"
"""Sources of a text, the best first."""
_PARTS = ("findings_en", "impressions_en")
_SENTENCE = "sentence"
_NOT_GIVEN = {"", "not given", "nan", "none"}


@dataclass
class VolumeTexts:
    """Texts by volume (casefolded, without ending).

    Attributes:
        reports: of the volumes that are there and have a text.
        sources: `COT`, `REPORT` or `VQA` for each of them.
        reasoning: every volume that a chain of thought speaks of, whether it is there or not.
        absent: volumes that are not there and that a table of reports names.
        problems: what is wrong with the files.
    """

    reports: dict[str, tuple[Report, ...]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    reasoning: dict[str, VolumeText] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def add(self, source: str, key: str, reports: Iterable[Report]) -> None:
        """Take the reports of a volume unless a better source has given some."""
        found = tuple(reports)
        if found and key not in self.reports:
            self.reports[key] = found
            self.sources[key] = source


def collect_texts(records: Iterable[TextRecord], roots: Sequence[Path], volumes: Collection[str]) -> VolumeTexts:
    """The texts of the volumes that are there.

    Args:
        records: the chains of thought.
        roots: folders that may hold ``radiology_text_reports/*.csv`` or ``reports.csv``, and ``vqa``, which is read
            only where a volume has neither reasoning nor report: it is the largest file and the poorest text.
        volumes: those that are there.
    """
    texts = VolumeTexts()
    texts.reasoning, texts.problems = collect_volume_texts(records)
    for key, text in texts.reasoning.items():
        if key in volumes:
            texts.add(COT, key, text.reports)
    tables, refused = find_tables(roots, "radiology_text_reports/*.csv", "reports.csv")
    texts.problems += refused
    for path in tables:
        _add_reports(path, texts, volumes)
    if len(texts.reports) < len(volumes):
        files, refused = find_json(*(root / "vqa" for root in roots))
        answers, problems = read_records(files)
        conversations, faulty = collect_volume_texts(answers)
        texts.problems += refused + problems + faulty
        for key, text in conversations.items():
            if key in volumes:
                texts.add(VQA, key, text.reports)
    return texts


def _add_reports(path: Path, texts: VolumeTexts, volumes: Collection[str]) -> None:
    """Add a table of reports (findings and impressions), or of sentences, as RadGenome-ChestCT has them."""
    sentences: dict[str, dict[str, None]] = {}
    try:
        table = read_table(path)
        present, rows = volume_rows(table, (*_PARTS, _SENTENCE))
        if not present:
            message = "The table has none of the columns Findings_EN, Impressions_EN and Sentence."
            shown = ", ".join(table.header[:8])
            texts.problems.append(problem("table", path, "columns", shown, message, "Download the table again."))
            return
        for _, row in rows:
            key = volume_stem(row[NAME_COLUMN]).casefold()
            if key not in volumes:
                texts.absent.add(key)
                continue
            said = sentences.setdefault(key, {})
            said |= {text: None for name in present if (text := _given(row[name]))}
    except DataError as error:
        texts.problems.extend(error.problems)
    for key, said in sentences.items():
        texts.add(REPORT, key, [Report(question="", answer=join_texts([*said]))] if said else [])


def _given(text: str) -> str:
    """A cell's text, empty where it says that there is none."""
    return "" if text.rstrip(".").lower() in _NOT_GIVEN else text
