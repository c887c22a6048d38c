"""Slices in the manner of OmniAbnorm: an abnormal slice with neighbours, lossy lesion mask and reasoning steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlm3d_ct.config.schema import WINDOW_PRESETS
from vlm3d_ct.phantom.acquisition import ranges
from vlm3d_ct.phantom.findings.finding import Finding
from vlm3d_ct.phantom.noise import grain
from vlm3d_ct.phantom.planes import PLANES, as_pictures, enlarge, enlarge_mask, jpeg, to_grey
from vlm3d_ct.phantom.scene import NEIGHBOURS, SLICE_MM, Scene, draw_scene
from vlm3d_ct.phantom.settings import Settings
from vlm3d_ct.phantom.steps import write_steps
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.volumes.atomic import write_atomically

MISSING_SHARE = 0.08
"""Share of the neighbours that are missing on disk, as in the published data."""
JPEG_SUFFIX_SHARE = 0.3
"""Share of the cases whose files end in ``.jpeg``."""
SIZES = (*((512, 512),) * 5, (630, 626), (600, 596), (560, 558))
"""Width and height of the pictures of a case, drawn with equal chance."""
LOWEST_MM = -240.0
"""Position of slice number 0."""

DENSE_IN_LUNG = {"Lung nodule", "Consolidation", "Atelectasis", "Pulmonary fibrotic sequela"}
"""Seen in the soft tissue window too."""
LUNG_WINDOW_SHARE = 0.5
SEEN_IN_LUNG_WINDOW = {"Lung opacity", "Emphysema", "Mosaic attenuation pattern", "Bronchiectasis",
                       "Peribronchial thickening", "Interlobular septal thickening"}  # fmt: skip
CATEGORIES = {
    "Lung nodule": "pulmonary nodule",
    "Consolidation": "pulmonary consolidation",
    "Lung opacity": "ground glass opacity",
    "Atelectasis": "atelectasis",
    "Pulmonary fibrotic sequela": "pulmonary fibrosis",
    "Emphysema": "pulmonary emphysema",
    "Mosaic attenuation pattern": "mosaic attenuation",
    "Bronchiectasis": "bronchiectasis",
    "Peribronchial thickening": "bronchial wall thickening",
    "Interlobular septal thickening": "interlobular septal thickening",
    "Pleural effusion": "pleural effusion",
    "Pericardial effusion": "pericardial effusion",
    "Cardiomegaly": "cardiomegaly",
    "Lymphadenopathy": "mediastinal lymphadenopathy",
    "Hiatal hernia": "hiatal hernia",
    "Arterial wall calcification": "aortic wall calcification",
    "Coronary artery wall calcification": "coronary artery calcification",
    "Medical material": "implanted medical device",
}
"""The category of a slice by its finding ..."""
CATEGORIES_OF_FORMS = {
    ("Lung nodule", "calcified"): "calcified pulmonary nodule",
    ("Atelectasis", "passive"): "passive atelectasis",
    ("Emphysema", "bullous"): "pulmonary bulla",
    ("Bronchiectasis", "traction"): "traction bronchiectasis",
    ("Bronchiectasis", "cystic"): "cystic bronchiectasis",
}
"""... and where the form has a name of its own."""


@dataclass(frozen=True, kw_only=True)
class SliceRecord:
    """One record of a batch file; paths are relative to the folder that holds ``images`` and ``masks``."""

    case_id: str
    image_path: str
    mask_path: str
    region: str
    category: str
    cot_reasoning: list[dict[str, Any]] | list[str]


def write_slice(directory: Path, settings: Settings, number: int) -> SliceRecord:
    """Draw patient ``number`` with a finding, write a slice through it with neighbours and mask, return its record."""
    rng = random_stream(settings.seed, number, "slice")
    scene = draw_scene(settings.seed, number, hard=settings.hard_scans)
    finding = scene.finding
    case_id = f"{number}_1_{PLANES.index(scene.plane)}_{round((scene.position_mm - LOWEST_MM) / SLICE_MM)}"
    suffix = ".jpeg" if rng.random() < JPEG_SUFFIX_SHARE else ".jpg"
    size = SIZES[rng.integers(len(SIZES))]
    quality = int(rng.integers(*ranges(settings.hard_scans).jpeg_quality, endpoint=True))
    window = _window(rng, finding)
    folder = directory / "images" / case_id
    folder.mkdir(exist_ok=True)
    for offset, grey in zip(NEIGHBOURS, _pictures(scene, WINDOW_PRESETS[window], rng), strict=True):
        if offset == 0 or rng.random() >= MISSING_SHARE:
            write_atomically(
                folder / f"{offset}{suffix}", [jpeg(enlarge(grey, *size), quality, colour=True)], sync=False
            )
    mask = jpeg(enlarge_mask(scene.lesion, *size), quality, colour=False)
    write_atomically(directory / "masks" / f"{case_id}{suffix}", [mask], sync=False)
    return SliceRecord(
        case_id=case_id,
        image_path=f"images/{case_id}/0{suffix}",
        mask_path=f"masks/{case_id}{suffix}",
        region="Chest",
        category=category_of(finding),
        cot_reasoning=write_steps(rng, finding, scene.plane, window, hard=settings.hard_words),
    )


def category_of(finding: Finding) -> str:
    """What OmniAbnorm would call the finding."""
    form = (finding.abnormality, finding.form)
    return CATEGORIES_OF_FORMS.get(form) or CATEGORIES[finding.abnormality]


def _window(rng: np.random.Generator, finding: Finding) -> str:
    dense = finding.abnormality in DENSE_IN_LUNG and rng.random() < LUNG_WINDOW_SHARE
    return "lung" if dense or finding.abnormality in SEEN_IN_LUNG_WINDOW else "soft_tissue"


def _pictures(scene: Scene, window: tuple[float, float], rng: np.random.Generator) -> list[np.ndarray]:
    """The stack's slices with noise, in grey; an axial slice has padding outside the scanned circle."""
    acquisition, grid = scene.acquisition, scene.grid
    sigma, padding = np.float32(acquisition.noise_hu), acquisition.padding_hu
    pictures = []
    for hu in as_pictures(scene.plane, scene.canvas.hu):
        noisy = grain(rng, (hu.shape[0], hu.shape[1]), acquisition.kernel) * sigma + hu
        if scene.plane == "axial" and padding is not None:
            noisy[acquisition.outside(grid)] = padding
        pictures.append(to_grey(noisy, window))
    return pictures
