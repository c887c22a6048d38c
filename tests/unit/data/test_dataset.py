"""Samples and batches: functions of (seed, epoch, case), whoever reads them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tiny import tiny_config
from vlm3d_ct.config import AugmentConfig, Config
from vlm3d_ct.data.batch import Batch, Change, Sample, collate
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.cohort import find_cohort, prepare_cohort
from vlm3d_ct.data.dataset import (
    CaseDataset,
    evaluation_batches,
    open_cache,
    read_sample,
    some_sentences,
    training_loader,
)
from vlm3d_ct.data.order import MicroBatchOrder, epoch_order
from vlm3d_ct.data.prepare import prepare_case
from vlm3d_ct.errors import DataError
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.text.mirror import can_mirror, mirror_text
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.text.report import Report, Step
from vlm3d_ct.text.sentences import split_sentences
from vlm3d_ct.text.tokenize import ReportTokenizer, train_small_tokenizer
from vlm3d_ct.volumes.preprocess import Preprocess

SOME_SENTENCES = AugmentConfig(flip_probability=0.0, sentence_probability=1.0)
ALWAYS_FLIP = AugmentConfig(flip_probability=1.0)


@pytest.fixture(scope="module")
def config(phantom_data: tuple[str, ...]) -> Config:
    return tiny_config(*phantom_data)


@pytest.fixture(scope="module")
def cases(config: Config) -> tuple[Case, ...]:
    return prepare_cohort(find_cohort(config), config, workers=0).training


@pytest.fixture(scope="module")
def tokenizer(cases: tuple[Case, ...]) -> ReportTokenizer:
    return ReportTokenizer(train_small_tokenizer([case.reports[0].answer for case in cases], 400), 96)


def make_dataset(
    cases: Sequence[Case], config: Config, tokenizer: ReportTokenizer, augment: AugmentConfig | None, seed: int = 0
) -> CaseDataset:
    return CaseDataset(cases, open_cache(config), tokenizer, load_region_table(), augment, seed)


def assert_equal_samples(one: Sample, other: Sample) -> None:
    assert (one.case_id, one.change, one.prepared.kind) == (other.case_id, other.change, other.prepared.kind)
    np.testing.assert_array_equal(one.prepared.voxels_hu, other.prepared.voxels_hu)
    np.testing.assert_array_equal(one.report.input_ids, other.report.input_ids)
    np.testing.assert_array_equal(one.report.region_tokens, other.report.region_tokens)


def assert_equal_batches(one: Batch, other: Batch) -> None:
    for field in fields(Batch):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, Tensor):
            assert torch.equal(mine, theirs), field.name
        else:
            assert mine == theirs, field.name


def test_a_sample_depends_on_seed_epoch_and_case_only(
    cases: tuple[Case, ...], config: Config, tokenizer: ReportTokenizer
):
    used, fresh = (make_dataset(cases, config, tokenizer, config.augment) for _ in range(2))
    backwards = make_dataset(cases[::-1], config, tokenizer, config.augment)
    for epoch in (3, 0):
        for number in range(len(cases)):
            sample = used[epoch, number]
            assert_equal_samples(sample, used[epoch, number])
            assert_equal_samples(sample, fresh[epoch, number])
            assert_equal_samples(sample, backwards[epoch, len(cases) - 1 - number])
    datasets = [make_dataset(cases, config, tokenizer, config.augment, seed) for seed in (0, 1)]
    assert len({dataset[epoch, 0].change.noise_seed for dataset in datasets for epoch in (0, 1)}) == 4


def test_a_flipped_case_has_its_text_mirrored_and_a_one_sided_text_is_never_flipped(
    cases: tuple[Case, ...], config: Config, tokenizer: ReportTokenizer
):
    table = load_region_table()
    dataset, plain = (make_dataset(cases, config, tokenizer, augment) for augment in (ALWAYS_FLIP, None))
    flipped = 0
    for number, case in enumerate(cases):
        report, sample = case.reports[0], dataset[0, number]
        assert sample.change.flip == can_mirror(f"{report.question} {report.answer}", table)
        expected = report
        if sample.change.flip:
            flipped += 1
            expected = Report(question=mirror_text(report.question), answer=mirror_text(report.answer))
        np.testing.assert_array_equal(sample.report.input_ids, tokenizer.encode(expected, table).input_ids)
        np.testing.assert_array_equal(sample.report.region_groups, tokenizer.encode(expected, table).region_groups)
        np.testing.assert_array_equal(sample.prepared.voxels_hu, plain[0, number].prepared.voxels_hu)
    assert 0 < flipped < len(cases)


def test_a_flip_of_the_scan_alone_leaves_every_text_as_it_is(
    cases: tuple[Case, ...], config: Config, tokenizer: ReportTokenizer
):
    careless = replace(ALWAYS_FLIP, mirror_words=False)
    dataset, plain = (make_dataset(cases, config, tokenizer, augment) for augment in (careless, None))
    for number in range(len(cases)):
        sample = dataset[0, number]
        assert sample.change.flip
        np.testing.assert_array_equal(sample.report.input_ids, plain[0, number].report.input_ids)


def test_training_draws_one_of_several_reports_and_evaluation_takes_the_first(
    cases: tuple[Case, ...], config: Config, tokenizer: ReportTokenizer
):
    reports = tuple(Report(question="", answer=answer) for answer in ("First text.", "Second text.", "Third text."))
    several = [replace(cases[0], reports=reports)]
    training, evaluation = (make_dataset(several, config, tokenizer, a) for a in (config.augment, None))
    texts = {tokenizer.decode(training[epoch, 0].report.input_ids.tolist()) for epoch in range(20)}
    assert len(texts) == 3
    for epoch in range(3):
        sample = evaluation[epoch, 0]
        assert sample.change == Change()
        np.testing.assert_array_equal(
            sample.report.input_ids, tokenizer.encode(reports[0], load_region_table()).input_ids
        )


def load(cases: tuple[Case, ...], config: Config, tokenizer: ReportTokenizer, first_step: int = 0) -> list[Batch]:
    dataset = make_dataset(cases, config, tokenizer, config.augment)
    by_kind = {kind: [i for i, case in enumerate(cases) if case.kind == kind] for kind in ("volume", "slice")}
    order = MicroBatchOrder(
        by_kind,
        batch_size=4,
        accumulation_steps=1,
        rank=0,
        world_size=1,
        seed=0,
        first_step=first_step,
        num_epochs=2,
    )
    return list(training_loader(dataset, order, config))


def test_workers_change_nothing_in_the_batches(
    cases: tuple[Case, ...], config: Config, tokenizer: ReportTokenizer, phantom_data: tuple[str, ...]
):
    alone = load(cases, config, tokenizer)
    shared = load(cases, tiny_config(*phantom_data, "data.num_workers=2"), tokenizer)
    assert len(alone) == len(shared) > 10
    for one, other in zip(alone, shared, strict=True):
        assert_equal_batches(one, other)
    assert {batch.kind for batch in alone} == {"volume", "slice"}
    for one, other in zip(load(cases, config, tokenizer, first_step=7), alone[7:], strict=True):
        assert_equal_batches(one, other)


def test_evaluation_takes_the_cases_as_they_come(cases: tuple[Case, ...], config: Config, tokenizer: ReportTokenizer):
    volumes = [i for i, case in enumerate(cases) if case.kind == "volume"][:7]
    dataset = make_dataset(cases, config, tokenizer, None)
    batches = list(
        evaluation_batches(dataset, [volumes[:3], volumes[3:6], volumes[6:]], Preprocess.from_config(config.preprocess))
    )
    assert [len(batch.case_ids) for batch in batches] == [3, 3, 1]
    assert [name for batch in batches for name in batch.case_ids] == [cases[i].case_id for i in volumes]


def test_a_batch_stacks_its_cases_and_pads_their_texts(
    cases: tuple[Case, ...], config: Config, tokenizer: ReportTokenizer
):
    dataset = make_dataset(cases, config, tokenizer, None)
    volumes = [i for i, case in enumerate(cases) if case.kind == "volume"][:3]
    samples = [dataset[0, i] for i in volumes]
    samples[1] = replace(samples[1], prepared=replace(samples[1].prepared, labels=None))
    batch = collate(samples, tokenizer.pad_id)
    assert batch.kind == "volume"
    assert batch.voxels.shape == (3, 8, 32, 32)
    assert batch.voxels.dtype == torch.int16
    assert batch.mask_given.tolist() == [True, False, True]
    assert batch.labels is not None
    assert not batch.labels[1].any()
    assert batch.labels[0].any()
    for row, sample in enumerate(samples):
        np.testing.assert_array_equal(batch.voxels[row].numpy(), sample.prepared.voxels_hu)
        np.testing.assert_allclose(batch.spacing_mm[row].numpy(), sample.prepared.spacing_mm, rtol=1e-6)
        length = len(sample.report.input_ids)
        np.testing.assert_array_equal(batch.input_ids[row, :length].numpy(), sample.report.input_ids)
        assert not batch.attention_mask[row, length:].any()
        assert bool(batch.region_mentions[row].equal(torch.from_numpy(sample.report.region_mentions)))


def test_lesions_of_slices_are_no_regions(cases: tuple[Case, ...], config: Config, tokenizer: ReportTokenizer):
    dataset = make_dataset(cases, config, tokenizer, None)
    slices = [i for i, case in enumerate(cases) if case.kind == "slice"][:2]
    samples = [dataset[0, i] for i in slices]
    assert any(sample.prepared.labels is not None for sample in samples)
    batch = collate(samples, tokenizer.pad_id)
    assert batch.labels is None
    assert batch.mask_given.tolist() == [False, False]
    assert batch.voxels.dtype == torch.uint8


def test_moving_a_batch_keeps_its_content(cases: tuple[Case, ...], config: Config, tokenizer: ReportTokenizer):
    batch = collate([make_dataset(cases, config, tokenizer, None)[0, 0]], tokenizer.pad_id)
    assert_equal_batches(batch.to(torch.device("cpu")), batch)


def test_a_case_that_is_not_prepared_is_named(
    cases: tuple[Case, ...], config: Config, tokenizer: ReportTokenizer, tmp_path: Path
):
    elsewhere = replace(config, data=replace(config.data, cache_dir=str(tmp_path)))
    with pytest.raises(Exception, match="The case has not been prepared"):
        make_dataset(cases, elsewhere, tokenizer, None)[0, 0]


def test_some_sentences_are_whole_sentences_of_the_report_each_at_most_once():
    sentences = ["The heart is normal.", "A 1.2 cm nodule is seen.", "No pleural effusion.", "The aorta is calcified."]
    report = Report(question="What is seen?", answer=" ".join(sentences))
    counts, orders = set(), set()
    for i in range(200):
        chosen = some_sentences(report, random_stream(0, "test", i))
        kept = [sentence for sentence in sentences if sentence in chosen.answer]
        assert chosen.question == report.question
        assert sorted(chosen.answer.split()) == sorted(" ".join(kept).split())
        counts.add(len(kept))
        orders.add(chosen.answer)
    assert counts == {1, 2, 3, 4}
    assert len(orders) > 30, "sentences come in random order"


def test_reasoning_steps_are_drawn_too_with_their_entities():
    steps = (Step(text="Look at the lung bases.", entities=("left lower lobe",)), Step(text="A 1.2 cm nodule is seen."))
    report = Report(question="What?", answer="A 1.2 cm nodule is seen. No pleural effusion.", steps=steps)
    drawn = [some_sentences(report, random_stream(0, "test", i)) for i in range(100)]
    assert {step for some in drawn for step in some.steps} == {*steps, Step(text="No pleural effusion.")}
    for some in drawn:
        assert all(step.text in some.answer for step in some.steps)
        assert some.answer.count("nodule") <= 1, "a step that the answer repeats is one sentence"


def test_drawn_sentences_stay_sentences_of_their_own_without_stops_and_with_equal_words():
    answer = "- No pleural effusion\n- Cardiomegaly\n- Liver cyst"
    for i in range(50):
        some = some_sentences(Report(question="", answer=answer), random_stream(0, "test", i))
        assert len(split_sentences(some.answer)) == len(some.steps)
    steps = (Step(text="It looks normal.", entities=("heart",)), Step(text="It looks normal.", entities=("liver",)))
    report = Report(question="", answer="It looks normal. It looks normal.", steps=steps)
    for i in range(20):
        some = some_sentences(report, random_stream(0, "test", i))
        assert set(some.steps) <= set(steps)
        assert len(set(some.steps)) == len(some.steps)


def test_sentences_are_drawn_anew_in_every_epoch_and_never_in_evaluation(
    cases: tuple[Case, ...], config: Config, tokenizer: ReportTokenizer
):
    training = make_dataset(cases, config, tokenizer, SOME_SENTENCES)
    whole = make_dataset(cases, config, tokenizer, None)
    lengths = {len(training[epoch, 0].report.input_ids) for epoch in range(12)}
    assert len(lengths) > 1
    assert {len(whole[epoch, 0].report.input_ids) for epoch in range(3)} == {
        max(lengths | {len(whole[0, 0].report.input_ids)})
    }


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)


def volumes_only(cases: Sequence[Case], *, rank: int = 0, ranks: int = 1) -> MicroBatchOrder:
    volumes = {"volume": [i for i, case in enumerate(cases) if case.kind == "volume"]}
    return MicroBatchOrder(
        volumes, batch_size=2, accumulation_steps=1, rank=rank, world_size=ranks, seed=0, first_step=0, num_epochs=1
    )


@pytest.fixture
def damaged(config: Config, cases: tuple[Case, ...], tmp_path: Path) -> Config:
    """The configuration with a cache of its own, in which every entry is damaged."""
    copy = replace(config, data=replace(config.data, cache_dir=str(tmp_path), pin_memory=False))
    for case in cases:
        target = open_cache(copy).path(case.case_id, case.kind)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(open_cache(config).path(case.case_id, case.kind).read_bytes())
        damage(target)
    return copy


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_entry_is_made_again_from_its_source(
    cases: tuple[Case, ...],
    config: Config,
    damaged: Config,
    tokenizer: ReportTokenizer,
    workers: int,
    capfd: pytest.CaptureFixture[str],
):
    damaged = replace(damaged, data=replace(damaged.data, num_workers=workers))
    order = volumes_only(cases)
    batches = list(training_loader(make_dataset(cases, damaged, tokenizer, None), order, damaged))
    expected = list(training_loader(make_dataset(cases, config, tokenizer, None), order, config))
    for one, other in zip(batches, expected, strict=True):
        assert_equal_batches(one, other)
    names = {case_id for batch in batches for case_id in batch.case_ids}
    assert capfd.readouterr().err.count("made again from its source") == len(names)
    assert all(open_cache(damaged).read(case) for case in cases if case.case_id in names)


def test_an_evaluation_makes_a_damaged_entry_again(
    cases: tuple[Case, ...], config: Config, damaged: Config, tokenizer: ReportTokenizer
):
    preprocess = Preprocess.from_config(config.preprocess)
    for one, other in zip(
        evaluation_batches(make_dataset(cases, damaged, tokenizer, None), [[0, 1], [2]], preprocess),
        evaluation_batches(make_dataset(cases, config, tokenizer, None), [[0, 1], [2]], preprocess),
        strict=True,
    ):
        assert_equal_batches(one, other)


def test_an_entry_that_another_folders_case_of_the_same_name_has_taken_is_made_again(
    cases: tuple[Case, ...], config: Config, tokenizer: ReportTokenizer, tmp_path: Path
):
    own = replace(config, data=replace(config.data, cache_dir=str(tmp_path / "cache")))
    preprocess, cache = Preprocess.from_config(config.preprocess), open_cache(own)
    first, second = (case for case in cases[:2] if case.kind == "volume")
    namesake = replace(second, case_id=first.case_id)  # as if from another folder
    prepare_case(first, preprocess=preprocess, cache=cache)
    prepare_case(namesake, preprocess=preprocess, cache=cache)
    with pytest.raises(DataError, match=r"cache-other-sources"):
        cache.read(first)
    dataset = make_dataset([first], own, tokenizer, None)
    expected = make_dataset([first], config, tokenizer, None)[0, 0]
    assert_equal_samples(read_sample(dataset, (0, 0), preprocess), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_without_a_source_keeps_its_file_and_remedy_out_of_a_worker(
    cases: tuple[Case, ...], damaged: Config, tokenizer: ReportTokenizer, tmp_path: Path, workers: int
):
    lost = [replace(case, image_paths=(tmp_path / "gone.nii.gz",)) for case in cases]
    dataset = make_dataset(lost, damaged, tokenizer, None)
    damaged = replace(damaged, data=replace(damaged.data, num_workers=workers))
    with pytest.raises(DataError, match=r"\.ct: checksum = differs.*vlm3d-ct prepare"):
        next(training_loader(dataset, volumes_only(cases), damaged))


def test_batches_that_are_kept_are_never_overwritten(
    cases: tuple[Case, ...], config: Config, tokenizer: ReportTokenizer
):
    """More batches than there are slots, held whole, as parts, and not at all: whoever holds one keeps its content."""
    dataset = make_dataset(cases, config, tokenizer, None)
    shared = replace(config, data=replace(config.data, num_workers=2, prefetch_factor=1, pin_memory=False))
    number_of = {case.case_id: number for number, case in enumerate(cases)}
    kept: list[tuple[str, Tensor]] = []
    for number, batch in enumerate(training_loader(dataset, volumes_only(cases), shared)):
        if number % 3 == 0:
            kept.append((batch.case_ids[1], batch.voxels[1, 2:]))  # a view only, the batch is gone
        elif number % 3 == 1:
            kept.append((batch.case_ids[0], batch.voxels[0]))
    assert len(kept) > 5
    for case_id, voxels in kept:
        whole = dataset[0, number_of[case_id]].prepared.voxels_hu
        np.testing.assert_array_equal(voxels.numpy(), whole[-len(voxels) :])


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_ranks_and_workers_load_the_same_global_order(
    cases: tuple[Case, ...], config: Config, tokenizer: ReportTokenizer, workers: int
):
    config = replace(config, data=replace(config.data, num_workers=workers, pin_memory=False))
    dataset = make_dataset(cases, config, tokenizer, config.augment)
    of_rank = [
        [batch.case_ids for batch in training_loader(dataset, volumes_only(cases, rank=rank, ranks=2), config)]
        for rank in (0, 1)
    ]
    steps = [[*first, *second] for first, second in zip(*of_rank, strict=True)]
    volumes = [i for i, case in enumerate(cases) if case.kind == "volume"]
    assert steps == [[cases[i].case_id for i in step] for step in epoch_order({"volume": volumes}, 4, 0, 0)]


CRASHES = """
import sys
from tiny import tiny_config, tiny_tokenizer
from vlm3d_ct.data.cohort import find_cohort
from vlm3d_ct.data.dataset import CaseDataset, open_cache, training_loader
from vlm3d_ct.data.order import MicroBatchOrder
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.text.tokenize import ReportTokenizer
config = tiny_config(*sys.argv[1:], "data.num_workers=1")
cases = [case for case in find_cohort(config).training if case.kind == "volume"]
dataset = CaseDataset(cases, open_cache(config), ReportTokenizer(tiny_tokenizer(), 96), load_region_table(), None, 0)
order = MicroBatchOrder(
    {"volume": range(len(cases))},
    batch_size=2, accumulation_steps=1, rank=0, world_size=1, seed=0, first_step=0, num_epochs=1,
)
batches = training_loader(dataset, order, config)
next(batches)
raise RuntimeError("unexpected")
"""


def test_an_unexpected_error_ends_the_process_and_its_workers(cases: tuple[Case, ...], phantom_data: tuple[str, ...]):
    tests = Path(__file__).parents[2]
    crashed = subprocess.run(
        [sys.executable, "-c", CRASHES, *phantom_data],
        env={**os.environ, "PYTHONPATH": str(tests)},
        capture_output=True,
        text=True,
        timeout=120,  # without an end of the workers it would take for ever
        check=False,
    )
    assert crashed.returncode == 1
    assert "RuntimeError: unexpected" in crashed.stderr
