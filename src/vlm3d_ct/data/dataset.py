"""Prepared cases and their reports as samples; the loader around them."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Generator, Sequence
from functools import partial
from math import prod
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vlm3d_ct.config import AugmentConfig, Config
from vlm3d_ct.data.augment import draw_change
from vlm3d_ct.data.batch import Batch, Change, Sample, Stack, collate
from vlm3d_ct.data.cache import OTHER_SOURCES, Cache
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.order import MicroBatchOrder
from vlm3d_ct.data.prepare import prepare_case
from vlm3d_ct.data.slots import Filling, Request, RequestOrder, SlotBatch, Slots
from vlm3d_ct.data.stopping import SIGNALS
from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.log import warn
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.text.mirror import can_mirror, mirror_report
from vlm3d_ct.text.regions import RegionTable
from vlm3d_ct.text.report import Report, Step
from vlm3d_ct.text.sentences import join_texts, split_sentences
from vlm3d_ct.text.steps import step_spans
from vlm3d_ct.text.tokenize import EncodedReport, ReportTokenizer
from vlm3d_ct.volumes.preprocess import Preprocess

MOST_ENCODED = 8192
"""Encoded reports that a worker keeps: 24 KB each at 512 tokens, a third more with opposites. All come equally often:
it does not matter which."""


class CaseDataset(Dataset[Sample]):
    """Map-style: ``dataset[epoch, case number]``. What it returns depends on (seed, epoch, case) only.

    Args:
        cases: all cases, of both kinds.
        cache: where they are prepared.
        tokenizer: for the reports.
        table: the regions.
        augment: None reads the cases as they are, with their first report.
        seed: of the run.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        cache: Cache,
        tokenizer: ReportTokenizer,
        table: RegionTable,
        augment: AugmentConfig | None,
        seed: int,
    ):
        self.cases, self.cache, self.tokenizer, self.table = tuple(cases), cache, tokenizer, table
        self.augment, self.seed = augment, seed
        self._encoded: dict[tuple[int, int, bool], tuple[EncodedReport, bool]] = {}

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, number = key
        case = self.cases[number]
        prepared = self.cache.read(case)
        which, change = 0, Change()
        if self.augment is not None:
            which = int(random_stream(self.seed, "report", epoch, case.kind, case.case_id).integers(len(case.reports)))
            can_flip = self._encode(number, which, mirrored=False)[1]
            change = draw_change(self.augment, case, can_flip, self.seed, epoch)
            sentences = random_stream(self.seed, "sentences", epoch, case.kind, case.case_id)
            if sentences.random() < self.augment.sentence_probability:
                some = some_sentences(case.reports[which], sentences)
                return Sample(case.case_id, prepared, self._tokenize(some, mirrored=change.mirrors_words), change)
        report, _ = self._encode(number, which, mirrored=change.mirrors_words)
        return Sample(case.case_id, prepared, report, change)

    def _encode(self, number: int, which: int, *, mirrored: bool) -> tuple[EncodedReport, bool]:
        """The tokenised report and whether it could be mirrored; kept for the next epoch while there is room."""
        key = (number, which, mirrored)
        found = self._encoded.get(key)
        if found is None:
            reports = self.cases[number].reports
            if not reports:  # evaluation reads cases without a text too
                return self.tokenizer.encode_text("", self.table), False
            report = reports[which]
            can_flip = all(can_mirror(text, self.table) for text in self._read_texts(report))
            found = self._tokenize(report, mirrored=mirrored), can_flip
            if len(self._encoded) < MOST_ENCODED:
                self._encoded[key] = found
        return found

    def _read_texts(self, report: Report) -> list[str]:
        """What may be read of a report: steps that the answer does not repeat only where sentences are drawn."""
        drawn = self.augment is not None and self.augment.sentence_probability > 0
        more = [step.text for step in report.steps if drawn and step.text not in report.answer]
        return [f"{report.question} {report.answer}", *more]

    def _tokenize(self, report: Report, *, mirrored: bool) -> EncodedReport:
        return self.tokenizer.encode(mirror_report(report, self.table) if mirrored else report, self.table)


def some_sentences(report: Report, random: np.random.Generator) -> Report:
    """The report with 1 to all of its sentences, each number equally likely, in random order.

    They are those of the answer, and the reasoning steps that it does not repeat. Short texts teach what each sentence
    means, and a report that differs in every epoch cannot be learned by heart.
    """
    spans = step_spans(report.answer, report.steps)
    sentences = []
    for start, end in split_sentences(report.answer):
        entities = [entity for at, to, step in spans if at <= start < to for entity in step.entities]
        sentences.append(Step(text=report.answer[start:end], entities=tuple(entities)))
    sentences += [step for step in report.steps if step.text not in report.answer]
    order = random.permutation(len(sentences))[: random.integers(1, len(sentences) + 1)]
    chosen = tuple(sentences[i] for i in order)
    return Report(question=report.question, answer=join_texts([step.text for step in chosen]), steps=chosen)


