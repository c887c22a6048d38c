"""Small data folders in the plan's layout, written on the spot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from vlm3d_ct.seeding import random_stream
from vlm3d_ct.volumes.nifti import write_nifti

SHAPE = (6, 10, 8)
SPACING_MM = (3.0, 0.8, 0.8)


def chest(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Random HU between air and bone."""
    return random_stream(seed, "chest").integers(-1000, 1000, shape, dtype=np.int16)


def write_volume(folder: Path, stem: str, seed: int = 0, with_mask: bool = True) -> Path:
    """One volume with its mask; returns the volume's path."""
    for name in ("volumes", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    path = folder / "volumes" / f"{stem}.nii.gz"
    write_nifti(path, chest(seed), SPACING_MM, np.int16)
    if with_mask:
        labels = random_stream(seed, "mask").integers(0, 21, SHAPE, dtype=np.uint8)
        write_nifti(folder / "masks" / f"{stem}.nii.gz", labels, SPACING_MM, np.uint8)
    return path


def volume_record(stem: str) -> dict[str, str]:
    """A text record of a volume."""
    return {"volumename": f"{stem}.nii.gz", "question": "What is seen?", "answer": f"Findings of {stem}."}


def write_records(folder: Path, records: object, name: str = "cot_0000.json") -> Path:
    """A text file under ``cot``."""
    path = folder / "cot" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def write_ctrate(folder: Path, patients: int) -> list[str]:
    """A complete folder of volumes; returns their names without ending."""
    stems = [f"train_{number}_a_1" for number in range(1, patients + 1)]
    for number, stem in enumerate(stems):
        write_volume(folder, stem, seed=number)
    write_records(folder, [volume_record(stem) for stem in stems])
    return stems


def write_grey(path: Path, grey: np.ndarray) -> None:
    """A grey image stored as RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey).convert("RGB").save(path, quality=95)


def slice_record(case_id: str) -> dict[str, object]:
    """A text record of a slice: one plain step, one with entities."""
    return {
        "case_id": case_id,
        "image_path": f"images/{case_id}/0.jpg",
        "mask_path": f"masks/{case_id}.jpg",
        "region": "Chest",
        "category": "pulmonary nodule",
        "cot_reasoning": ["A nodule is seen.", {"text": "It lies in the lung.", "entities": ["left lower lobe"]}],
    }


def write_omniabnorm(folder: Path, cases: int, offsets: tuple[int, ...] = (-1, 0, 1)) -> list[str]:
    """A complete folder of slices; neighbour ``k`` is brighter by ``40 * k``. Returns the case ids."""
    ids = [f"{970 + number}_1_0_177" for number in range(cases)]
    ramp = np.linspace(60, 90, 32 * 40).reshape(32, 40)
    for case_id in ids:
        for offset in offsets:
            write_grey(folder / "images" / case_id / f"{offset}.jpg", (ramp + 40 * offset).astype(np.uint8))
        lesion = np.zeros((32, 40), np.uint8)
        lesion[8:16, 8:24] = 255
        write_grey(folder / "masks" / f"{case_id}.jpg", lesion)
    write_records(folder, [slice_record(case_id) for case_id in ids], "batch_0000.json")
    return ids
