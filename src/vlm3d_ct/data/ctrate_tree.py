"""3D cases in the tree that CT-RATE is published in.

``dataset/train_fixed/train_1/train_1_a/train_1_a_1.nii.gz``, masks under ``ts_seg/ts_total`` or ``masks``, texts under
``cot``, ``radiology_text_reports`` or ``vqa``. The folders ``train`` and ``valid`` (V1) hold stored values with a blank
header, which need their row of ``metadata/*_metadata.csv``; ``train_fixed`` and ``valid_fixed`` (V2) hold HU. A volume
that is there in both is taken from V2.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from vlm3d_ct.data.case import Case, MaskLabels
from vlm3d_ct.data.ctrate import describe_cases, match_cases
from vlm3d_ct.data.found_files import find_json, find_nifti, find_tables
from vlm3d_ct.data.masks import MaskFiles, find_masks
from vlm3d_ct.data.metadata import read_metadata, read_no_chest
from vlm3d_ct.data.names import volume_stem
from vlm3d_ct.data.part import Part
from vlm3d_ct.data.patients import find_patients
from vlm3d_ct.data.records import read_records
from vlm3d_ct.data.texts import collect_texts
from vlm3d_ct.errors import Problem
from vlm3d_ct.volumes.faults import problem

Split = Literal["train", "validation"]
_SPLITS: tuple[tuple[str, Split], ...] = (("train", "train"), ("valid", "validation"))


def find_ctrate_tree(directory: Path) -> tuple[Path, ...]:
    """The folders that hold parts of a published tree: ``dataset`` and the folder itself; none if it is no such tree.

    Volumes may lie in one of the two and tables or texts in the other.
    """
    roots = tuple(root for root in (directory / "dataset", directory) if root.is_dir())
    for root in roots:
        for name, _ in _SPLITS:
            if (root / f"{name}_fixed").is_dir() or any((root / name).glob(f"{name}_[0-9]*")):
                return roots
    return ()


def read_ctrate_tree(roots: Sequence[Path], mask_labels: MaskLabels | None = None) -> Part:
    """The cases of a published tree. A volume's text is its chain of thought, else its report, else its VQA records.

    Args:
        roots: of `find_ctrate_tree`.
        mask_labels: what ids in masks mean; None for TotalSegmentator's under ``ts_seg``, the region table's under
            ``masks``.
    """
    problems: list[Problem] = []
    notes: list[str] = []
    by_split: dict[Split, dict[str, Path]] = {}
    stored_values: set[str] = set()
    for name, split in _SPLITS:
        second = _volumes(roots, f"{name}_fixed", problems)
        first = _volumes(roots, name, problems)
        stored_values |= first.keys() - second.keys()
        by_split[split] = first | second
        notes += [f"{folder} {len(found)}" for folder, found in ((f"{name}_fixed", second), (name, first)) if found]
        if both := len(first.keys() & second.keys()):
            notes.append(f"{both} in both {name} and {name}_fixed: taken from {name}_fixed, which holds HU")
    volumes = {key: path for found in by_split.values() for key, path in found.items()}
    (files, refused), (tables, no_tables), (lists, no_lists) = (
        find_json(*(root / "cot" for root in roots)),
        find_tables(roots, "metadata/*metadata*.csv"),
        find_tables(roots, "metadata/no_chest_*.txt"),
    )
    records, record_problems = read_records(files)
    texts = collect_texts(records, roots, volumes)
    masks, mask_problems = _masks(roots, volumes, mask_labels)
    stored, table_problems = read_metadata(tables)
    excluded, list_problems = read_no_chest(lists)
    problems += record_problems + texts.problems + mask_problems + table_problems + list_problems + refused
    patients, unclear = find_patients(roots, [volume_stem(path.name) for path in volumes.values()])
    problems += unclear + no_tables + no_lists
    # The published masks lie on V2's grids. A blank header has no position by which a flip would be noticed.
    usable = {key: mask for key, mask in masks.items() if key not in stored_values}
    cases: list[Case] = []
    without_text: list[Case] = []
    no_chest: list[Case] = []
    for split, found in by_split.items():
        parts = match_cases(found, usable, texts, stored, excluded, patients, split)
        for kept, more in zip((cases, without_text, no_chest), parts[:3], strict=True):
            kept += more
        problems += parts[3]
    notes += describe_cases(cases, without_text, no_chest, texts)
    if stored_values:
        rows = len(stored_values & stored.keys())
        notes.append(f"{len(stored_values)} of stored values (V1), {rows} of them with a row of metadata")
    left_aside = {
        "masks of V1 volumes left aside: they lie on the grids of V2": len(masks) - len(usable),
        "volumes with a chain of thought are not there": len(texts.reasoning.keys() - volumes.keys()),
    }
    notes += [f"{count} {what}" for what, count in left_aside.items() if count]
    return Part(
        cases=tuple(cases),
        problems=tuple(problems),
        description="published tree: " + "; ".join(notes),
        without_text=tuple(without_text),
        no_chest=tuple(no_chest),
    )


def _volumes(roots: Sequence[Path], name: str, problems: list[Problem]) -> dict[str, Path]:
    volumes: dict[str, Path] = {}
    for root in roots:
        found, more = find_nifti(root / name)
        problems += more
        for key, path in found.items():
            if volumes.setdefault(key, path) is not path:
                message = f"Another file has the same name: {volumes[key]}."
                problems.append(problem("duplicate", path, "name", path.name, message, "Keep one of them."))
    return volumes


def _masks(
    roots: Sequence[Path], volumes: Collection[str], labels: MaskLabels | None
) -> tuple[dict[str, MaskFiles], list[Problem]]:
    """Masks by volume; one's own (``masks``) go before the published ones."""
    masks: dict[str, MaskFiles] = {}
    problems: list[Problem] = []
    kinds: tuple[tuple[str, MaskLabels], ...] = (("masks", "regions"), ("ts_seg/ts_total", "totalsegmentator"))
    for folder, usual in kinds:
        for root in roots:
            found, more = find_masks(root / folder, volumes, labels or usual)
            masks = found | masks
            problems += more
    return masks, problems
