"""Thresholds tuned on validation cases, and their file: never on the cases of the test."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int8

from vlm3d_ct.data.cohort import hash_patient
from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.evaluation.metrics.thresholds import Rule, tune_threshold
from vlm3d_ct.evaluation.prompt_scores import SCORINGS, PromptScores
from vlm3d_ct.evaluation.results import write_text
from vlm3d_ct.evaluation.zero_shot import Thresholds

THRESHOLDS_FILE = "thresholds.json"


@dataclass(frozen=True, kw_only=True)
class TunedThresholds:
    """Thresholds with what they are good for.

    Attributes:
        weights: hash of the checkpoint's weights.
        prompts: hash of the prompts, and what they were held against if not whole volumes.
        rule: how they were chosen, see `metrics.thresholds.tune_threshold`.
        source: the data that they were tuned on, in words.
        patients: hashed patients of that data; none of them may be in a test.
        values: by scoring and class; NaN (null in the file) where the data has one kind of label only.
    """

    weights: str
    prompts: str
    rule: str
    source: str
    patients: tuple[str, ...]
    values: Thresholds

    def save(self, path: Path) -> None:
        """Write as JSON."""
        content = asdict(self)
        content["values"] = {
            scoring: {name: None if math.isnan(value) else value for name, value in of_class.items()}
            for scoring, of_class in self.values.items()
        }
        write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def check(self, weights: str, prompts: str, patient_ids: Sequence[str], file: str) -> None:
        """Refuse thresholds of another checkpoint or of other prompts, and those tuned on patients of the test.

        Raises:
            DataError: they are.
        """
        differing = [
            name
            for name, own, wanted in (("checkpoint", self.weights, weights), ("prompts", self.prompts, prompts))
            if own != wanted
        ]
        if differing:
            message = f"The thresholds were tuned for another {' and other '.join(differing)} (or --against)."
            raise DataError(_problem(file, ", ".join(differing), message, "Tune them again with --validation_dir."))
        shared = {hash_patient(patient) for patient in patient_ids} & set(self.patients)
        if shared:
            message = "The thresholds were tuned on patients of this test."
            remedy = "Tune them on other patients (--validation_dir)."
            raise DataError(_problem(file, f"{len(shared)} patients", message, remedy))


def tune(
    scores: PromptScores,
    labels: Int8[np.ndarray, "n c"],
    patient_ids: Sequence[str],
    *,
    rule: Rule,
    source: str,
    weights: str,
) -> TunedThresholds:
    """Choose a threshold for every class and scoring on validation cases."""
    values: dict[Any, Mapping[str, float]] = {}
    for scoring in SCORINGS:
        probabilities = scores.probabilities(scoring)
        of_class = {}
        for column, name in enumerate(scores.table.classes):
            known = labels[:, column] >= 0
            of_class[name] = tune_threshold(labels[known, column] == 1, probabilities[known, column], rule)
        values[scoring] = of_class
    return TunedThresholds(
        weights=weights,
        prompts=scores.identity,
        rule=rule,
        source=source,
        patients=tuple(sorted({hash_patient(patient) for patient in patient_ids})),
        values=values,
    )


def load_thresholds(path: Path) -> TunedThresholds:
    """Read what `TunedThresholds.save` wrote.

    Raises:
        DataError: it cannot be read or is no such file.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        values = {
            scoring: {
                str(name): math.nan if value is None else float(value)
                for name, value in content["values"][scoring].items()
            }
            for scoring in SCORINGS
        }
        return TunedThresholds(
            **{name: str(content[name]) for name in ("weights", "prompts", "rule", "source")},
            patients=tuple(map(str, content["patients"])),
            values=values,
        )
    except OSError as error:
        fault = error.strerror or type(error).__name__
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fault = f"not a file of thresholds ({type(error).__name__}: {error})"
    remedy = f"Give the {THRESHOLDS_FILE} of an earlier run with --validation_dir."
    raise DataError(_problem(str(path), fault, "The thresholds cannot be read.", remedy))


def _problem(file: str, value: str, message: str, remedy: str) -> Problem:
    return Problem(code="thresholds", file=file, field="--thresholds", value=value, message=message, remedy=remedy)
