"""Reading and preparing a scan, against MONAI doing the same, and reading a prepared case, against a plain read.

One core, one process, both sides in turn in one run; medians. MONAI is no dependency: `pip install monai==1.6.1` beside
this package. The scan is synthetic, 512x512x300, written here with noise so that it compresses like one. The floor for
a prepared case is a plain read of a file with its uncompressed voxels and labels, and one copy of them. Files
are in the page cache. The memory of preparing is the peak of a fresh process that prepares and stores a scan of
512x512x600 whose axes all run the other way, so that it has to be turned (Linux only). Writes
benchmarks/results/data_speed_<hardware>_<yyyymm>.md and prints it.
"""

from __future__ import annotations

import argparse
import gzip
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from isal import igzip
from pages import RESULTS, processor_name, result_path

from vlm3d_ct.data.cache import Cache
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.load import load_and_preprocess
from vlm3d_ct.data.prepare import prepare_case
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.volumes.nifti import write_nifti
from vlm3d_ct.volumes.preprocess import Preprocess

SIZE = (64, 512, 512)
SPACING_MM = (1.0, 0.7, 0.7)


def write_scan(folder: Path, num_slices: int, side: int) -> Case:
    """A cylinder of tissue with two lungs, and noise of 20 HU; a mask with a region in each."""
    z, y, x = np.ogrid[:num_slices, :side, :side]
    centred_y, centred_x = (y - side / 2) / side, (x - side / 2) / side
    anatomy = np.full((num_slices, side, side), -1000, np.int16)
    labels = np.zeros((num_slices, side, side), np.uint8)
    anatomy[np.broadcast_to(centred_y**2 / 0.1 + centred_x**2 / 0.18 < 1, anatomy.shape)] = 40
    for region, place in ((1, -0.18), (4, 0.18)):
        lung = np.broadcast_to(centred_y**2 / 0.04 + (centred_x - place) ** 2 / 0.016 < 1, anatomy.shape) & (z > 10)
        anatomy[lung] = -850
        labels[lung] = region
    random = random_stream("data_speed", num_slices)
    for plane in anatomy:
        plane += random.normal(0, 20, plane.shape).astype(np.int16)
    name = f"scan_{num_slices}"
    paths = folder / f"{name}.nii.gz", folder / f"{name}_mask.nii.gz"
    write_nifti(paths[0], anatomy, SPACING_MM, np.int16)
    write_nifti(paths[1], labels, SPACING_MM, np.uint8)
    return Case(
        case_id=name,
        patient_id=name,
        kind="volume",
        image_paths=(paths[0],),
        mask_paths=(paths[1],),
        mask_labels="regions",
        reports=(),
    )


def monai_pipeline(case: Case) -> Callable[[], Any]:
    """The same with MONAI: both files, orientation LPS, area-averaged to the size, labels nearest."""
    try:
        from monai.transforms import Compose, LoadImaged, Orientationd, Resized
    except ImportError:
        sys.exit("MONAI is not installed: pip install monai==1.6.1, then start again.")
    keys = ("volume", "mask")
    pipeline = Compose(
        [
            LoadImaged(keys, reader="NibabelReader", ensure_channel_first=True, image_only=True),
            Orientationd(keys, axcodes="LPS", labels=None),
            Resized(keys, spatial_size=SIZE[::-1], mode=("area", "nearest")),
        ]
    )
    files = {"volume": str(case.image_paths[0]), "mask": str(case.mask_paths[0])}
    return lambda: pipeline(dict(files))


