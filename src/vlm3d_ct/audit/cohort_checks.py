"""Faults that only the cases together show: the same scan twice, a patient on both sides of the split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from vlm3d_ct.audit.facts import CaseFacts
from vlm3d_ct.data.case import Case
from vlm3d_ct.errors import Problem
from vlm3d_ct.volumes.faults import problem


def check_copies(read: Sequence[tuple[Path, CaseFacts]]) -> Iterator[Problem]:
    """Scans whose voxels are those of another case; ``read`` names the file of each."""
    first: dict[bytes, tuple[Path, CaseFacts]] = {}
    for path, facts in sorted(read, key=lambda pair: str(pair[0])):
        known_path, known = first.setdefault(facts.digest, (path, facts))
        if known is facts:
            continue
        whose = "of the same patient" if known.patient_id == facts.patient_id else "under another patient's name"
        message = f"The voxels are those of {known_path.name}, {whose}."
        remedy = "Keep one of them; a scan under two patients may come to lie on both sides of the split."
        yield problem("duplicate-scan", path, "voxels", f"copy of {known.case_id}", message, remedy)


def check_splits(cases: Sequence[Case]) -> Iterator[Problem]:
    """Patients that the folder declares for both splits."""
    sides: dict[str, dict[str, Case]] = defaultdict(dict)
    for case in cases:
        if case.split is not None:
            sides[case.patient_id].setdefault(case.split, case)
    for patient, found in sides.items():
        if len(found) > 1:
            message = f"The patient is in both splits; the other file is {found['train'].image_paths[0]}."
            remedy = "Move all scans of the patient to one split."
            yield problem("split-overlap", found["validation"].image_paths[0], "patient", patient, message, remedy)
