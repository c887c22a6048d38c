"""3D cases in the tree that CT-RATE is published in.

``dataset/train_fixed/train_1/train_1_a/train_1_a_1.nii.gz``, masks under ``ts_seg/ts_total``, texts under ``cot``,
``radiology_text_reports`` or ``vqa``. The folders ``train`` and ``valid`` (without ``_fixed``) hold stored values with
a blank header: neither Hounsfield units nor sides can be read from them, so they are refused.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Literal

from vlm3d_ct.data.case import Case
from vlm3d_ct.data.cot import collect_volume_texts
from vlm3d_ct.data.ctrate import Part, find_nifti, match_cases
from vlm3d_ct.data.names import volume_stem
from vlm3d_ct.data.records import read_records
from vlm3d_ct.errors import Problem
from vlm3d_ct.text.report import Report
from vlm3d_ct.volumes.faults import problem

Split = Literal["train", "validation"]
_SPLITS: tuple[tuple[str, Split], ...] = (("train", "train"), ("valid", "validation"))
_NOT_GIVEN = {"", "not given", "nan", "none"}


def find_ctrate_tree(directory: Path) -> Path | None:
    """The folder that holds ``train_fixed`` and its like, ``directory`` or its ``dataset``; None if there is none."""
    for root in (directory / "dataset", directory):
        for name, _ in _SPLITS:
            if (root / f"{name}_fixed").is_dir() or any((root / name).glob(f"{name}_[0-9]*")):
                return root
    return None


def read_ctrate_tree(root: Path) -> Part:
    """The cases of a published tree. A volume's text is its chain of thought, else its report, else its VQA records."""
    problems: list[Problem] = []
    cases: list[Case] = []
    without_text: list[Case] = []
    no_chest: list[Case] = []
    reports, text_problems = _read_texts(root)
    problems += text_problems
    masks, mask_problems = find_nifti(root / "ts_seg" / "ts_total")
    problems += mask_problems
    excluded = _not_chest(root)
    notes = []
    for name, split in _SPLITS:
        folder = root / f"{name}_fixed"
        if not folder.is_dir():
            if (root / name).is_dir():
                problems.append(_refused(root / name))
            continue
        if (root / name).is_dir():
            notes.append(f"{name}/ (stored values without header) left aside")
        volumes, volume_problems = find_nifti(folder)
        chest = {key: path for key, path in volumes.items() if key not in excluded}
        found, textless, case_problems = match_cases(chest, masks, reports, "totalsegmentator", split)
        problems += volume_problems + case_problems
        cases += found
        without_text += textless
        others = {key: path for key, path in volumes.items() if key in excluded}
        with_text, textless, _ = match_cases(others, masks, reports, "totalsegmentator", split)
        no_chest += [replace(case, shows_chest=False) for case in (*with_text, *textless)]
        notes.append(f"{name}_fixed: {len(volumes)} volumes, {len(found)} with text")
        if len(chest) < len(volumes):
            notes.append(f"{len(volumes) - len(chest)} left out as they show no chest")
    notes.append(f"{sum(bool(case.mask_paths) for case in cases)} with a TotalSegmentator mask")
    return Part(
        cases=tuple(cases),
        problems=tuple(problems),
        description="published tree: " + ", ".join(notes),
        without_text=tuple(without_text),
        no_chest=tuple(no_chest),
    )


def _refused(folder: Path) -> Problem:
    message = "These files hold stored values with a blank header: Hounsfield units, spacing and sides are not in them."
    return problem("v1-volumes", folder, "folder", folder.name, message, f"Download {folder.name}_fixed instead.")


def _read_texts(root: Path) -> tuple[dict[str, list[Report]], list[Problem]]:
    """Reports by volume, each from the best source that speaks of it."""
    reports: dict[str, list[Report]] = {}
    problems = _read_json([root / "cot", root.parent / "cot"], reports)
    problems += _read_reports(root / "radiology_text_reports", reports)
    problems += _read_json([root / "vqa"], reports)
    return reports, problems


def _read_json(folders: list[Path], reports: dict[str, list[Report]]) -> list[Problem]:
    """Add the records of volumes that have no text yet."""
    paths = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".json", ".jsonl")]
    records, problems = read_records(sorted(paths))
    texts, faulty = collect_volume_texts(records)
    for key, text in texts.items():
        reports.setdefault(key, text.reports)
    return problems + faulty


def _read_reports(folder: Path, reports: dict[str, list[Report]]) -> list[Problem]:
    """Add the radiology reports (findings and impressions) of volumes that have no text yet."""
    problems = []
    for path in sorted(folder.glob("*.csv")):
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                for row in csv.DictReader(file):
                    fields = {(name or "").strip().lower(): value for name, value in row.items()}
                    name = fields.get("volumename")
                    if not isinstance(name, str):
                        message, remedy = "The table has no column VolumeName.", "Download the table again."
                        problems.append(problem("table", path, "columns", ", ".join(map(str, row)), message, remedy))
                        break
                    answer = " ".join(
                        filter(None, (_given(fields.get(part)) for part in ("findings_en", "impressions_en")))
                    )
                    if answer:
                        reports.setdefault(volume_stem(name).casefold(), [Report(question="", answer=answer)])
        except (csv.Error, UnicodeDecodeError, OSError) as error:
            message, remedy = "The table cannot be read.", "Download the table again."
            problems.append(problem("table", path, "content", str(error), message, remedy))
    return problems


def _given(text: object) -> str:
    """A cell's text, empty where it says that there is none."""
    stripped = text.strip() if isinstance(text, str) else ""
    return "" if stripped.rstrip(".").lower() in _NOT_GIVEN else stripped


def _not_chest(root: Path) -> set[str]:
    """Volumes that the published lists ``no_chest_*.txt`` name: scans of the head and others."""
    lines = [line for path in (root / "metadata").glob("no_chest_*.txt") for line in path.read_text("utf-8").split()]
    return {volume_stem(line.strip(",'\"")).casefold() for line in lines if line.strip(",'\"")}
