"""From a checkpoint to embeddings: one scan alone, a whole pool, and checkpoints that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tiny import tiny_config, write_checkpoint
from vlm3d_ct import load_encoder
from vlm3d_ct.config import Config, config_to_mapping
from vlm3d_ct.data.cohort import find_cohort, prepare_cohort
from vlm3d_ct.data.dataset import CaseDataset, open_cache
from vlm3d_ct.errors import CheckpointError, DataError
from vlm3d_ct.inference import embed_cases
from vlm3d_ct.text.regions import load_region_table


@pytest.fixture(scope="module")
def config(phantom_data: tuple[str, ...]) -> Config:
    return tiny_config(*phantom_data)


@pytest.fixture(scope="module")
def checkpoint(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "checkpoint.pth"
    write_checkpoint(path, config)
    return path


def test_one_scan_alone_gets_the_embedding_that_it_has_in_a_pool(config: Config, checkpoint: Path):
    encoder = load_encoder(checkpoint)
    cohort = prepare_cohort(find_cohort(config), config, workers=0)
    cases = [case for case in cohort.training if case.kind == "volume"][:3] + list(cohort.training[-2:])
    assert cases[-1].kind == "slice"
    dataset = CaseDataset(cases, open_cache(config), encoder.tokenizer, load_region_table(), None, 0)
    encoder.model.train()
    pool = embed_cases(encoder.model, config, dataset, torch.device("cpu"), encoder.provenance)
    assert encoder.model.training
    assert pool.case_ids == tuple(case.case_id for case in cases)
    np.testing.assert_allclose(np.linalg.norm(pool.volume, axis=-1), 1, rtol=1e-5)
    encoder.model.eval()
    for row, case in enumerate(cases[:3]):
        alone = encoder.embed_volume(case.image_paths[0], case.mask_path)
        np.testing.assert_allclose(alone, pool.volume[row], atol=2e-5)
    answers = encoder.embed_text([case.reports[0].answer for case in cases if not case.reports[0].question])
    np.testing.assert_allclose(answers, pool.text[3:], atol=2e-5)


def test_a_scan_is_embedded_without_a_mask_too(checkpoint: Path, phantom_cohort: Path):
    encoder = load_encoder(str(checkpoint))
    scan = phantom_cohort / "ct_rate" / "volumes" / "train_1_a_1.nii.gz"
    blind = encoder.embed_volume(scan)
    guided = encoder.embed_volume(scan, phantom_cohort / "ct_rate" / "masks" / "train_1_a_1.nii.gz")
    assert blind.shape == guided.shape == (32,)
    assert blind.dtype == np.float32
    assert np.linalg.norm(blind) == pytest.approx(1, rel=1e-5)
    assert not np.allclose(blind, guided, atol=1e-4)


def test_texts_are_embedded_one_by_one_whatever_their_company(checkpoint: Path):
    encoder = load_encoder(checkpoint)
    texts = ["No effusion.", "A nodule in the left lower lobe. " * 5, ""]
    together = encoder.embed_text(texts)
    assert together.shape == (3, 32)
    for row, text in enumerate(texts):
        np.testing.assert_allclose(encoder.embed_text([text])[0], together[row], atol=2e-5)
    assert encoder.embed_text([]).shape == (0, 32)


def test_provenance_says_what_made_the_numbers(checkpoint: Path, tmp_path: Path, config: Config):
    facts = load_encoder(checkpoint).provenance
    assert (facts["checkpoint"], facts["stage"], facts["step"]) == ("checkpoint.pth", "pretrain", "5")
    assert "torch" in facts["written_by"]
    model = write_checkpoint(tmp_path / "same.pth", config)
    same = load_encoder(tmp_path / "same.pth").provenance
    assert same["checkpoint_weights_sha256"] == facts["checkpoint_weights_sha256"]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights["vision_encoder.norm.bias"][0] += 1e-6
    write_checkpoint(tmp_path / "other.pth", config, model=weights)
    other = load_encoder(tmp_path / "other.pth").provenance
    assert other["checkpoint_weights_sha256"] != facts["checkpoint_weights_sha256"]


def test_a_checkpoint_of_another_model_is_refused_with_the_tensors_that_differ(tmp_path: Path, config: Config):
    other = config_to_mapping(tiny_config("model.depth=5", "model.mlp_ratio=2"))
    write_checkpoint(tmp_path / "c.pth", config, config=other)
    with pytest.raises(CheckpointError) as caught:
        load_encoder(tmp_path / "c.pth")
    message = str(caught.value)
    assert "c.pth: is a checkpoint of another model; " in message
    assert "vision_encoder.blocks.0.mlp_in.bias: (128,) in the checkpoint, (64,) in the model" in message
    assert message.count(" in the checkpoint") == 5


def test_a_checkpoint_of_another_preprocessing_is_refused(tmp_path: Path, config: Config):
    write_checkpoint(tmp_path / "c.pth", config, fingerprint="0123456789ab")
    with pytest.raises(CheckpointError, match=r"was trained on preprocessing 0123456789ab.*scores would be wrong"):
        load_encoder(tmp_path / "c.pth")


def test_a_mask_on_another_grid_is_refused(checkpoint: Path, phantom_cohort: Path, tmp_path: Path):
    scan = phantom_cohort / "ct_rate" / "volumes" / "train_1_a_1.nii.gz"
    with pytest.raises(DataError):
        load_encoder(checkpoint).embed_volume(scan, tmp_path / "absent.nii.gz")
    with pytest.raises(DataError):
        load_encoder(checkpoint).embed_volume(tmp_path / "absent.nii.gz")
