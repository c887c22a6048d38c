"""The numbers of an evaluation of regions, from its files, for any weights of its cases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

Rows = Sequence[dict[str, str]]
JUDGED = {"within_correct": "within", "across_correct": "across", "across_preference": "across preference"}
"""Columns of ``region_cases.csv``, and what their means are called."""


class RegionScores:
    """Means over regions and phrases, in which case i counts ``weights[b, i]`` times.

    Args:
        regions: rows of ``region_cases.csv``, at least one.
        phrases: rows of ``phrases.csv``; none where no lesion is known.

    Attributes:
        case_ids: the cases that have a row, in their order.
        patient_ids: their patients.
        num_patients: by number, how many patients it is a mean over.

    Raises:
        ValueError: a number cannot be read.
        KeyError: a column is missing.
    """

    def __init__(self, regions: Rows, phrases: Rows):
        patients = {row["case_id"]: row["patient_id"] for row in (*regions, *phrases)}
        self.case_ids, self.patient_ids = tuple(patients), tuple(patients.values())
        place = {case_id: number for number, case_id in enumerate(self.case_ids)}
        columns: dict[str, tuple[list[int], list[float]]] = {}

        def add(name: str, row: dict[str, str], cell: str) -> None:
            if cell:
                cases, values = columns.setdefault(name, ([], []))
                cases.append(place[row["case_id"]])
                values.append(float(cell))

        for row in regions:
            for column, name in JUDGED.items():
                add(f"{row['masks']}/{name}", row, row[column])
        for row in phrases:
            for column in (column for column in row if column.startswith("heat_")):
                add(f"{row['masks']}/{column}", row, row[column])
        for row in regions:
            for column, name in JUDGED.items():
                add(f"{row['masks']}/{name}/{row['region']}", row, row[column])
        self._columns = {name: (np.array(c, dtype=np.int64), np.array(v)) for name, (c, v) in columns.items()}
        self.num_patients = {name: len({self.patient_ids[case] for case in c}) for name, (c, _) in columns.items()}

    def __call__(self, weights: Float64[np.ndarray, "b n"]) -> dict[str, Float64[np.ndarray, " b"]]:
        """Every mean in each of b samples; NaN where nothing counts."""
        return {name: _mean(weights, cases, values) for name, (cases, values) in self._columns.items()}


def _mean(
    weights: Float64[np.ndarray, "b n"], cases: Int64[np.ndarray, " m"], values: Float64[np.ndarray, " m"]
) -> Float64[np.ndarray, " b"]:
    size = weights.shape[1]
    above, count = np.bincount(cases, values, minlength=size), np.bincount(cases, minlength=size).astype(np.float64)
    total = np.einsum("bn,n->b", weights, count)
    mean: Float64[np.ndarray, " b"] = np.divide(
        np.einsum("bn,n->b", weights, above), total, out=np.full(len(total), np.nan), where=total > 0
    )
    return mean
