"""From a checkpoint to embeddings: one scan alone, a whole pool, and checkpoints that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny import tiny_config, write_checkpoint
from vlm3d_ct import load_encoder
from vlm3d_ct.config import Config, config_to_mapping
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.cohort import find_cohort, prepare_cohort
from vlm3d_ct.data.dataset import CaseDataset, open_cache
from vlm3d_ct.embeddings import ARRAY_FIELDS, EmbeddingSet, EmbeddingStore
from vlm3d_ct.errors import CheckpointError, DataError
from vlm3d_ct.inference import Encoder, MaskUse, embed_cases, embed_once, embedding_key
from vlm3d_ct.models.dual import tokens_of
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.text.tokenize import collate_reports


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
        alone = encoder.embed_volume(case.image_paths[0], case.mask_paths[0])
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


def test_a_prompt_for_regions_is_read_as_its_sentence_is_in_a_report(tmp_path: Path, config: Config):
    sentences = ("The heart is enlarged.", "No pleural effusion.", "A nodule in the left lung.")
    read_apart = tiny_config("text.attention=sentence", "text.pooling=mean")
    write_checkpoint(tmp_path / "c.pth", read_apart)
    encoder = load_encoder(tmp_path / "c.pth")
    report = collate_reports([encoder.tokenizer.encode_text(" ".join(sentences))], 0)
    ids, mask, steps = (
        torch.from_numpy(part) for part in (report.input_ids, report.attention_mask, report.token_steps)
    )
    with torch.no_grad():
        tokens = encoder.model.text_encoder(ids, mask, None, steps).last_hidden_state
        expected = encoder.model.text_encoder.region_features(tokens, tokens_of(steps, 3))[0]
    np.testing.assert_allclose(encoder.embed_text_for_regions(sentences), expected.numpy(), atol=1e-5)


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


@pytest.fixture(scope="module")
def encoder(checkpoint: Path) -> Encoder:
    return load_encoder(checkpoint)


@pytest.fixture(scope="module")
def cases(config: Config) -> tuple[Case, ...]:
    cohort = prepare_cohort(find_cohort(config), config, workers=0)
    return (*cohort.training[:9], *cohort.training[-3:])


def open_dataset(encoder: Encoder, config: Config, cases: Sequence[Case]) -> CaseDataset:
    return CaseDataset(cases, open_cache(config), encoder.tokenizer, load_region_table(), None, 0)


def embed(encoder: Encoder, config: Config, cases: Sequence[Case], masks: MaskUse = "given") -> EmbeddingSet:
    return embed_cases(encoder.model, config, open_dataset(encoder, config, cases), encoder.device, {}, masks)


def test_embeddings_are_the_same_to_the_bit_whatever_the_number_of_threads(
    encoder: Encoder, config: Config, cases: tuple[Case, ...]
):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = embed(encoder, config, cases)
        torch.set_num_threads(3)
        together = embed(encoder, config, cases)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    for name in ARRAY_FIELDS:
        np.testing.assert_array_equal(getattr(alone, name), getattr(together, name), err_msg=name)


def test_a_case_without_a_text_is_embedded_and_marked(encoder: Encoder, config: Config, cases: tuple[Case, ...]):
    whole = embed(encoder, config, cases[:4])
    cut = embed(encoder, config, (*cases[:2], replace(cases[2], reports=()), cases[3]))
    assert whole.has_text.tolist() == [True] * 4
    assert cut.has_text.tolist() == [True, True, False, True]
    np.testing.assert_allclose(cut.volume, whole.volume, atol=1e-5)
    assert not cut.region_mentions[2].any()
    left = cut.select(np.flatnonzero(cut.has_text))
    assert left.case_ids == tuple(cases[i].case_id for i in (0, 1, 3))
    np.testing.assert_array_equal(left.text, cut.text[[0, 1, 3]])


def test_masks_are_used_as_asked(encoder: Encoder, config: Config, cases: tuple[Case, ...]):
    case = next(case for case in cases if case.kind == "volume" and case.mask_paths)
    given, predicted, none = (embed(encoder, config, [case], masks) for masks in ("given", "predicted", "none"))
    alone = encoder.embed_volume(case.image_paths[0])
    np.testing.assert_allclose(predicted.volume[0], alone, atol=2e-5)
    assert not np.allclose(given.volume, predicted.volume, atol=1e-4)
    assert not np.allclose(none.volume, predicted.volume, atol=1e-4)
    np.testing.assert_array_equal(given.text, none.text)


def test_embeddings_are_made_once_and_never_used_when_stale(
    encoder: Encoder, config: Config, cases: tuple[Case, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    dataset = open_dataset(encoder, config, cases[:3])
    store = EmbeddingStore(tmp_path / "embeddings.npz", named=False)
    made = embed_once(encoder, dataset, store)
    assert "none in" in capsys.readouterr().out
    written = store.path.read_bytes()
    found = embed_once(encoder, dataset, store)
    assert "3 read from" in capsys.readouterr().out
    np.testing.assert_array_equal(found.volume, made.volume)
    assert store.path.read_bytes() == written
    other = open_dataset(encoder, config, (cases[0], cases[1], replace(cases[2], reports=cases[3].reports)))
    with pytest.raises(DataError, match=r"other texts.*--recompute") as caught:
        embed_once(encoder, other, EmbeddingStore(store.path, named=True))
    assert caught.value.problems[0].code == "stale-embeddings"
    embed_once(encoder, other, EmbeddingStore(store.path, named=True), recompute=True)
    assert store.path.read_bytes() != written
    capsys.readouterr()
    embed_once(encoder, dataset, store)
    assert "is of other texts and is made again" in capsys.readouterr().out
    assert store.path.read_bytes() == written
    store.path.write_bytes(written[:-100])
    with pytest.raises(DataError, match="damaged"):
        embed_once(encoder, dataset, EmbeddingStore(store.path, named=True))
    embed_once(encoder, dataset, store)
    assert store.path.read_bytes() == written


def test_the_key_names_what_differs(encoder: Encoder, cases: tuple[Case, ...], checkpoint: Path, tmp_path: Path):
    key = embedding_key(encoder, cases, "given")
    assert key.differences(key.as_provenance()) == []
    assert len(key.differences({})) == len(key.as_provenance()) == 7
    assert embedding_key(encoder, cases, "none").differences(key.as_provenance()) == ["masks"]
    fewer = embedding_key(encoder, cases[1:], "given").differences(key.as_provenance())
    assert set(fewer) == {"cases", "texts", "sources"}
    moved = tmp_path / cases[0].image_paths[0].name
    moved.write_bytes(b"another file")
    touched = (replace(cases[0], image_paths=(moved,)), *cases[1:])
    assert embedding_key(encoder, touched, "given").differences(key.as_provenance()) == ["sources"]


def test_one_text_in_place_of_a_list_is_refused(encoder: Encoder):
    for embed_text in (encoder.embed_text, encoder.embed_text_for_regions):
        with pytest.raises(TypeError, match="give a list of texts"):
            embed_text("Left pleural effusion.")
