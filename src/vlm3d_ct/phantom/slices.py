"""Slices in the manner of OmniAbnorm: an abnormal axial slice with neighbours, lesion mask and reasoning steps."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int16, UInt8
from PIL import Image

from vlm3d_ct.config.schema import WINDOW_PRESETS
from vlm3d_ct.phantom.findings.catalogue import paint_findings
from vlm3d_ct.phantom.findings.finding import LOBE_NAMES, Finding
from vlm3d_ct.phantom.grid import Field, Grid, Number
from vlm3d_ct.phantom.scan import Subject, add_noise, draw_subject, paint_healthy
from vlm3d_ct.phantom.wording import sentence
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.volumes.atomic import write_atomically

FIRST_PATIENT = 50_000
"""Slices come from patients numbered above this one; volumes from those below."""
RENDERED_PIXELS, WRITTEN_PIXELS = 256, 512
NEIGHBOURS = (-2, -1, 0, 1, 2)
SLICE_MM = 5.0
SEARCHED_PIXELS, SEARCHED_SLICES = 80, 13
"""The coarse rendering in which the slice is chosen."""
LOWEST_MM = -160.0
"""Height of slice number 0."""
MISSING_SHARE = 0.08
"""Share of the neighbours that are missing on disk, as in the published data."""
SMALLEST_LESION_MM = 10.0
LESION_HU = 40.0
"""A voxel that the finding changes by more than this belongs to the lesion mask."""
LUNG_WINDOW_SHARE = 0.3
PLAIN_STEPS_SHARE = 0.3
"""Share of the cases whose steps are plain strings."""
JPEG_QUALITY = 90

LUNG_FINDINGS = {
    "Lung nodule": "pulmonary nodule",
    "Consolidation": "pulmonary consolidation",
    "Lung opacity": "ground glass opacity",
    "Atelectasis": "atelectasis",
    "Pulmonary fibrotic sequela": "pulmonary fibrosis",
    "Emphysema": "pulmonary emphysema",
}
OTHER_FINDINGS = {
    "Pleural effusion": "pleural effusion",
    "Pericardial effusion": "pericardial effusion",
    "Cardiomegaly": "cardiomegaly",
    "Lymphadenopathy": "mediastinal lymphadenopathy",
    "Hiatal hernia": "hiatal hernia",
    "Arterial wall calcification": "aortic wall calcification",
    "Coronary artery wall calcification": "coronary artery calcification",
    "Medical material": "implanted medical device",
}
CATEGORIES = LUNG_FINDINGS | OTHER_FINDINGS
"""The category of a slice by its finding."""
ENTITIES = {7: "pleura", 8: "heart", 9: "pericardium", 10: "aorta", 12: "mediastinum", 13: "esophageal hiatus",
            16: "sternum", 17: "chest wall"}  # fmt: skip
APPEARANCES = {
    "Lung nodule": "a round, well-demarcated focus that stands out against the aerated parenchyma",
    "Consolidation": "a dense area that obscures the vessels and contains air bronchograms",
    "Lung opacity": "a hazy increase in density that does not obscure all vessels",
    "Atelectasis": "a sharply bordered dense area with loss of volume",
    "Pulmonary fibrotic sequela": "irregular linear bands that distort the parenchyma",
    "Emphysema": "thin-walled air spaces with destruction of the parenchyma",
    "Pleural effusion": "a crescent of fluid density along the dependent posterior wall",
    "Pericardial effusion": "a layer of fluid density around the heart outside the epicardial fat",
    "Cardiomegaly": "a cardiac silhouette that takes up more than half of the thorax",
    "Lymphadenopathy": "a round soft tissue focus within the mediastinal fat",
    "Hiatal hernia": "a gas and fluid containing pouch behind the heart",
    "Arterial wall calcification": "foci of calcium density along the vessel wall",
    "Coronary artery wall calcification": "foci of calcium density in the epicardial fat",
    "Medical material": "a structure of metal density",
}


@dataclass(frozen=True, kw_only=True)
class SliceRecord:
    """One record of a batch file; paths are relative to the folder that holds ``images`` and ``masks``."""

    case_id: str
    image_path: str
    mask_path: str
    region: str
    category: str
    cot_reasoning: list[dict[str, Any]] | list[str]


def write_slice(directory: Path, seed: int, index: int) -> SliceRecord:
    """Draw a patient with one finding, write the slice through it with neighbours and mask, and return its record."""
    rng = random_stream(seed, FIRST_PATIENT + index, "slice")
    subject = draw_subject(seed, FIRST_PATIENT + index, smallest_mm=SMALLEST_LESION_MM, count=1)
    finding = subject.findings[0]
    height = _height_of(subject, finding)
    grid = _stack(subject, height, len(NEIGHBOURS), RENDERED_PIXELS)
    hu, change = _with_and_without(grid, subject, finding)
    noisy = add_noise(hu, subject.patient.noise_hu, random_stream(*subject.coordinates, "noise"))
    case_id = f"{FIRST_PATIENT + index}_1_0_{round((height - LOWEST_MM) / SLICE_MM)}"
    lung_window = finding.abnormality in LUNG_FINDINGS and rng.random() < LUNG_WINDOW_SHARE
    _write_stack(directory / "images" / case_id, noisy, WINDOW_PRESETS["lung" if lung_window else "soft_tissue"], rng)
    lesion = np.abs(change[len(NEIGHBOURS) // 2]) > LESION_HU
    write_atomically(directory / "masks" / f"{case_id}.jpg", [_jpeg(_enlarge_mask(lesion), colour=False)])
    return SliceRecord(
        case_id=case_id,
        image_path=f"images/{case_id}/0.jpg",
        mask_path=f"masks/{case_id}.jpg",
        region="Chest",
        category=CATEGORIES[finding.abnormality],
        cot_reasoning=_steps(rng, finding, lung_window),
    )


def _height_of(subject: Subject, finding: Finding) -> float:
    """Height of the slice that the finding changes most, by a coarse rendering around its centre."""
    grid = _stack(subject, finding.centre_mm[0], SEARCHED_SLICES, SEARCHED_PIXELS)
    _, change = _with_and_without(grid, subject, finding)
    return float(grid.z[np.argmax(np.abs(change).sum((1, 2))), 0, 0])


def _with_and_without(grid: Grid, subject: Subject, finding: Finding) -> tuple[Field, Field]:
    """Intensities with the finding, and what it changes of the healthy ones; both without noise."""
    canvas = paint_healthy(grid, subject)
    healthy = canvas.hu.copy()
    paint_findings(canvas, subject.patient, (finding,))
    return canvas.hu, canvas.hu - healthy


def _stack(subject: Subject, height_mm: Number, count: int, pixels: int) -> Grid:
    """Slices centred on a height, over the patient's field of view."""
    patient = subject.patient
    spacing = patient.view_xy_mm / pixels
    half = spacing * (pixels - 1) / 2
    _, y, x = patient.view_centre_mm
    return Grid(
        origin_mm=(height_mm - SLICE_MM * (count - 1) / 2, y - half, x - half),
        spacing_mm=(SLICE_MM, spacing, spacing),
        shape=(count, pixels, pixels),
    )


