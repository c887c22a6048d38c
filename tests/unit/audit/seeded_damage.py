"""Ways to damage a case of a data folder, one at a time."""

from __future__ import annotations

import csv
import gzip
import json
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.volumes.nifti import read_mask, read_volume, write_nifti

Damage = Callable[["Site"], object]
Change = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Site:
    """Where a fault is seeded: the folder, the case, and a good case of another patient."""

    folder: Path
    case: str
    other: str

    @property
    def ct(self) -> Path:
        return self.folder / "ct_rate"

    @property
    def volume(self) -> Path:
        return self.ct / "volumes" / f"{self.case}.nii.gz"

    @property
    def mask(self) -> Path:
        return self.ct / "masks" / f"{self.case}.nii.gz"

    @property
    def text(self) -> Path:
        return self.ct / "cot" / f"{self.case}.json"

    @property
    def labels(self) -> Path:
        return self.ct / "labels.csv"

    @property
    def image(self) -> Path:
        return self.folder / "omniabnorm" / "images" / self.case

    @property
    def lesion(self) -> Path:
        return self.folder / "omniabnorm" / "masks" / f"{self.case}.jpg"

    @property
    def slice_text(self) -> Path:
        return self.folder / "omniabnorm" / "cot" / f"{self.case}.json"


def patch(path: Path, offset: int, values: object, dtype: str) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    data = np.atleast_1d(np.asarray(values, dtype)).tobytes()
    content[offset : offset + len(data)] = data
    path.write_bytes(gzip.compress(bytes(content), 1))


def flip_bit(path: Path, place: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 0x10
    path.write_bytes(bytes(content))


def as_float(change: Callable[[np.ndarray], object]) -> Damage:
    """Voxels stored as float32 and changed in place; the header stays."""

    def damage(site: Site) -> None:
        raw = gzip.decompress(site.volume.read_bytes())
        voxels = np.frombuffer(raw, "<i2", offset=352).astype("<f4")
        change(voxels)
        header = bytearray(raw[:352])
        header[70:74] = np.array([16, 32], "<i2").tobytes()
        site.volume.write_bytes(gzip.compress(bytes(header) + voxels.tobytes(), 1))

    return damage


def same(array: np.ndarray) -> np.ndarray:
    return array


def rewrite(volume: Change = same, mask: Change = same, spacing_mm: tuple[float, float, float] | None = None):
    """Volume and mask read, changed in canonical axes, and written on one grid."""

    def damage(site: Site) -> None:
        scan = read_volume(site.volume)
        labels = read_mask(site.mask, like=scan).labels
        voxels, changed = volume(scan.voxels_hu.copy()), mask(labels.copy())
        write_nifti(site.volume, voxels, spacing_mm or scan.spacing_mm, np.int16)
        dtype = changed.dtype if changed.dtype.kind == "f" or changed.min() < 0 else np.uint8
        write_nifti(site.mask, changed, spacing_mm or scan.spacing_mm, dtype)

    return damage


def default_spacing(site: Site) -> None:
    """As of a converter that knew where the scan lies and not how far apart its voxels are."""
    rewrite(enlarge, enlarge, (1.0, 1.0, 1.0))(site)
    for path in (site.volume, site.mask):
        for offset in (268, 280 + 12):  # x of the first voxel: of the qform, of the sform
            patch(path, offset, 100, "<f4")


def set(index: object, value: float) -> Change:
    def change(array: np.ndarray) -> np.ndarray:
        array[index] = value
        return array

    return change


def label(value: float, dtype: str = "uint8") -> Change:
    return lambda labels: set((1, 1, 1), value)(labels.astype(dtype))


def scaled(add: int, corner: int) -> Change:
    """HU moved by ``add``, with one corner voxel that hides it from a look at the extremes."""
    return lambda hu: set((0, 0, 0), corner)(np.clip(hu.astype(np.int32) + add, -8192, 8191))


def shuffled(array: np.ndarray) -> np.ndarray:
    return array[np.random.default_rng(0).permutation(len(array))]


def swapped_sides(labels: np.ndarray) -> np.ndarray:
    return np.asarray(load_region_table().mirror_lookup())[labels]


def lungs_on_the_wall(labels: np.ndarray) -> np.ndarray:
    lobes = (labels >= 1) & (labels <= 5)
    return np.where(labels == 17, 3, np.where(lobes, 17, labels))


def enlarge(array: np.ndarray) -> np.ndarray:
    grown = array.repeat(2, 0).repeat(6, 1).repeat(6, 2)
    if array.dtype == np.int16:
        grown[1::2] += 1  # no slice is its neighbour's copy
    return grown


def without_lung(site: Site) -> None:
    lobes = np.isin(read_mask(site.mask).labels, (*range(1, 7), 7))
    rewrite(lambda hu: np.where(lobes, 40, hu))(site)
    site.mask.unlink()


def repeat_slice(hu: np.ndarray) -> np.ndarray:
    hu[11] = hu[10]
    return hu


def stretch_mask(site: Site) -> None:
    scan = read_volume(site.volume)
    z, y, x = scan.spacing_mm
    write_nifti(site.mask, read_mask(site.mask, like=scan).labels, (1.2 * z, y, x), np.uint8)


def copy_other(site: Site) -> None:
    for path in (site.volume, site.mask):
        path.write_bytes(path.with_name(f"{site.other}.nii.gz").read_bytes())


def add_record(**fields: object) -> Damage:
    """A second record beside the good one; ``{case}`` in texts is filled in."""

    def damage(site: Site) -> None:
        records = json.loads(site.text.read_text())
        filled = {k: v.replace("{case}", site.case) if isinstance(v, str) else v for k, v in fields.items()}
        site.text.write_text(json.dumps([*records, {"volumename": f"{site.case}.nii.gz", **filled}]))

    return damage


def append(path: Callable[[Site], Path], entry: Callable[[list], object]) -> Damage:
    def damage(site: Site) -> None:
        records = json.loads(path(site).read_text())
        path(site).write_text(json.dumps([*records, entry(records)]))

    return damage


def new(name: str, content: bytes, *, newest: bool = False) -> Damage:
    """A new file in ``ct_rate``, on request newer than all others."""

    def damage(site: Site) -> None:
        path = site.ct / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if newest:
            later = path.stat().st_mtime + 3600
            os.utime(path, (later, later))

    return damage


def copy(source: Callable[[Site], Path], name: str) -> Damage:
    def damage(site: Site) -> None:
        path = site.ct / name.format(case=site.case)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source(site).read_bytes())

    return damage


def rows(change: Callable[[list[list[str]], int], object]) -> Damage:
    """The label table, changed; the number is that of the case's row."""

    def damage(site: Site) -> None:
        with site.labels.open(newline="") as file:
            rows = list(csv.reader(file))
        change(rows, next(n for n, row in enumerate(rows) if row[0] == f"{site.case}.nii.gz"))
        with site.labels.open("w", newline="") as file:
            csv.writer(file).writerows(rows)

    return damage


def grey(path: Path, grey: np.ndarray) -> None:
    Image.fromarray(grey.astype(np.uint8)).convert("RGB").save(path, quality=95)


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size[1], image.size[0]


def bomb(path: Path) -> None:
    """A PNG that declares 60,000 x 60,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 9) + b"IDAT" + bytes(13))


def neighbour(site: Site) -> Path:
    return site.image / "1.jpg"


def slice_field(name: str, value: object) -> Damage:
    def damage(site: Site) -> None:
        (record,) = json.loads(site.slice_text.read_text())
        site.slice_text.write_text(json.dumps([record | {name: value}]))

    return damage