class _MicroBatches(Dataset[Batch | SlotBatch | DataError]):
    """What a worker does: reads the cases of a request into their slot.

    A `DataError` is handed on as a value: raised in a worker it would lose its file and its remedy on the way.
    """

    def __init__(self, dataset: CaseDataset, slots: Slots | None, preprocess: Preprocess):
        self.dataset, self.slots, self.preprocess = dataset, slots, preprocess

    def __getitem__(self, request: Request) -> Batch | SlotBatch | DataError:
        slot, keys = request
        filling = Filling(self.slots, slot)
        stack = Stack(len(keys), self.dataset.tokenizer.pad_id, filling)
        problems: list[Problem] = []
        for key in keys:
            try:
                stack.add(read_sample(self.dataset, key, self.preprocess))
            except DataError as error:
                problems.extend(error.problems)
        if problems:
            return DataError(problems)
        return filling.pack(stack.batch())


def read_sample(dataset: CaseDataset, key: tuple[int, int], preprocess: Preprocess) -> Sample:
    """``dataset[key]``; an entry that the disk has damaged since it was prepared, or that a case of the same name from
    another folder has taken, is made again, once.

    Raises:
        DataError: the entry is missing, or is damaged and cannot be made again.
    """
    try:
        return dataset[key]
    except DataError as damaged:
        if any(problem.code not in {"cache-damaged", OTHER_SOURCES} for problem in damaged.problems):
            raise
        try:
            prepare_case(dataset.cases[key[1]], preprocess=preprocess, cache=dataset.cache)
        except (DataError, OSError) as error:
            more = error.problems if isinstance(error, DataError) else ()
            raise DataError([*damaged.problems, *more]) from None
        warn(f"made again from its source: {damaged}")
        return dataset[key]


def training_loader(dataset: CaseDataset, order: MicroBatchOrder, config: Config) -> Generator[Batch, None, None]:
    """This rank's micro-batches from the order's first step to the end of the run; closing it ends the workers.

    Raises:
        ConfigError: the machine's shared memory cannot hold what the workers read ahead.
        DataError: a prepared case is missing, or is damaged and cannot be made again.
    """
    data, workers = config.data, config.data.num_workers
    slots = None
    if workers:
        in_use = config.training.accumulation_steps + 1
        slots = Slots(workers * data.prefetch_factor + in_use, _largest_batch(config))
    loader: DataLoader[Any] = DataLoader(
        _MicroBatches(dataset, slots, Preprocess.from_config(config.preprocess)),
        sampler=RequestOrder(order, slots),
        batch_size=None,  # an item is a micro-batch
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=data.prefetch_factor if workers else None,
        pin_memory=data.pin_memory and torch.cuda.is_available(),
        worker_init_fn=partial(_begin_worker, run=os.getpid()),
    )
    items: Any = iter(loader)
    # Workers ignore SIGTERM, by which Python's own exit ends them: after an error that holds on to this frame it would
    # wait for them for ever.
    shut_down = items._shutdown_workers if workers else _nothing
    atexit.register(shut_down)
    try:
        for item in items:
            if isinstance(item, DataError):
                raise item
            yield item.attach() if isinstance(item, SlotBatch) else item
            del item
    finally:
        atexit.unregister(shut_down)
        shut_down()


def _nothing() -> None:
    pass


def _largest_batch(config: Config) -> int:
    """Bytes of a micro-batch's voxels and labels; a batch of slices has no labels."""
    volume, stack = 3 * prod(config.preprocess.size), prod(config.preprocess.slice_size)
    kinds = [volume] if config.data.omniabnorm_dir is None else [volume, stack]
    return config.training.batch_size * max(kinds)


def _as_it_is(item: Any) -> Any:
    return item


def _begin_worker(_worker: int, run: int) -> None:
    """Ctrl-C or a cluster's SIGTERM reach every process of a run; a worker ends when the run lets it, or is gone."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # before multiprocessing's own end (priority -5), which waits until somebody has read what the worker has sent
    Finalize(None, _leave_if_alone, args=(run,), exitpriority=0)


def _leave_if_alone(run: int) -> None:
    if os.getppid() != run:  # killed: nobody reads any more, and the other workers keep the pipe open
        os._exit(1)


def evaluation_batches(
    dataset: CaseDataset, batches: Sequence[Sequence[int]], preprocess: Preprocess
) -> Generator[Batch, None, None]:
    """Cases as they are: one `Batch` for each list of case numbers, which are of one kind.

    Raises:
        DataError: as `read_sample`.
    """
    for numbers in batches:
        samples = [read_sample(dataset, (0, number), preprocess) for number in numbers]
        yield collate(samples, pad_id=dataset.tokenizer.pad_id)


def open_cache(config: Config) -> Cache:
    """The cache folder of a configuration's preprocessing."""
    return Cache(Path(config.data.cache_dir), Preprocess.from_config(config.preprocess).fingerprint)
