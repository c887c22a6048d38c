"""Finding the cases of a whole data set takes time and memory in proportion to it."""

from __future__ import annotations

import csv
import json
import time
import tracemalloc
from pathlib import Path

import pytest
from data_folders import slice_record, volume_record

from vlm3d_ct.data.layout import read_cases

VOLUME_SHARE = 0.684
"""21,907 volumes among 32,024 cases."""
MOST_GROWTH = 2.0
"""Ten times the cases may cost 20 times the time: files and interpreter have a share that does not grow evenly."""


def _write_empty_cases(root: Path, count: int) -> None:
    """Folders in the plan's layout, full texts and tables, empty images."""
    volumes = [f"train_{number}_a_1" for number in range(1, round(count * VOLUME_SHARE) + 1)]
    slices = [f"{number}_1_0_177" for number in range(count - len(volumes))]
    for name in ("ct/volumes", "ct/masks", "ct/cot", "slices/images", "slices/masks", "slices/cot"):
        (root / name).mkdir(parents=True)
    for stem in volumes:
        (root / "ct" / "volumes" / f"{stem}.nii.gz").touch()
        (root / "ct" / "masks" / f"{stem}.nii.gz").touch()
    records = [{**volume_record(stem), "answer": "The lungs are clear. " * 80} for stem in volumes]
    (root / "ct" / "cot" / "cot.json").write_text(json.dumps(records))
    with (root / "ct" / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(stem, "[0.7, 0.7]", "-1024", "1", "1.5") for stem in volumes]
        csv.writer(file).writerows([("VolumeName", "XYSpacing", "RescaleIntercept", "RescaleSlope", "ZSpacing"), *rows])
    for case_id in slices:
        (root / "slices" / "images" / case_id).mkdir()
        for offset in (-1, 0, 1, 2):
            (root / "slices" / "images" / case_id / f"{offset}.jpg").touch()
        (root / "slices" / "masks" / f"{case_id}.jpg").touch()
    for start in range(0, len(slices), 50):
        batch = [slice_record(case_id) for case_id in slices[start : start + 50]]
        (root / "slices" / "cot" / f"batch_{start // 50:04d}.json").write_text(json.dumps(batch))


def _measure(root: Path, count: int) -> tuple[float, float]:
    """Seconds of this process and peak megabytes of indexing ``count`` cases."""
    start = time.process_time()
    index = read_cases(root)
    seconds = time.process_time() - start
    assert (len(index.cases), index.problems) == (count, ())
    del index
    tracemalloc.start()
    read_cases(root)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, peak / 1e6


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_thirty_thousand_cases_cost_ten_times_what_three_thousand_cost(tmp_path: Path) -> None:
    figures = {}
    for count in (3_000, 30_000):
        _write_empty_cases(tmp_path / str(count), count)
        figures[count] = _measure(tmp_path / str(count), count)
        print(f"{count} cases: {figures[count][0]:.2f} s of one core, {figures[count][1]:.0f} MB at most")
    for small, large in zip(*figures.values(), strict=True):
        assert large < 10 * MOST_GROWTH * small