def medians(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each way, taken in turn after one run of each that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def turn_round(path: Path) -> None:
    """Declare that all three axes of a file run the other way: reading it has to reverse them."""
    content = gzip.decompress(path.read_bytes())
    header = nib.Nifti1Header(content[:348], check=False)
    z_mm, y_mm, x_mm = SPACING_MM
    header.set_sform(np.diag([x_mm, y_mm, -z_mm, 1.0]), code="scanner")
    header.set_qform(np.diag([x_mm, y_mm, -z_mm, 1.0]), code="scanner")
    path.write_bytes(igzip.compress(header.binaryblock + content[348:], compresslevel=1))


def peak_gb(case: Case, cache: Path) -> float:
    """Peak resident memory of a fresh process that prepares and stores the case; Python and libraries included."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_prepare_and_measure, (case, cache))


def _prepare_and_measure(case: Case, cache: Path) -> float:
    preprocess = Preprocess(size=SIZE, slice_size=(4, 512, 512))
    prepare_case(case, preprocess=preprocess, cache=Cache(cache, preprocess.fingerprint))
    # not ru_maxrss: a new process inherits the peak of the one that started it
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024 / 1e9


def measure(folder: Path, repeats: int, side: int) -> list[str]:
    """The rows of the table."""
    case = write_scan(folder, 300, side)
    preprocess = {name: Preprocess(size=SIZE, slice_size=(4, 512, 512), precision=name) for name in ("int16", "uint8")}
    caches = {name: Cache(folder / "cache", each.fingerprint) for name, each in preprocess.items()}
    for name, cache in caches.items():
        cache.write(case, load_and_preprocess(case, preprocess[name]))
    prepared = caches["int16"].read(case)
    plain = folder / "plain"
    assert prepared.labels is not None
    plain.write_bytes(prepared.voxels_hu.tobytes() + prepared.labels.tobytes())
    size_mb = {name: cache.path(case.case_id, case.kind).stat().st_size / 1e6 for name, cache in caches.items()}
    raw = medians(
        {"ours": lambda: load_and_preprocess(case, preprocess["int16"]), "monai": monai_pipeline(case)}, repeats
    )
    read = medians(
        {
            "int16": lambda: caches["int16"].read(case),
            "uint8": lambda: caches["uint8"].read(case),
            "plain": lambda: np.frombuffer(plain.read_bytes(), np.uint8).copy(),
        },
        5 * repeats,
    )
    long = write_scan(folder, 600, side)
    for path in (*long.image_paths, *long.mask_paths):
        turn_round(path)
    peak = peak_gb(long, folder / "cache")
    return [
        f"| raw to prepared, ours : MONAI | {raw['ours']:.2f} s : {raw['monai']:.2f} s | "
        f"{raw['monai'] / raw['ours']:.1f} times as fast | 3 |",
        f"| prepared case (int16, {size_mb['int16']:.1f} MB) : MONAI | {1000 * read['int16']:.0f} ms | "
        f"{raw['monai'] / read['int16']:.0f} times as fast | 50 |",
        f"| prepared case (uint8, {size_mb['uint8']:.1f} MB) : MONAI | {1000 * read['uint8']:.0f} ms | "
        f"{raw['monai'] / read['uint8']:.0f} times as fast | |",
        f"| prepared case (int16) : plain read and copy of its {plain.stat().st_size / 1e6:.0f} MB | "
        f"{1000 * read['int16']:.0f} ms : {1000 * read['plain']:.0f} ms | "
        f"{read['int16'] / read['plain']:.1f} times as long | at most 5 |",
        f"| peak memory of preparing 512x512x600 | {peak:.2f} GB | | at most 1.5 |",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", type=int, default=512, help="voxels of a slice's side")
    parsed = parser.parse_args(arguments)
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), parsed.repeats, parsed.side)
    day, hardware = datetime.now(UTC), processor_name()
    page = "\n".join(
        [
            f"# Reading and preparing: {hardware}, {day:%Y-%m-%d}",
            "",
            f"`python benchmarks/data_speed.py`, vlm3d-ct {version('vlm3d-ct')}, MONAI {version('monai')}, torch "
            f"{torch.__version__}, one thread; load before {load:.1f}, after {os.getloadavg()[0]:.1f}.",
            "A synthetic scan of 512x512x300 with a mask; medians of runs in turn, files in the page cache.",
            "",
            "| what | measured | ratio | goal |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )
    path = result_path(RESULTS, "data_speed", hardware, day)
    path.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