def _write_stack(
    folder: Path, voxels: Int16[np.ndarray, "z y x"], window: tuple[float, float], rng: np.random.Generator
) -> None:
    """Write the slices as ``-2.jpg`` (towards the feet) to ``2.jpg``, a few neighbours left out."""
    centre, width = window
    folder.mkdir()
    for offset, slice_hu in zip(NEIGHBOURS, voxels, strict=True):
        if offset == 0 or rng.random() >= MISSING_SHARE:
            grey = np.clip((slice_hu.astype(np.float32) - (centre - width / 2)) / width, 0, 1)
            write_atomically(folder / f"{offset}.jpg", [_jpeg(_enlarge(grey), colour=True)])


def _enlarge(grey: Float32[np.ndarray, "y x"]) -> UInt8[np.ndarray, "y2 x2"]:
    picture = Image.fromarray(np.rint(grey * 255).astype(np.uint8))
    return np.asarray(picture.resize((WRITTEN_PIXELS, WRITTEN_PIXELS), Image.Resampling.BICUBIC))


def _enlarge_mask(mask: Bool[np.ndarray, "y x"]) -> UInt8[np.ndarray, "y2 x2"]:
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(picture.resize((WRITTEN_PIXELS, WRITTEN_PIXELS), Image.Resampling.NEAREST))


def _jpeg(grey: UInt8[np.ndarray, "y x"], *, colour: bool) -> bytes:
    picture = Image.fromarray(grey)
    buffer = io.BytesIO()
    (picture.convert("RGB") if colour else picture).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _steps(rng: np.random.Generator, finding: Finding, lung_window: bool) -> list[dict[str, Any]] | list[str]:
    """Where the slice is, what is seen, how it looks, what it means."""
    entity = LOBE_NAMES.get(finding.regions[0]) or ENTITIES[finding.regions[0]]
    sided = f"{finding.side} {entity}" if finding.side != "none" and entity in ("pleura", "chest wall") else entity
    window = "lung" if lung_window else "soft tissue"
    category = CATEGORIES[finding.abnormality]
    texts = [
        (f"The axial chest CT slice is shown in the {window} window.", ["chest"]),
        (sentence(rng, finding), [sided]),
        (f"In the {sided} this appears as {APPEARANCES[finding.abnormality]}.", [sided]),
        (f"Taken together, the changes of the {sided} are consistent with {category}.", [sided]),
    ]
    if rng.random() < PLAIN_STEPS_SHARE:
        return [text for text, _ in texts]
    return [{"text": text, "entities": entities} for text, entities in texts]
