"""Phrase-to-voxel heat maps: which patches of a scan resemble a sentence.

A patch's local features are projected by ``region_proj``, the projection that the region tokens go through; a phrase is
the mean of its tokens through the region projection of the text side, as the sentences of a region are in training. The
cosine of the two, on the grid of patches, is the map.

Only the reasoning level (`objectives.reasoning`) compares patches with sentences, and it the mean over the patches of a
region: no objective asks a single patch to resemble a phrase. In training without it patches take part only through the
region and global tokens that attend to them. That their own projections mean anything is a hope, and the scores say how
far it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32

from vlm3d_ct.data.batch import Change, Sample, collate
from vlm3d_ct.inference import Encoder, MaskUse, autocast_for_inference, guided, model_input, one_thread_each, to_numpy
from vlm3d_ct.models.patches import patch_grid
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.volumes.preprocess import Prepared


@dataclass(frozen=True, kw_only=True, eq=False)
class PhraseMaps:
    """Maps of p phrases on the patch grid of one case.

    Attributes:
        heat: cosine (-1..1) of each patch with each phrase.
        regions: share (0..1) of each patch that the regions named by the phrase take, as they guided the encoder; 1
            everywhere for a phrase that names none. It knows where regions are and nothing of lesions.
        named: ids of the regions that each phrase names.
    """

    heat: Float32[np.ndarray, "p z y x"]
    regions: Float32[np.ndarray, "p z y x"]
    named: tuple[tuple[int, ...], ...]


def map_phrases(encoder: Encoder, prepared: Prepared, phrases: Sequence[str], masks: MaskUse = "given") -> PhraseMaps:
    """The maps of one case's phrases, from one pass through the vision encoder.

    At full size the local features of a case take 50 MB; nothing of them is kept. With ``masks="none"`` no patch has a
    region, so the maps of regions show where the *given* mask has them (predicted where there is none).
    """
    table = load_region_table()
    reports = [encoder.tokenizer.encode_text(text, table) for text in phrases]
    mentions = np.stack([report.region_mentions for report in reports])
    batch = collate([Sample("", prepared, reports[0], Change())], encoder.tokenizer.pad_id).to(encoder.device)
    model = encoder.model
    with (
        torch.inference_mode(),
        one_thread_each(encoder.device),
        autocast_for_inference(encoder.config, encoder.device),
    ):
        given = model_input(batch, encoder.config, table)
        inputs = guided(given, masks)
        seen = model.see(inputs)
        occupancy = seen.occupancy
        if masks == "none":
            occupancy = model.see(given).occupancy
        local = model.vision_encoder.region_proj(seen.local_features)[0]
        sentences = encoder.region_features(phrases)
        heat = local.float() @ sentences.float().T
        heat[~seen.read[0]] = heat[seen.read[0]].amin(0)  # nothing was read there
    size = prepared.voxels_hu.shape
    grid = patch_grid((size[0], size[1], size[2]), encoder.config.model.patch_size)
    shares = to_numpy(occupancy)[0]
    shape = (len(phrases), *grid)
    return PhraseMaps(
        heat=np.ascontiguousarray(to_numpy(heat).T).reshape(shape),
        regions=np.stack([_named_share(shares, named) for named in mentions]).reshape(shape),
        named=tuple(tuple((np.flatnonzero(named) + 1).tolist()) for named in mentions),
    )


def resize_map(patches: Float32[np.ndarray, "z y x"], size: tuple[int, int, int]) -> Float32[np.ndarray, "z2 y2 x2"]:
    """A map on another grid of the same extent: linear between the centres of the patches, constant beyond them."""
    tensor = torch.from_numpy(np.ascontiguousarray(patches))[None, None]
    resized: np.ndarray = F.interpolate(tensor, size=size, mode="trilinear", align_corners=False)[0, 0].numpy()
    return resized


def _named_share(shares: Float32[np.ndarray, "n labels"], named: Bool[np.ndarray, " r"]) -> Float32[np.ndarray, " n"]:
    if not named.any():
        return np.ones(len(shares), np.float32)
    total: Float32[np.ndarray, " n"] = shares[:, 1:][:, named].sum(axis=1, dtype=np.float32)
    return total
