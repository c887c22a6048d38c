"""What a cohort was written with, kept in its folder so that more can be added later."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from vlm3d_ct.errors import ConfigError
from vlm3d_ct.phantom.acquisition import Header, Size
from vlm3d_ct.volumes.atomic import write_atomically

GENERATION = 3
"""To be raised with every change of what is drawn from the same seed."""
FILE_NAME = "phantom.json"
Hard = Literal["none", "scans", "words", "both"]
"""What is drawn from the ranges that training never uses: acquisition, wording, or both."""
PATIENTS_PER_SEED = 1_000_000
FIRST_SLICE_PATIENT = 500_000
"""Of a seed's numbers those up to this one are volumes, those above it slices."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all cases of a cohort share.

    Attributes:
        size: of the volumes.
        seed: of the cohort; cohorts of different seeds have different patients.
        hard: what is drawn from the ranges that training never uses.
        headers: of the volumes.
        rough_masks: whether the region masks have faults.
        generation: of the program that draws them.
    """

    size: Size = "small"
    seed: int = 0
    hard: Hard = "none"
    headers: Header = "true"
    rough_masks: bool = False
    generation: int = GENERATION

    @property
    def hard_scans(self) -> bool:
        """Whether the acquisition, and with it the contrast medium, is one of no training set."""
        return self.hard in ("scans", "both")

    @property
    def hard_words(self) -> bool:
        """Whether the wording is one of no training set."""
        return self.hard in ("words", "both")

    def volume_number(self, index: int) -> int:
        """The patient's number of volume ``index``, counted from 1."""
        return self.seed * PATIENTS_PER_SEED + index

    def slice_number(self, index: int) -> int:
        """The patient's number of slice case ``index``, counted from 1."""
        return self.seed * PATIENTS_PER_SEED + FIRST_SLICE_PATIENT + index


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many volumes and slice cases a folder holds."""

    patients: int = 0
    slices: int = 0


def write_settings(directory: Path, settings: Settings, counts: Counts) -> None:
    """Write them to the folder's ``phantom.json``."""
    content = json.dumps({**asdict(settings), **asdict(counts)}, indent=1) + "\n"
    write_atomically(directory / FILE_NAME, [content.encode()])


def counts_of(directory: Path, settings: Settings) -> Counts:
    """How many cases a cohort of these settings holds that is to be added to.

    Raises:
        ConfigError: the folder holds no cohort, or one of other settings.
    """
    path = directory / FILE_NAME
    try:
        found = json.loads(path.read_text("utf-8"))
        counts = Counts(patients=int(found["patients"]), slices=int(found["slices"]))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: --append adds to a folder that this command has written.") from None
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} is damaged: write the cohort again, into a new folder.") from None
    wanted = asdict(settings)
    for field in fields(Settings):
        if found.get(field.name) != wanted[field.name]:
            raise ConfigError(
                f"{path}: {field.name} is {found.get(field.name)}, not {wanted[field.name]}: "
                "--append goes on with the settings that the cohort was begun with."
            )
    return counts
