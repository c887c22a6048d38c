"""Writes a cohort of phantom patients in the plan's file formats: volumes with masks and reports, and slices."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar, get_args

from vlm3d_ct.errors import ConfigError
from vlm3d_ct.log import progress
from vlm3d_ct.phantom.acquisition import Header, Size, draw_acquisition
from vlm3d_ct.phantom.files import write_mask_file, write_volume_file
from vlm3d_ct.phantom.rough_masks import Change, roughen
from vlm3d_ct.phantom.scan import draw_subject, render
from vlm3d_ct.phantom.settings import FIRST_SLICE_PATIENT, Counts, Hard, Settings, counts_of, write_settings
from vlm3d_ct.phantom.slices import write_slice
from vlm3d_ct.phantom.tables import VolumeRecord, add_slices, add_volumes
from vlm3d_ct.phantom.truth import metadata_row, scan_truth
from vlm3d_ct.phantom.wording import write_report
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.text.findings import ABNORMALITIES
from vlm3d_ct.volumes.atomic import remove_stray_files

T = TypeVar("T")
SMALLEST_LESION_MM: dict[Size, float] = {"small": 18.0, "full": 6.0}
"""The small grid's voxels are 4 x 4 x 10 mm: what is smaller is lost in partial volume."""


def write_cohort(
    directory: Path,
    *,
    patients: int,
    slices: int = 0,
    size: Size = "small",
    seed: int = 0,
    hard: Hard = "none",
    headers: Header = "true",
    rough_masks: bool = False,
    append: bool = False,
    workers: int | None = None,
) -> None:
    """Write ``patients`` volumes to ``directory``/ct_rate and ``slices`` slices to ``directory``/omniabnorm.

    The same settings give the same bytes with any number of workers, at once or in instalments; a patient depends on
    the settings and its number only. While a cohort grows, its readers find whole files only.

    Args:
        directory: new or empty; with ``append`` a cohort of the same settings.
        patients: number of volumes to write, each of its own patient.
        slices: number of 2D cases to write, of other patients.
        size: ``small`` 32x96x96 voxels, ``full`` 512x512 in plane with 55 to 420 slices.
        seed: of the cohort; cohorts of different seeds have different patients.
        hard: draw the acquisition, the wording or both from the ranges that training never uses.
        headers: ``true``, or ``blank``: stored values without geometry and a ``metadata.csv``, as in CT-RATE's first
            version.
        rough_masks: give the region masks the faults of automatic ones.
        append: add to what is there.
        workers: processes; the number of cores if None.

    Raises:
        ConfigError: the directory is not empty (or holds no such cohort to add to), or a number is out of range.
    """
    settings = Settings(size=size, seed=seed, hard=hard, headers=headers, rough_masks=rough_masks)
    if hard not in get_args(Hard):
        raise ConfigError(f"hard = {hard!r}: must be one of {', '.join(get_args(Hard))}.")
    _check_numbers(patients, slices, seed, workers)
    processes = workers if workers is not None else os.cpu_count() or 1
    known = counts_of(directory, settings) if append else _begin(directory, settings)
    counts = Counts(patients=known.patients + patients, slices=known.slices + slices)
    if max(counts.patients, counts.slices) >= FIRST_SLICE_PATIENT:
        raise ConfigError(f"A seed has {FIRST_SLICE_PATIENT - 1} patients of each kind: take another seed for more.")
    remove_stray_files(directory)
    if patients:
        volumes = _folders(directory / "ct_rate", "volumes", "masks", "lesions", "cot")
        work = partial(write_volume, volumes, settings)
        new = range(known.patients + 1, counts.patients + 1)
        records = list(_map(work, new, "Volumes", processes))
        os.sync()  # all voxels at once, before anything lists them
        add_volumes(volumes, records, known.patients)
    if slices:
        omniabnorm = _folders(directory / "omniabnorm", "images", "masks", "cot")
        draw = partial(write_slice, omniabnorm, settings)
        numbers = range(settings.slice_number(known.slices + 1), settings.slice_number(counts.slices + 1))
        drawn = list(_map(draw, numbers, "Slices", processes))
        os.sync()
        add_slices(omniabnorm, drawn, known.slices)
    write_settings(directory, settings, counts)


def write_volume(directory: Path, settings: Settings, index: int) -> VolumeRecord:
    """Draw patient ``index``, write its volume, its region mask and its lesion mask, and return the rest."""
    seed, hard = settings.seed, settings.hard_scans
    subject = draw_subject(seed, index, smallest_mm=SMALLEST_LESION_MM[settings.size], hard=hard)
    patient, findings = subject.patient, subject.findings
    acquisition = draw_acquisition(
        random_stream(seed, index, "acquisition"), patient, settings.size, hard=hard, header=settings.headers
    )
    scan = render(acquisition, subject)
    labels, changes = scan.labels, tuple[Change, ...]()
    if settings.rough_masks:
        labels, changes = roughen(labels, acquisition.spacing_mm, random_stream(seed, index, "rough mask"))
    name = f"train_{settings.volume_number(index)}_a_1.nii.gz"
    write_volume_file(directory / "volumes" / name, scan.voxels_hu, acquisition)
    write_mask_file(directory / "masks" / name, labels, acquisition)
    write_mask_file(directory / "lesions" / name, scan.lesions, acquisition)
    written = write_report(random_stream(seed, index, "report"), patient, findings, hard=settings.hard_words)
    present = {finding.abnormality for finding in findings}
    return VolumeRecord(
        name=name,
        question=written.question,
        answer=written.answer,
        labels=tuple(int(abnormality in present) for abnormality in ABNORMALITIES),
        truth=scan_truth(patient, findings, written.sentences, acquisition, scan.lesions, changes),
        metadata=metadata_row(name, patient, acquisition) if settings.headers == "blank" else None,
    )


def _check_numbers(patients: int, slices: int, seed: int, workers: int | None) -> None:
    if patients < 0 or slices < 0 or patients + slices == 0:
        raise ConfigError(f"patients = {patients}, slices = {slices}: give numbers of at least 0, one of them above 0.")
    if seed < 0:
        raise ConfigError(f"seed = {seed}: give a number of at least 0; the patients are numbered by it.")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers = {workers}: at least one process is needed.")


def _begin(directory: Path, settings: Settings) -> Counts:
    """Start a cohort in a new or empty folder."""
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory} is a file: give a new folder.")
    if directory.is_dir() and any(directory.iterdir()):
        raise ConfigError(
            f"{directory} is not empty: nothing is overwritten; give a new folder, empty this one, or add to a cohort "
            "with --append."
        )
    directory.mkdir(parents=True, exist_ok=True)
    write_settings(directory, settings, Counts())
    return Counts()


def _folders(directory: Path, *names: str) -> Path:
    for name in names:
        (directory / name).mkdir(parents=True, exist_ok=True)
    return directory


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
