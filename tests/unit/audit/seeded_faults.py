"""Faults to seed into a good data folder, as a table: what is damaged, and which problem must be reported where.

A folder holds ``ct_rate`` and ``omniabnorm`` in the plan's layout, each case's text in a file of its own.
"""

from __future__ import annotations

import csv
import gzip
import json
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


@dataclass(frozen=True)
class Fault:
    """A row of the table.

    Attributes:
        name: what is wrong.
        damage: makes it so.
        code, file, field: of the problem; ``{case}`` stands for the case, the field's beginning is given.
        of_slice: the case is a slice.
        alone: it hides other faults of its file, so that it is seeded only by itself.
        usable: whether the case it is seeded at can still be used.
    """

    name: str
    damage: Damage
    code: str
    file: str
    field: str
    of_slice: bool = False
    alone: bool = False
    usable: bool = False


def _patch(path: Path, offset: int, values: object, dtype: str) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    data = np.atleast_1d(np.asarray(values, dtype)).tobytes()
    content[offset : offset + len(data)] = data
    path.write_bytes(gzip.compress(bytes(content), 1))


def _flip_bit(path: Path, place: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 0x10
    path.write_bytes(bytes(content))


def _as_float(change: Callable[[np.ndarray], object]) -> Damage:
    """Voxels stored as float32 and changed in place; the header stays."""

    def damage(site: Site) -> None:
        raw = gzip.decompress(site.volume.read_bytes())
        voxels = np.frombuffer(raw, "<i2", offset=352).astype("<f4")
        change(voxels)
        header = bytearray(raw[:352])
        header[70:74] = np.array([16, 32], "<i2").tobytes()
        site.volume.write_bytes(gzip.compress(bytes(header) + voxels.tobytes(), 1))

    return damage


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _rewrite(volume: Change = _same, mask: Change = _same, spacing_mm: tuple[float, float, float] | None = None):
    """Volume and mask read, changed in canonical axes, and written on one grid."""

    def damage(site: Site) -> None:
        scan = read_volume(site.volume)
        labels = read_mask(site.mask, like=scan).labels
        voxels, changed = volume(scan.voxels_hu.copy()), mask(labels.copy())
        write_nifti(site.volume, voxels, spacing_mm or scan.spacing_mm, np.int16)
        dtype = changed.dtype if changed.dtype.kind == "f" or changed.min() < 0 else np.uint8
        write_nifti(site.mask, changed, spacing_mm or scan.spacing_mm, dtype)

    return damage


def _set(index: object, value: float) -> Change:
    def change(array: np.ndarray) -> np.ndarray:
        array[index] = value
        return array

    return change


def _label(value: float, dtype: str = "uint8") -> Change:
    return lambda labels: _set((1, 1, 1), value)(labels.astype(dtype))


def _scaled(add: int, corner: int) -> Change:
    """HU moved by ``add``, with one corner voxel that hides it from a look at the extremes."""
    return lambda hu: _set((0, 0, 0), corner)(np.clip(hu.astype(np.int32) + add, -8192, 8191))


def _shuffled(array: np.ndarray) -> np.ndarray:
    return array[np.random.default_rng(0).permutation(len(array))]


def _swapped_sides(labels: np.ndarray) -> np.ndarray:
    return np.asarray(load_region_table().mirror_lookup())[labels]


def _lungs_on_the_wall(labels: np.ndarray) -> np.ndarray:
    lobes = (labels >= 1) & (labels <= 5)
    return np.where(labels == 17, 3, np.where(lobes, 17, labels))


def _enlarge(array: np.ndarray) -> np.ndarray:
    grown = array.repeat(2, 0).repeat(6, 1).repeat(6, 2)
    if array.dtype == np.int16:
        grown[1::2] += 1  # no slice is its neighbour's copy
    return grown


def _without_lung(site: Site) -> None:
    lobes = np.isin(read_mask(site.mask).labels, (*range(1, 7), 7))
    _rewrite(lambda hu: np.where(lobes, 40, hu))(site)
    site.mask.unlink()


def _repeat_slice(hu: np.ndarray) -> np.ndarray:
    hu[11] = hu[10]
    return hu


def _stretch_mask(site: Site) -> None:
    scan = read_volume(site.volume)
    z, y, x = scan.spacing_mm
    write_nifti(site.mask, read_mask(site.mask, like=scan).labels, (1.2 * z, y, x), np.uint8)


def _copy_other(site: Site) -> None:
    for path in (site.volume, site.mask):
        path.write_bytes(path.with_name(f"{site.other}.nii.gz").read_bytes())


def _add_record(**fields: object) -> Damage:
    """A second record beside the good one; ``{case}`` in texts is filled in."""

    def damage(site: Site) -> None:
        records = json.loads(site.text.read_text())
        filled = {k: v.replace("{case}", site.case) if isinstance(v, str) else v for k, v in fields.items()}
        site.text.write_text(json.dumps([*records, {"volumename": f"{site.case}.nii.gz", **filled}]))

    return damage


def _append(path: Callable[[Site], Path], entry: Callable[[list], object]) -> Damage:
    def damage(site: Site) -> None:
        records = json.loads(path(site).read_text())
        path(site).write_text(json.dumps([*records, entry(records)]))

    return damage


def _new(name: str, content: bytes) -> Damage:
    """A new file in ``ct_rate``."""

    def damage(site: Site) -> None:
        path = site.ct / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return damage


def _copy(source: Callable[[Site], Path], name: str) -> Damage:
    def damage(site: Site) -> None:
        path = site.ct / name.format(case=site.case)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source(site).read_bytes())

    return damage


