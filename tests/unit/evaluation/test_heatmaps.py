"""Heat maps: the cosine of each patch with the phrase, whatever else is asked in the same call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tiny import tiny_config, write_checkpoint
from vlm3d_ct.config import config_from_mapping, config_to_mapping
from vlm3d_ct.evaluation.heatmaps import map_phrases, resize_map
from vlm3d_ct.inference import load_encoder
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.volumes.preprocess import Prepared

PHRASES = ("A nodule in the left lower lobe.", "No effusion.", "Something else entirely.")
LEFT_LOWER_LOBE, PLEURA = 5, 7


@pytest.fixture(scope="module", params=["text", "sentence"])
def encoder(tmp_path_factory, request):
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint.pth"
    write_checkpoint(path, tiny_config(f"text.attention={request.param}", "text.pooling=mean"))
    return load_encoder(path)


def _case(labels: bool = True, kind="volume"):
    stream = random_stream("case")
    if kind == "slice":
        return Prepared(
            voxels_hu=stream.integers(0, 255, (4, 32, 32)).astype(np.uint8),
            labels=None,
            spacing_mm=(1.0, 1.0, 1.0),
            kind="slice",
        )
    mask = np.zeros((8, 32, 32), np.uint8)
    mask[:4, :16, :16] = LEFT_LOWER_LOBE
    return Prepared(
        voxels_hu=stream.integers(-1000, 400, mask.shape).astype(np.int16),
        labels=mask if labels else None,
        spacing_mm=(5.0, 2.0, 2.0),
        kind="volume",
    )


def test_the_map_is_the_cosine_of_each_patch_with_the_words_of_the_phrase(encoder):
    case = _case(labels=False)
    maps = map_phrases(encoder, case, PHRASES[:1])
    model = encoder.model
    centre, width = encoder.config.model.windows_hu[0]
    hu = torch.from_numpy(case.voxels_hu.astype(np.float32))
    windowed = ((hu - (centre - width / 2)) / width).clamp(0, 1)[None, None]
    encoded = encoder.tokenizer.encode_text(PHRASES[0])
    token_ids, steps = (torch.from_numpy(part)[None] for part in (encoded.input_ids, encoded.steps.of_token))
    with torch.inference_mode():
        local = model.vision_encoder(windowed).local_features[0]
        patch = local @ model.vision_encoder.region_proj.weight.T + model.vision_encoder.region_proj.bias
        read = model.text_encoder(token_ids, torch.ones_like(token_ids), None, steps).last_hidden_state[0, 1:-1].mean(0)
        phrase = model.text_encoder.region_projection.weight @ read + model.text_encoder.region_projection.bias
        expected = torch.cosine_similarity(patch, phrase[None], dim=1).reshape(2, 4, 4).numpy()
    np.testing.assert_allclose(maps.heat[0], expected, atol=1e-5)


def test_what_was_not_read_is_as_cold_as_the_coldest_patch(encoder):
    case = _case()
    case.voxels_hu[:, :, 16:] = -1000
    config = config_from_mapping(config_to_mapping(encoder.config), source="test", overrides=["model.skip_air=true"])
    heat = map_phrases(replace(encoder, config=config), case, PHRASES[:1]).heat[0]
    assert (heat[:, :, 2:] == heat[:, :, :2].min()).all()
    assert heat[:, :, :2].std() > 0


def test_a_phrase_has_the_same_map_alone_and_among_others(encoder):
    together = map_phrases(encoder, _case(), PHRASES)
    for number, phrase in enumerate(PHRASES):
        np.testing.assert_allclose(map_phrases(encoder, _case(), [phrase]).heat[0], together.heat[number], atol=1e-5)


def test_the_region_map_is_where_the_mask_has_the_named_regions(encoder):
    maps = map_phrases(encoder, _case(), PHRASES)
    assert maps.named == ((LEFT_LOWER_LOBE,), (PLEURA,), ())
    expected = np.zeros((2, 4, 4))
    expected[0, :2, :2] = 1
    np.testing.assert_allclose(maps.regions[0], expected)
    assert not maps.regions[1].any()  # the mask has no pleura
    assert (maps.regions[2] == 1).all()  # the phrase names none


def test_masks_are_used_as_asked(encoder):
    given, predicted, none = (map_phrases(encoder, _case(), PHRASES, masks) for masks in ("given", "predicted", "none"))
    without = map_phrases(encoder, _case(labels=False), PHRASES, "given")
    np.testing.assert_array_equal(predicted.heat, without.heat)
    assert not np.allclose(given.heat, predicted.heat)
    assert not np.allclose(none.heat, predicted.heat)
    np.testing.assert_array_equal(none.regions, given.regions)  # the baseline stays what it was


def test_a_slice_has_maps_of_one_slab(encoder):
    maps = map_phrases(encoder, _case(kind="slice"), PHRASES)
    assert maps.heat.shape == (3, 1, 4, 4)
    assert np.isfinite(maps.heat).all()


def test_resizing_keeps_a_constant_and_the_place_of_a_maximum():
    assert (resize_map(np.full((2, 3, 4), 0.25, np.float32), (7, 30, 20)) == 0.25).all()
    peak = np.zeros((2, 4, 4), np.float32)
    peak[1, 2, 3] = 1
    large = resize_map(peak, (8, 32, 32))
    where = np.argwhere(large == large.max()).mean(axis=0)
    assert (np.floor_divide(where, (4, 8, 8)) == (1, 2, 3)).all()
