"""Phantom cases as the measurements need them: the scan, what is true of it, and the same patient without findings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal, TypeVar

import numpy as np

from vlm3d_ct.log import progress
from vlm3d_ct.phantom.acquisition import Acquisition, Size, draw_acquisition
from vlm3d_ct.phantom.cohort import SMALLEST_LESION_MM
from vlm3d_ct.phantom.scan import Scan, Subject, draw_subject, render
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.text.findings import ABNORMALITIES

T = TypeVar("T")
GridName = Literal["small", "fine", "full"]
FINE_SHAPE = (96, 208, 208)
"""The findings of the full size on a grid of about 3.2 x 1.8 x 1.8 mm, of which hundreds can be painted."""


@dataclass(frozen=True, kw_only=True)
class DrawnCase:
    """One phantom: who it is, how it is scanned, and the scan, which is painted when it is asked for."""

    subject: Subject
    acquisition: Acquisition

    @cached_property
    def scan(self) -> Scan:
        """What the scanner stores."""
        return render(self.acquisition, self.subject)

    @property
    def labels(self) -> tuple[bool, ...]:
        """Which of the 18 abnormalities are there."""
        present = {finding.abnormality for finding in self.subject.findings}
        return tuple(name in present for name in ABNORMALITIES)


def draw_case(seed: int, index: int, grid: GridName, *, arterial: bool = False) -> DrawnCase:
    """Case ``index`` of a seed as the cohort draws it; ``fine`` is the full size on fewer voxels.

    With ``arterial`` the contrast medium is that of the hard test set, all else that of the training set.
    """
    size: Size = "small" if grid == "small" else "full"
    subject = draw_subject(seed, index, smallest_mm=SMALLEST_LESION_MM[size], hard=arterial)
    acquisition = draw_acquisition(random_stream(seed, index, "acquisition"), subject.patient, size)
    if grid == "fine":
        length = acquisition.view_z_mm
        acquisition = replace(acquisition, shape=FINE_SHAPE, slice_thickness_mm=length / FINE_SHAPE[0])
    return DrawnCase(subject=subject, acquisition=acquisition)


def healthy_scan(case: DrawnCase) -> Scan:
    """The same patient in the same scanner without the findings; the noise is another one."""
    coordinates = (*case.subject.coordinates, "without findings")
    return render(case.acquisition, replace(case.subject, findings=(), coordinates=coordinates))


def map_cases(work: Callable[[int], T], numbers: Sequence[int], title: str) -> list[T]:
    """What ``work`` makes of each number, on all cores, in order."""
    with progress(title, len(numbers)) as ticker, ProcessPoolExecutor(os.cpu_count()) as pool:
        results = []
        for result in pool.map(work, numbers, chunksize=4):
            results.append(result)
            ticker.advance()
    return results


def for_each_case(
    work: Callable[[DrawnCase], T], seed: int, grid: GridName, count: int, title: str, *, arterial: bool = False
) -> list[T]:
    """``work(case)`` of the cases 1 to ``count`` of a seed, see `draw_case`."""
    return map_cases(partial(_on_case, work, seed, grid, arterial), range(1, count + 1), title)


def _on_case(work: Callable[[DrawnCase], T], seed: int, grid: GridName, arterial: bool, index: int) -> T:
    return work(draw_case(seed, index, grid, arterial=arterial))


def labels_of(rows: Iterable[Sequence[bool]]) -> np.ndarray:
    """A table of labels, cases by abnormalities."""
    return np.array([list(row) for row in rows], dtype=bool)
