"""Whose scans volumes are: by a table beside them, by CT-RATE's pattern, or by what their names begin with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from vlm3d_ct.data.names import follows_pattern, volume_patient, volume_stem
from vlm3d_ct.data.tables import NAME_COLUMN, read_table, volume_rows
from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.volumes.faults import problem

PATIENTS_FILE = "patients.csv"
MOST_SCANS_OF_A_PATIENT = 20
"""More scans with one beginning of their names are taken for a word before a number (``case_001``, ``case_002``)."""
FEW_SCANS = 3
"""So many scans may all be of one patient."""
_PATIENT_COLUMN = "patientid"


def read_patients(paths: Iterable[Path]) -> tuple[dict[str, str], list[Problem]]:
    """The rows ``VolumeName, PatientID`` of tables by volume (casefolded, without ending).

    A row without patient, or one that contradicts another, is a problem, and the volume has no row.
    """
    found: dict[str, str] = {}
    problems: list[Problem] = []
    contradicted = set()
    for path in paths:
        try:
            table = read_table(path)
            present, rows = volume_rows(table, (_PATIENT_COLUMN,))
            if not present:
                message, shown = "The table has no column PatientID.", ", ".join(table.header[:8])
                problems.append(problem("table", path, "columns", shown, message, "Add it: an id for each patient."))
                continue
            for line, row in rows:
                key, patient = volume_stem(row[NAME_COLUMN]).casefold(), row[_PATIENT_COLUMN]
                if not patient:
                    message = "The row names no patient."
                    problems.append(table.problem(line, "PatientID", "nothing", message, "Fill it in."))
                elif found.setdefault(key, patient) != patient:
                    message = "Another row gives this volume to another patient."
                    problems.append(table.problem(line, "VolumeName", row[NAME_COLUMN], message, "Keep the right row."))
                    contradicted.add(key)
        except DataError as error:
            problems.extend(error.problems)
    return {key: patient for key, patient in found.items() if key not in contradicted}, problems


def find_patient(stem: str, patients: Mapping[str, str]) -> str:
    """The patient of a volume: that of the table, else what its name says (`volume_patient`)."""
    return patients.get(stem.casefold()) or volume_patient(stem)


def check_names(stems: Iterable[str], patients: Mapping[str, str], folder: Path) -> list[Problem]:
    """A problem where names most probably do not tell patients apart.

    Patients that are taken for one do not leak, but they all land on one side of a split, are left out of every
    evaluation together once one of them was trained on, and have no interval.
    """
    guessed: dict[str, list[str]] = defaultdict(list)
    total = 0
    for stem in stems:
        total += 1
        if stem.casefold() not in patients and not follows_pattern(stem):
            guessed[volume_patient(stem)].append(stem)
    largest = max(guessed.values(), key=len, default=[])
    if len(largest) <= (FEW_SCANS if len(largest) == total else MOST_SCANS_OF_A_PATIENT):
        return []
    shown = f"{len(largest)} of {total} volumes, such as {', '.join(sorted(largest)[:3])}"
    message = f"By their names these are scans of one patient, {volume_patient(largest[0])!r}."
    remedy = (
        f"Put a table {PATIENTS_FILE} with the columns VolumeName and PatientID into the folder, a pseudonym for each "
        "patient."
    )
    return [problem("patients-unclear", folder, "patients", shown, message, remedy)]
