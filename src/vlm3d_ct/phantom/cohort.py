"""Writes a cohort of phantom patients in the plan's file formats: volumes with masks and reports, and slices."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from vlm3d_ct.errors import ConfigError
from vlm3d_ct.log import progress
from vlm3d_ct.phantom.findings.finding import Finding
from vlm3d_ct.phantom.grid import Grid
from vlm3d_ct.phantom.scan import draw_subject, grid_over, render, voxel_of
from vlm3d_ct.phantom.slices import SliceRecord, write_slice
from vlm3d_ct.phantom.wording import question, report
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.text.findings import ABNORMALITIES
from vlm3d_ct.volumes.atomic import write_atomically
from vlm3d_ct.volumes.nifti import write_nifti

T = TypeVar("T")
Size = Literal["small", "full"]
SMALL_SHAPE = (32, 96, 96)
FULL_IN_PLANE = 512
FULL_SLICE_MM = (1.05, 1.45)
SMALLEST_LESION_MM: dict[Size, float] = {"small": 18.0, "full": 6.0}
"""The small grid's voxels are 4 x 4 x 10 mm: what is smaller is lost in partial volume."""
SLICES_PER_FILE = 200


@dataclass(frozen=True, kw_only=True)
class VolumeRecord:
    """What is written about one volume besides its voxels."""

    name: str
    question: str
    answer: str
    labels: tuple[int, ...]
    truth: dict[str, Any]


def write_cohort(
    directory: Path,
    *,
    patients: int,
    slices: int = 0,
    size: Size = "small",
    seed: int = 0,
    workers: int | None = None,
) -> None:
    """Write ``patients`` volumes to ``directory``/ct_rate and ``slices`` slices to ``directory``/omniabnorm.

    The same seed gives the same bytes with any number of workers; a patient depends on the seed and its number only.

    Args:
        directory: new or empty.
        patients: number of volumes, each of its own patient.
        slices: number of 2D cases, of other patients.
        size: ``small`` 32x96x96 voxels, ``full`` 512x512 in plane with 200 to 300 slices.
        seed: of the cohort.
        workers: processes; the number of cores if None.

    Raises:
        ConfigError: the directory is not empty, or a number is out of range.
    """
    _check(directory, patients, slices, workers)
    processes = workers if workers is not None else os.cpu_count() or 1
    if patients:
        volumes = directory / "ct_rate"
        for name in ("volumes", "masks", "cot"):
            (volumes / name).mkdir(parents=True)
        work = partial(write_volume, volumes, seed, size)
        records = list(_map(work, range(1, patients + 1), "Volumes", processes))
        _write_volume_tables(volumes, records)
    if slices:
        omniabnorm = directory / "omniabnorm"
        for name in ("images", "masks", "cot"):
            (omniabnorm / name).mkdir(parents=True)
        found = list(_map(partial(write_slice, omniabnorm, seed), range(1, slices + 1), "Slices", processes))
        _write_slice_tables(omniabnorm, found)


def write_volume(directory: Path, seed: int, size: Size, index: int) -> VolumeRecord:
    """Draw patient ``index``, write its volume and its mask, and return the rest."""
    subject = draw_subject(seed, index, smallest_mm=SMALLEST_LESION_MM[size])
    rng = random_stream(seed, index, "report")
    shape = SMALL_SHAPE
    if size == "full":
        count = round(subject.patient.view_z_mm / rng.uniform(*FULL_SLICE_MM))
        shape = (count, FULL_IN_PLANE, FULL_IN_PLANE)
    grid = grid_over(subject.patient, shape)
    voxels, labels = render(grid, subject)
    name = f"train_{index}_a_1.nii.gz"
    write_nifti(directory / "volumes" / name, voxels, grid.spacing_mm, np.int16)
    write_nifti(directory / "masks" / name, labels, grid.spacing_mm, np.uint8)
    present = {finding.abnormality for finding in subject.findings}
    return VolumeRecord(
        name=name,
        question=question(rng),
        answer=report(rng, subject.patient, subject.findings),
        labels=tuple(int(abnormality in present) for abnormality in ABNORMALITIES),
        truth={
            "spacing_mm": list(grid.spacing_mm),
            "shape": list(shape),
            "findings": [_truth(grid, finding) for finding in subject.findings],
        },
    )


def _truth(grid: Grid, finding: Finding) -> dict[str, Any]:
    """A finding as ``truth.json`` lists it: its centre as voxel (z, y, x), and in mm from voxel (0, 0, 0)."""
    voxel = voxel_of(grid, finding.centre_mm)
    return {
        "abnormality": finding.abnormality,
        "form": finding.form,
        "side": finding.side,
        "regions": list(finding.regions),
        "size_mm": round(finding.size_mm, 1),
        "severity": finding.severity,
        "centre_voxel": list(voxel),
        "centre_mm": [round(spacing * index, 1) for spacing, index in zip(grid.spacing_mm, voxel, strict=True)],
    }


def _check(directory: Path, patients: int, slices: int, workers: int | None) -> None:
    if patients < 0 or slices < 0 or patients + slices == 0:
        raise ConfigError(f"patients = {patients}, slices = {slices}: give numbers of at least 0, one of them above 0.")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers = {workers}: at least one process is needed.")
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory} is a file: give a new folder.")
    if directory.is_dir() and any(directory.iterdir()):
        raise ConfigError(f"{directory} is not empty: nothing is overwritten; give a new folder or empty this one.")


def _map(work: Callable[[int], T], items: Sequence[int], title: str, workers: int) -> Iterator[T]:
    """The results in the order of the items, with progress; in this process if there is one worker."""
    with progress(title, len(items)) as ticker:
        if workers == 1:
            for item in items:
                yield work(item)
                ticker.advance()
            return
        with ProcessPoolExecutor(min(workers, len(items))) as pool:
            for result in pool.map(work, items):
                yield result
                ticker.advance()


def _write_volume_tables(directory: Path, records: list[VolumeRecord]) -> None:
    cot = [{"volumename": r.name, "question": r.question, "answer": r.answer} for r in records]
    _write_json(directory / "cot" / "cot_0000.json", cot)
    _write_json(directory / "truth.json", {r.name: r.truth for r in records})
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["VolumeName", *ABNORMALITIES])
    writer.writerows([r.name, *r.labels] for r in records)
    write_atomically(directory / "labels.csv", [table.getvalue().encode()])


def _write_slice_tables(directory: Path, records: list[SliceRecord]) -> None:
    for start in range(0, len(records), SLICES_PER_FILE):
        batch = [asdict(record) for record in records[start : start + SLICES_PER_FILE]]
        _write_json(directory / "cot" / f"batch_{start // SLICES_PER_FILE:04d}.json", batch)


def _write_json(path: Path, content: object) -> None:
    write_atomically(path, [(json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()])