def _rows(change: Callable[[list[list[str]], int], object]) -> Damage:
    """The label table, changed; the number is that of the case's row."""

    def damage(site: Site) -> None:
        with site.labels.open(newline="") as file:
            rows = list(csv.reader(file))
        change(rows, next(n for n, row in enumerate(rows) if row[0] == f"{site.case}.nii.gz"))
        with site.labels.open("w", newline="") as file:
            csv.writer(file).writerows(rows)

    return damage


def _grey(path: Path, grey: np.ndarray) -> None:
    Image.fromarray(grey.astype(np.uint8)).convert("RGB").save(path, quality=95)


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size[1], image.size[0]


def _bomb(path: Path) -> None:
    """A PNG that declares 60,000 x 60,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 9) + b"IDAT" + bytes(13))


def _neighbour(site: Site) -> Path:
    return site.image / "1.jpg"


def _slice_field(name: str, value: object) -> Damage:
    def damage(site: Site) -> None:
        (record,) = json.loads(site.slice_text.read_text())
        site.slice_text.write_text(json.dumps([record | {name: value}]))

    return damage


V, M, T, L = "volumes/{case}.nii.gz", "masks/{case}.nii.gz", "cot/{case}.json", "labels.csv"
I, N, S = "images/{case}/0.jpg", "images/{case}/1.jpg", "masks/{case}.jpg"  # noqa: E741 - images

FILE_FAULTS = (
    Fault("mask link to nowhere", lambda s: (s.mask.unlink(), s.mask.symlink_to("x")), "missing-file", M, "file"),
    Fault("truncated", lambda s: s.volume.write_bytes(s.volume.read_bytes()[:-400]), "truncated", V, ""),
    Fault(
        "cut within the header", lambda s: s.volume.write_bytes(s.volume.read_bytes()[:30]), "truncated", V, "header"
    ),
    Fault("empty file", lambda s: s.volume.write_bytes(b""), "not-gzip", V, "first bytes"),
    Fault("error page", lambda s: s.volume.write_bytes(b"<html>403</html>"), "not-gzip", V, "first bytes"),
    Fault("flipped bit", lambda s: _flip_bit(s.volume), "damaged-gzip", V, "gzip stream"),
    Fault("flipped bit in the mask", lambda s: _flip_bit(s.mask, -6), "damaged-gzip", M, "gzip stream"),
    Fault("trailing bytes", lambda s: s.volume.write_bytes(s.volume.read_bytes() + b"x"), "trailing-bytes", V, ""),
    Fault(
        "bad checksum",
        lambda s: s.volume.write_bytes(s.volume.read_bytes()[:-8] + bytes(4) + s.volume.read_bytes()[-4:]),
        "damaged-gzip",
        V,
        "gzip stream",
    ),
    Fault("no NIfTI", lambda s: s.volume.write_bytes(gzip.compress(bytes(1000))), "not-nifti", V, "header"),
    Fault("four axes", lambda s: _patch(s.volume, 40, [4, 96, 96, 16, 2], "<i2"), "not-3d", V, "dim"),
    Fault("two axes", lambda s: _patch(s.volume, 40, [2, 96, 3072, 1], "<i2"), "not-3d", V, "dim"),
    Fault("wrong length", lambda s: _patch(s.volume, 42, [96, 96, 33], "<i2"), "length", V, ""),
    Fault("lies to be huge", lambda s: _patch(s.volume, 42, [30000] * 3, "<i2"), "gzip-bomb", V, "dim"),
    Fault("complex voxels", lambda s: _patch(s.volume, 70, [32, 64], "<i2"), "voxel-type", V, "datatype"),
    Fault("NaN spacing", lambda s: _patch(s.volume, 80, np.nan, "<f4"), "spacing", V, "pixdim"),
    Fault("zero spacing", lambda s: _patch(s.volume, 88, 0, "<f4"), "spacing", V, "pixdim"),
    Fault("giant spacing", lambda s: _patch(s.volume, 88, 700, "<f4"), "spacing", V, "pixdim"),
    Fault("NaN affine", lambda s: _patch(s.volume, 280, np.nan, "<f4"), "affine", V, "affine"),
    Fault("no orientation", lambda s: _patch(s.volume, 252, [0, 0], "<i2"), "no-orientation", V, "sform_code"),
)
VOXEL_FAULTS = (
    Fault("NaN voxel", _as_float(lambda a: a.__setitem__(5, np.nan)), "not-finite", V, "voxels"),
    Fault("infinite voxel", _as_float(lambda a: a.__setitem__(7, np.inf)), "not-finite", V, "voxels"),
    Fault("zeros", _as_float(lambda a: a.fill(0)), "constant", V, "voxels"),
    Fault("stored values", _as_float(lambda a: np.add(np.maximum(a, -1024), 1024, out=a)), "not-hu", V, "voxels"),
    Fault("all air", _as_float(lambda a: np.subtract(a, 8192, out=a)), "not-hu", V, "voxels"),
    Fault("stored values with padding", _rewrite(_scaled(1024, -2000)), "not-hu", V, "voxels"),
    Fault("rescaled twice, with metal", _rewrite(_scaled(-1024, 300)), "not-hu", V, "voxels"),
    Fault("another intercept", _rewrite(_scaled(600, -1000)), "not-hu", V, "voxels"),
    Fault("no lung", _without_lung, "no-lung", V, "voxels"),
    Fault("three slices", _rewrite(lambda a: a[15:18], lambda a: a[15:18]), "short-scan", V, "extent"),
    Fault("spacing of an empty header", _rewrite(_enlarge, _enlarge, (1.0, 1.0, 1.0)), "spacing-default", V, "spacing"),
    Fault("blank slice", _rewrite(_set(10, -1024)), "blank-slices", V, "slices 10"),
    Fault("slice there twice", _rewrite(_repeat_slice), "repeated-slices", V, "slices 10"),
    Fault("slices out of order", _rewrite(_shuffled, _shuffled), "slice-order", V, "slices"),
    Fault("scan of another patient", _copy_other, "duplicate-scan", V, "voxels", usable=True),
)
MASK_FAULTS = (
    Fault("mask of another shape", lambda s: _patch(s.mask, 42, [96, 32, 96], "<i2"), "mask-shape", M, "dim"),
    Fault("mask of another grid", lambda s: _patch(s.mask, 280 + 12, 9000, "<f4"), "mask-grid", M, "first voxel"),
    Fault("mask of another spacing", _stretch_mask, "mask-grid", M, "spacing"),
    Fault("label 21", _rewrite(mask=_label(21)), "label-range", M, "voxels"),
    Fault("label -1", _rewrite(mask=_label(-1, "int16")), "label-range", M, "voxels"),
    Fault("label 1.5", _rewrite(mask=_label(1.5, "float32")), "label-fraction", M, "voxels"),
    Fault("empty mask", _rewrite(mask=np.zeros_like), "mask-empty", M, "voxels"),
    Fault("mask without background", _rewrite(mask=lambda a: np.where(a == 0, 17, a)), "mask-full", M, "voxels"),
    Fault("mask upside down", _rewrite(mask=lambda a: a[::-1]), "mask-flipped", M, "voxels"),
    Fault("mask turned around", _rewrite(mask=lambda a: a[::-1, ::-1]), "mask-flipped", M, "voxels"),
    Fault("mask with sides swapped", _rewrite(mask=_swapped_sides), "mask-sides", M, "right lung"),
    Fault("mask mirrored", _rewrite(mask=lambda a: a[:, :, ::-1]), "mask-sides", M, "right lung"),
    Fault("mask with other ids", _rewrite(mask=_lungs_on_the_wall), "mask-mismatch", M, "voxels"),
)
TEXT_FAULTS = (
    Fault("empty answer", _add_record(question="", answer="  "), "empty-answer", T, "[1] answer", usable=True),
    Fault("no question", _add_record(answer="Clear."), "record-fields", T, "[1] question", usable=True),
    Fault("answer is a number", _add_record(question="", answer=7), "record-fields", T, "[1] answer", usable=True),
    Fault(
        "half a character", _add_record(question="", answer="a\ud800"), "record-fields", T, "[1] answer", usable=True
    ),
    Fault("no answer", _add_record(conversations=[]), "empty-answer", T, "[1] conversations", usable=True),
    Fault(
        "name that climbs",
        _add_record(volumename="../../{case}", answer="a", question=""),
        "path-escapes",
        T,
        "[1]",
        usable=True,
    ),
    Fault(
        "text without volume",
        _add_record(volumename="absent", answer="a b c", question=""),
        "text-without-volume",
        T,
        "[1]",
        usable=True,
    ),
    Fault("record is no object", _append(lambda s: s.text, lambda _: "text"), "record-type", T, "[1]", usable=True),
    Fault("text without words", _add_record(question="", answer="-.-"), "empty-answer", V, "text 2"),
    Fault("lost characters", _add_record(question="", answer="Gro\ufffdes Herz"), "text-encoding", V, "text 2"),
    Fault("text twice", _append(lambda s: s.text, lambda records: records[0]), "duplicate-text", V, "texts"),
    Fault("volume without text", lambda s: s.text.unlink(), "volume-without-text", V, "text"),
    Fault(
        "unfinished JSON",
        _new("cot/unfinished.json", b'[{"volumename": '),
        "json",
        "cot/unfinished.json",
        "line 1",
        usable=True,
    ),
    Fault(
        "text not in UTF-8",
        _new("cot/latin.json", '["ä"]'.encode("latin-1")),
        "json",
        "cot/latin.json",
        "encoding",
        usable=True,
    ),
    Fault("another format", _new("volumes/scan.mha", b"x"), "format", "volumes/scan.mha", "name", usable=True),
    Fault(
        "name with a space",
        _copy(lambda s: s.volume, "volumes/a b.nii.gz"),
        "case-id",
        "volumes/a b.nii.gz",
        "name",
        usable=True,
    ),
    Fault(
        "same name twice",
        _copy(lambda s: s.volume, "volumes/zz/{case}.nii.gz"),
        "duplicate",
        "volumes/zz/{case}.nii.gz",
        "name",
        usable=True,
    ),
    Fault(
        "mask without volume",
        _copy(lambda s: s.mask, "masks/stray.nii.gz"),
        "mask-without-volume",
        "masks/stray.nii.gz",
        "name",
        usable=True,
    ),
)
LABEL_FAULTS = (
    Fault("label 2", _rows(lambda rows, n: rows[n].__setitem__(3, "2")), "label-value", L, "row", usable=True),
    Fault("label in words", _rows(lambda rows, n: rows[n].__setitem__(9, "yes")), "label-value", L, "row", usable=True),
    Fault(
        "row without volume",
        _rows(lambda rows, n: rows.append(["absent", *rows[n][1:]])),
        "label-without-volume",
        L,
        "row",
        usable=True,
    ),
    Fault("row twice", _rows(lambda rows, n: rows.append(rows[n])), "label-duplicate", L, "row", usable=True),
    Fault(
        "column misspelt",
        _rows(lambda rows, n: rows[0].__setitem__(18, "Interlobular thickening")),
        "label-columns",
        L,
        "columns",
        usable=True,
    ),
    Fault("row too short", _rows(lambda rows, n: rows[n].pop()), "table", L, "line", usable=True, alone=True),
)
SLICE_FAULTS = (
    Fault("no image", lambda s: (s.image / "0.jpg").write_bytes(b"no image"), "not-an-image", I, "file", True),
    Fault(
        "image cut",
        lambda s: _neighbour(s).write_bytes(_neighbour(s).read_bytes()[:900]),
        "damaged-image",
        N,
        "file",
        True,
    ),
    Fault("image bomb", lambda s: _bomb(_neighbour(s)), "image-bomb", N, "size", True),
    Fault(
        "uniform image", lambda s: _grey(_neighbour(s), np.full(_size(_neighbour(s)), 7)), "constant", N, "pixels", True
    ),
    Fault("neighbour of another size", lambda s: _grey(_neighbour(s), np.eye(9) * 255), "slice-shape", N, "size", True),
    Fault(
        "neighbour is a copy",
        lambda s: _neighbour(s).write_bytes((s.image / "0.jpg").read_bytes()),
        "repeated-slices",
        N,
        "pixels",
        True,
    ),
    Fault("lesion mask of another size", lambda s: _grey(s.lesion, np.eye(9) * 255), "mask-shape", S, "size", True),
    Fault("no lesion", lambda s: _grey(s.lesion, np.zeros(_size(s.lesion))), "mask-empty", S, "pixels", True),
    Fault(
        "lesion mask inverted", lambda s: _grey(s.lesion, np.full(_size(s.lesion), 255)), "mask-full", S, "pixels", True
    ),
    Fault(
        "image path that climbs", _slice_field("image_path", "../../x.jpg"), "path-escapes", T, "[0] image_path", True
    ),
    Fault("absolute mask path", _slice_field("mask_path", "/etc/x.jpg"), "path-escapes", T, "[0] mask_path", True),
    Fault("missing image", _slice_field("image_path", "images/none/0.jpg"), "missing-slice", T, "[0] image_path", True),
    Fault("missing mask", _slice_field("mask_path", "masks/none.jpg"), "missing-mask", T, "[0] mask_path", True),
    Fault("no reasoning", _slice_field("cot_reasoning", []), "empty-answer", T, "[0] cot_reasoning", True),
)
FAULTS = (*FILE_FAULTS, *VOXEL_FAULTS, *MASK_FAULTS, *TEXT_FAULTS, *LABEL_FAULTS, *SLICE_FAULTS)
