"""Faults to seed into a good data folder, as a table: what is damaged, and which problem must be reported where.

A folder holds ``ct_rate`` and ``omniabnorm`` in the plan's layout, each case's text in a file of its own.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass

import numpy as np
from seeded_damage import (
    Damage,
    add_record,
    append,
    as_float,
    bomb,
    copy,
    copy_other,
    default_spacing,
    flip_bit,
    grey,
    label,
    lungs_on_the_wall,
    neighbour,
    new,
    patch,
    repeat_slice,
    rewrite,
    rows,
    scaled,
    set,
    shuffled,
    size,
    slice_field,
    stretch_mask,
    swapped_sides,
    without_lung,
)


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
    Fault("flipped bit", lambda s: flip_bit(s.volume), "damaged-gzip", V, "gzip stream"),
    Fault("flipped bit in the mask", lambda s: flip_bit(s.mask, -6), "damaged-gzip", M, "gzip stream"),
    Fault("trailing bytes", lambda s: s.volume.write_bytes(s.volume.read_bytes() + b"x"), "trailing-bytes", V, ""),
    Fault(
        "bad checksum",
        lambda s: s.volume.write_bytes(s.volume.read_bytes()[:-8] + bytes(4) + s.volume.read_bytes()[-4:]),
        "damaged-gzip",
        V,
        "gzip stream",
    ),
    Fault("no NIfTI", lambda s: s.volume.write_bytes(gzip.compress(bytes(1000))), "not-nifti", V, "header"),
    Fault("four axes", lambda s: patch(s.volume, 40, [4, 96, 96, 16, 2], "<i2"), "not-3d", V, "dim"),
    Fault("two axes", lambda s: patch(s.volume, 40, [2, 96, 3072, 1], "<i2"), "not-3d", V, "dim"),
    Fault("wrong length", lambda s: patch(s.volume, 42, [96, 96, 33], "<i2"), "length", V, ""),
    Fault("lies to be huge", lambda s: patch(s.volume, 42, [30000] * 3, "<i2"), "gzip-bomb", V, "dim"),
    Fault("complex voxels", lambda s: patch(s.volume, 70, [32, 64], "<i2"), "voxel-type", V, "datatype"),
    Fault("NaN spacing", lambda s: patch(s.volume, 80, np.nan, "<f4"), "spacing", V, "pixdim"),
    Fault("zero spacing", lambda s: patch(s.volume, 88, 0, "<f4"), "spacing", V, "pixdim"),
    Fault("giant spacing", lambda s: patch(s.volume, 88, 700, "<f4"), "spacing", V, "pixdim"),
    Fault(
        "NaN affine",
        lambda s: [patch(s.volume, 280, np.nan, "<f4"), patch(s.volume, 252, 0, "<i2")],
        "affine",
        V,
        "affine",
    ),
    Fault("no orientation", lambda s: patch(s.volume, 252, [0, 0], "<i2"), "no-orientation", V, "sform_code"),
)
VOXEL_FAULTS = (
    Fault("NaN voxel", as_float(lambda a: a.__setitem__(5, np.nan)), "not-finite", V, "voxels"),
    Fault("infinite voxel", as_float(lambda a: a.__setitem__(7, np.inf)), "not-finite", V, "voxels"),
    Fault("zeros", as_float(lambda a: a.fill(0)), "constant", V, "voxels"),
    Fault("stored values", as_float(lambda a: np.add(np.maximum(a, -1024), 1024, out=a)), "not-hu", V, "voxels"),
    Fault("all air", as_float(lambda a: np.subtract(a, 8192, out=a)), "not-hu", V, "voxels"),
    Fault("stored values with padding", rewrite(scaled(1024, -2000)), "not-hu", V, "voxels"),
    Fault("rescaled twice, with metal", rewrite(scaled(-1024, 300)), "not-hu", V, "voxels"),
    Fault("another intercept", rewrite(scaled(600, -1000)), "not-hu", V, "voxels"),
    Fault("no lung", without_lung, "no-lung", V, "voxels"),
    Fault("three slices", rewrite(lambda a: a[15:18], lambda a: a[15:18]), "short-scan", V, "extent"),
    Fault("spacing of an empty header", default_spacing, "spacing-default", V, "spacing"),
    Fault("blank slice", rewrite(set(10, -1024)), "blank-slices", V, "slices 10"),
    Fault("slice there twice", rewrite(repeat_slice), "repeated-slices", V, "slices 10"),
    Fault("slices out of order", rewrite(shuffled, shuffled), "slice-order", V, "slices"),
    Fault("scan of another patient", copy_other, "duplicate-scan", V, "voxels", usable=True),
)
MASK_FAULTS = (
    Fault("mask of another shape", lambda s: patch(s.mask, 42, [96, 32, 96], "<i2"), "mask-shape", M, "dim"),
    Fault("mask of another grid", lambda s: patch(s.mask, 280 + 12, 9000, "<f4"), "mask-grid", M, "first voxel"),
    Fault("mask of another spacing", stretch_mask, "mask-grid", M, "spacing"),
    Fault("label 21", rewrite(mask=label(21)), "label-range", M, "voxels"),
    Fault("label -1", rewrite(mask=label(-1, "int16")), "label-range", M, "voxels"),
    Fault("label 1.5", rewrite(mask=label(1.5, "float32")), "label-fraction", M, "voxels"),
    Fault("empty mask", rewrite(mask=np.zeros_like), "mask-empty", M, "voxels"),
    Fault("mask without background", rewrite(mask=lambda a: np.where(a == 0, 17, a)), "mask-full", M, "voxels"),
    Fault("mask upside down", rewrite(mask=lambda a: a[::-1]), "mask-flipped", M, "voxels"),
    Fault("mask turned around", rewrite(mask=lambda a: a[::-1, ::-1]), "mask-flipped", M, "voxels"),
    Fault("mask with sides swapped", rewrite(mask=swapped_sides), "mask-sides", M, "right lung"),
    Fault("mask mirrored", rewrite(mask=lambda a: a[:, :, ::-1]), "mask-sides", M, "right lung"),
    Fault("mask with other ids", rewrite(mask=lungs_on_the_wall), "mask-mismatch", M, "voxels"),
)
TEXT_FAULTS = (
    Fault("empty answer", add_record(question="", answer="  "), "empty-answer", T, "[1] answer", usable=True),
    Fault("no question", add_record(answer="Clear."), "record-fields", T, "[1] question", usable=True),
    Fault("answer is a number", add_record(question="", answer=7), "record-fields", T, "[1] answer", usable=True),
    Fault("half a character", add_record(question="", answer="a\ud800"), "record-fields", T, "[1] answer", usable=True),
    Fault("no answer", add_record(conversations=[]), "empty-answer", T, "[1] conversations", usable=True),
    Fault(
        "name that climbs",
        add_record(volumename="../../{case}", answer="a", question=""),
        "path-escapes",
        T,
        "[1]",
        usable=True,
    ),
    Fault(
        "text without volume",
        add_record(volumename="absent", answer="a b c", question=""),
        "text-without-volume",
        T,
        "[1]",
        usable=True,
    ),
    Fault("record is no object", append(lambda s: s.text, lambda _: "text"), "record-type", T, "[1]", usable=True),
    Fault("text without words", add_record(question="", answer="-.-"), "empty-answer", V, "text 2"),
    Fault("lost characters", add_record(question="", answer="Gro\ufffdes Herz"), "text-encoding", V, "text 2"),
    Fault("text twice", append(lambda s: s.text, lambda records: records[0]), "duplicate-text", V, "texts"),
    Fault("volume without text", lambda s: s.text.unlink(), "volume-without-text", V, "text"),
    Fault(
        "unfinished JSON",
        new("cot/unfinished.json", b'[{"volumename": ', newest=True),
        "json-unfinished",
        "cot/unfinished.json",
        "content",
        usable=True,
    ),
    Fault(
        "text not in UTF-8",
        new("cot/latin.json", '["ä"]'.encode("latin-1")),
        "encoding",
        "cot/latin.json",
        "encoding",
        usable=True,
    ),
    Fault("another format", new("volumes/scan.mha", b"x"), "format", "volumes/scan.mha", "name", usable=True),
    Fault(
        "name with a space",
        copy(lambda s: s.volume, "volumes/a b.nii.gz"),
        "case-id",
        "volumes/a b.nii.gz",
        "name",
        usable=True,
    ),
    Fault(
        "same name twice",
        copy(lambda s: s.volume, "volumes/zz/{case}.nii.gz"),
        "duplicate",
        "volumes/zz/{case}.nii.gz",
        "name",
        usable=True,
    ),
    Fault(
        "mask without volume",
        copy(lambda s: s.mask, "masks/stray.nii.gz"),
        "mask-without-volume",
        "masks/stray.nii.gz",
        "name",
        usable=True,
    ),
)
LABEL_FAULTS = (
    Fault("label 2", rows(lambda rows, n: rows[n].__setitem__(3, "2")), "label-value", L, "row", usable=True),
    Fault("label in words", rows(lambda rows, n: rows[n].__setitem__(9, "yes")), "label-value", L, "row", usable=True),
    Fault(
        "row without volume",
        rows(lambda rows, n: rows.append(["absent", *rows[n][1:]])),
        "label-without-volume",
        L,
        "row",
        usable=True,
    ),
    Fault("row twice", rows(lambda rows, n: rows.append(rows[n])), "label-duplicate", L, "row", usable=True),
    Fault(
        "column misspelt",
        rows(lambda rows, n: rows[0].__setitem__(18, "Interlobular thickening")),
        "label-columns",
        L,
        "columns",
        usable=True,
    ),
    Fault("row too short", rows(lambda rows, n: rows[n].pop()), "table", L, "line", usable=True, alone=True),
)
SLICE_FAULTS = (
    Fault("no image", lambda s: (s.image / "0.jpg").write_bytes(b"no image"), "not-an-image", I, "file", True),
    Fault(
        "image cut",
        lambda s: neighbour(s).write_bytes(neighbour(s).read_bytes()[:900]),
        "damaged-image",
        N,
        "file",
        True,
    ),
    Fault("image bomb", lambda s: bomb(neighbour(s)), "image-bomb", N, "size", True),
    Fault("uniform image", lambda s: grey(neighbour(s), np.full(size(neighbour(s)), 7)), "constant", N, "pixels", True),
    Fault("neighbour of another size", lambda s: grey(neighbour(s), np.eye(9) * 255), "slice-shape", N, "size", True),
    Fault(
        "neighbour is a copy",
        lambda s: neighbour(s).write_bytes((s.image / "0.jpg").read_bytes()),
        "repeated-slices",
        N,
        "pixels",
        True,
    ),
    Fault("lesion mask of another size", lambda s: grey(s.lesion, np.eye(9) * 255), "mask-shape", S, "size", True),
    Fault("no lesion", lambda s: grey(s.lesion, np.zeros(size(s.lesion))), "mask-empty", S, "pixels", True),
    Fault(
        "lesion mask inverted", lambda s: grey(s.lesion, np.full(size(s.lesion), 255)), "mask-full", S, "pixels", True
    ),
    Fault(
        "image path that climbs", slice_field("image_path", "../../x.jpg"), "path-escapes", T, "[0] image_path", True
    ),
    Fault("absolute mask path", slice_field("mask_path", "/etc/x.jpg"), "path-escapes", T, "[0] mask_path", True),
    Fault("missing image", slice_field("image_path", "images/none/0.jpg"), "missing-slice", T, "[0] image_path", True),
    Fault("missing mask", slice_field("mask_path", "masks/none.jpg"), "missing-mask", T, "[0] mask_path", True),
    Fault("no reasoning", slice_field("cot_reasoning", []), "empty-answer", T, "[0] cot_reasoning", True),
)
FAULTS = (*FILE_FAULTS, *VOXEL_FAULTS, *MASK_FAULTS, *TEXT_FAULTS, *LABEL_FAULTS, *SLICE_FAULTS)
