"""Real CT from other people's hands: through reading and preparation, and through the full-size encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ROOT

from vlm3d_ct import build_vision_encoder
from vlm3d_ct.config import Config
from vlm3d_ct.config.schema import WINDOW_PRESETS
from vlm3d_ct.volumes.nifti import read_mask, read_volume
from vlm3d_ct.volumes.preprocess import MAX_HU, MIN_HU, Prepared, Preprocess

FOLDER = ROOT.parent / "shared" / "realdata"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the real scans are not there: {FOLDER.name}")

SCANS = {  # file: voxels (z, y, x), spacing mm, mask and its largest label
    "chest_right_ct.nii.gz": ((129, 157, 115), (2.5, 1.37, 1.37), "chest_right_lung_mask.nii.gz", 1),
    "thorax_cta.nii.gz": ((164, 126, 120), (1.5, 1.5, 1.5), "thorax_cta_totalsegmentator_ids.nii.gz", 117),
    "abdomen_small_ct.nii.gz": ((30, 101, 122), (3.0, 3.0, 3.0), "abdomen_small_totalsegmentator_ids.nii.gz", 117),
}


def prepare(name: str) -> Prepared:
    _, _, mask_name, largest = SCANS[name]
    volume = read_volume(FOLDER / name)
    mask = read_mask(FOLDER / mask_name, like=volume, max_label=largest)
    return Preprocess.from_config(Config().preprocess)(volume, mask)


@pytest.mark.parametrize("name", SCANS)
def test_a_real_scan_is_read_as_it_is(name: str):
    shape, spacing_mm, _, _ = SCANS[name]
    volume = read_volume(FOLDER / name)
    assert volume.voxels_hu.shape == shape
    assert volume.spacing_mm == pytest.approx(spacing_mm, abs=0.01)
    air, soft_tissue = (volume.voxels_hu < -300).mean(), ((volume.voxels_hu > -50) & (volume.voxels_hu < 100)).mean()
    assert soft_tissue > 0.1
    assert 0.02 < air < 0.9


@pytest.mark.parametrize("name", SCANS)
def test_a_real_scan_is_prepared_at_full_size(name: str):
    _, _, mask_name, largest = SCANS[name]
    volume, prepared = read_volume(FOLDER / name), prepare(name)
    assert prepared.voxels_hu.shape == (64, 512, 512)
    assert prepared.voxels_hu.dtype == np.int16
    extent = [n * mm for n, mm in zip(volume.voxels_hu.shape, volume.spacing_mm, strict=True)]
    after = [n * mm for n, mm in zip(prepared.voxels_hu.shape, prepared.spacing_mm, strict=True)]
    assert after == pytest.approx(extent)
    clipped = np.clip(volume.voxels_hu, MIN_HU, MAX_HU)
    assert prepared.voxels_hu.mean() == pytest.approx(clipped.mean(), abs=12)
    assert prepared.labels is not None
    mask = read_mask(FOLDER / mask_name, like=volume, max_label=largest).labels
    for label in np.unique(mask):
        assert (prepared.labels == label).mean() == pytest.approx((mask == label).mean(), rel=0.1, abs=1e-3)


def test_inside_the_lung_mask_is_lung():
    # orientation, scale and intercept of volume and mask, checked against anatomy
    prepared = prepare("chest_right_ct.nii.gz")
    inside = prepared.voxels_hu[prepared.labels == 1]
    assert -950 < np.median(inside) < -700
    assert (inside < -500).mean() > 0.85


def test_a_real_scan_goes_through_the_full_size_encoder():
    prepared = prepare("thorax_cta.nii.gz")
    centre, width = WINDOW_PRESETS["plan"]
    voxels = torch.from_numpy(prepared.voxels_hu).float()
    intensities = ((voxels - (centre - width / 2)) / width).clamp(0, 1)[None, None]
    labels = (torch.from_numpy(prepared.labels) == 51).to(torch.uint8)[None, None] * 8  # the heart
    torch.manual_seed(0)
    encoder = build_vision_encoder(Config()).eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        out = encoder(ct_volume=intensities, segmentation_mask=labels)
        projected = encoder.global_proj(out.global_features)
    shapes = {"global_features": (1, 768), "local_features": (1, 16_384, 768), "region_features": (1, 20, 768)}
    for name, shape in shapes.items():
        assert tuple(out[name].shape) == shape
        assert out[name].isfinite().all()
    assert projected.shape == (1, 768)
    assert (torch.nonzero(out.region_present[0]).flatten() + 1).tolist() == [8]


def test_the_folder_says_what_it_holds():
    assert {path.name for path in Path(FOLDER).glob("*.nii.gz")} >= set(SCANS)
