"""Whose scans volumes are: by a table beside them, by CT-RATE's pattern, or by what their names begin with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from vlm3d_ct.data.found_files import find_tables
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


def find_patients(roots: Sequence[Path], stems: Sequence[str]) -> tuple[dict[str, str], list[Problem]]:
    """The patient of each volume by its name: of a table in one of the roots, else what the name itself says.

    Volumes of which neither is to be trusted are problems. Where there is a table they are not in what is returned:
    with some patients of a table and some of names, one patient could have two ids.
    """
    tables, problems = find_tables(roots, PATIENTS_FILE)
    told, faults = read_patients(tables)
    problems += faults
    found: dict[str, str] = {}
    for stem in stems:
        if (patient := told.get(stem.casefold())) is not None:
            found[stem] = patient
        elif not tables or follows_pattern(stem):
            found[stem] = volume_patient(stem)
    if not tables:
        return found, problems + _check_names(stems, roots[-1])
    if unknown := [stem for stem in stems if stem not in found]:
        shown = f"{len(unknown)} of {len(stems)} volumes, such as {', '.join(sorted(unknown)[:3])}"
        message, remedy = "The table says not whose scans these are.", "Add a row for each of them."
        problems.append(problem("patients-unclear", tables[0], "VolumeName", shown, message, remedy))
    return found, problems


def _check_names(stems: Sequence[str], folder: Path) -> list[Problem]:
    """A problem where names most probably do not tell patients apart.

    Patients that are taken for one do not leak, but they all land on one side of a split, are left out of every
    evaluation together once one of them was trained on, and have no interval.
    """
    guessed: dict[str, list[str]] = defaultdict(list)
    total = len(stems)
    for stem in stems:
        if not follows_pattern(stem):
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
