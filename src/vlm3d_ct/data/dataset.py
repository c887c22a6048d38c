"""Prepared cases and their reports as samples; the loader around them."""

from __future__ import annotations

import signal
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vlm3d_ct.config import AugmentConfig, Config
from vlm3d_ct.data.augment import draw_change
from vlm3d_ct.data.batch import Batch, Change, Sample, collate
from vlm3d_ct.data.cache import Cache
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.order import MicroBatchOrder
from vlm3d_ct.errors import DataError
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.text.mirror import can_mirror, mirror_text
from vlm3d_ct.text.regions import RegionTable
from vlm3d_ct.text.report import Report
from vlm3d_ct.text.sentences import split_sentences
from vlm3d_ct.text.tokenize import EncodedReport, ReportTokenizer
from vlm3d_ct.volumes.preprocess import Preprocess


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
        prepared = self.cache.read(case.case_id, case.kind)
        which, change = 0, Change()
        if self.augment is not None:
            which = int(random_stream(self.seed, "report", epoch, case.kind, case.case_id).integers(len(case.reports)))
            can_flip = self._encode(number, which, mirrored=False)[1]
            change = draw_change(self.augment, case.kind, can_flip, self.seed, epoch, case.case_id)
            sentences = random_stream(self.seed, "sentences", epoch, case.kind, case.case_id)
            if sentences.random() < self.augment.sentence_probability:
                some = some_sentences(case.reports[which], sentences)
                return Sample(case.case_id, prepared, self._tokenize(some, mirrored=change.flip), change)
        report, _ = self._encode(number, which, mirrored=change.flip)
        return Sample(case.case_id, prepared, report, change)

    def _encode(self, number: int, which: int, *, mirrored: bool) -> tuple[EncodedReport, bool]:
        """The tokenised report and whether it could be mirrored, encoded once."""
        key = (number, which, mirrored)
        if key not in self._encoded:
            reports = self.cases[number].reports
            if not reports:  # evaluation reads cases without a text too
                return self.tokenizer.encode_text("", self.table), False
            report = reports[which]
            can_flip = can_mirror(f"{report.question} {report.answer}", self.table)
            self._encoded[key] = self._tokenize(report, mirrored=mirrored), can_flip
        return self._encoded[key]

    def _tokenize(self, report: Report, *, mirrored: bool) -> EncodedReport:
        if mirrored:
            report = Report(question=mirror_text(report.question), answer=mirror_text(report.answer))
        return self.tokenizer.encode(report, self.table)


def some_sentences(report: Report, random: np.random.Generator) -> Report:
    """The report with 1 to all of its answer's sentences, each number equally likely, in random order.

    Short texts teach what each sentence means, and a report that differs in every epoch cannot be learned by heart.
    """
    spans = split_sentences(report.answer)
    chosen = random.permutation(len(spans))[: random.integers(1, len(spans) + 1)]
    return Report(question=report.question, answer=" ".join(report.answer[slice(*spans[i])] for i in chosen))


class _FaultsReturned(Dataset[Sample | DataError]):
    """Hands a `DataError` on as a value: raised in a worker it would lose its file and its remedy on the way."""

    def __init__(self, dataset: CaseDataset):
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Sample | DataError:
        try:
            return self.dataset[key]
        except DataError as error:
            return error


def _collate_or_fault(items: Sequence[Sample | DataError], pad_id: int) -> Batch | DataError:
    faults = [problem for item in items if isinstance(item, DataError) for problem in item.problems]
    return DataError(faults) if faults else collate([item for item in items if isinstance(item, Sample)], pad_id)


def training_loader(dataset: CaseDataset, order: MicroBatchOrder, config: Config) -> Generator[Batch, None, None]:
    """This rank's micro-batches from the order's first step to the end of the run; closing it ends the workers.

    Raises:
        DataError: a prepared case is missing or damaged.
    """
    workers = config.data.num_workers
    loader: DataLoader[Any] = DataLoader(
        _FaultsReturned(dataset),
        batch_sampler=order,
        collate_fn=partial(_collate_or_fault, pad_id=dataset.tokenizer.pad_id),
        num_workers=workers,
        prefetch_factor=config.data.prefetch_factor if workers else None,
        pin_memory=config.data.pin_memory and torch.cuda.is_available(),
        worker_init_fn=_leave_signals_to_the_run,
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch


def _leave_signals_to_the_run(_worker: int) -> None:
    """Ctrl-C or a cluster's SIGTERM reach every process of a run; a worker ends when the run lets it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def evaluation_batches(dataset: CaseDataset, batches: Sequence[Sequence[int]]) -> DataLoader[Sample]:
    """Cases as they are: one `Batch` for each list of case numbers, which are of one kind."""
    return DataLoader(
        dataset,
        batch_sampler=[[(0, number) for number in numbers] for numbers in batches],
        collate_fn=partial(collate, pad_id=dataset.tokenizer.pad_id),
    )


def open_cache(config: Config) -> Cache:
    """The cache folder of a configuration's preprocessing."""
    return Cache(Path(config.data.cache_dir), Preprocess.from_config(config.preprocess).fingerprint)
