"""Embeddings of whole pools: made once, shared among ranks, the same to the bit whatever their number."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import prod
from typing import Any, Literal

import numpy as np
import torch

from vlm3d_ct.config import Config, config_to_mapping
from vlm3d_ct.data.batch import Batch
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.dataset import CaseDataset, evaluation_batches
from vlm3d_ct.distributed import gather_objects, leaving_together, rank, world_size
from vlm3d_ct.embeddings import NO_TEXT_GROUP, EmbeddingKey, EmbeddingSet, EmbeddingStore
from vlm3d_ct.errors import Stopped
from vlm3d_ct.inference.device import autocast_for_inference, model_input, one_thread_each, to_numpy
from vlm3d_ct.inference.encoder import Encoder
from vlm3d_ct.log import progress, say
from vlm3d_ct.models import ModelInput, Representations, VisionLanguageModel
from vlm3d_ct.text.mentions import find_mentions
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.text.report import Report
from vlm3d_ct.volumes.preprocess import Preprocess

MaskUse = Literal["given", "predicted", "none"]
"""How region masks guide the encoder: ``given`` (predicted where a case has none), always ``predicted``, or ``none``:
every patch is told that it is background, and the region tokens see no patch."""
CPU_BATCH_VOXELS = 1 << 24
"""Largest batch on a CPU: one volume of 64x512x512. Several batches are embedded side by side there."""


def embed_cases(
    model: VisionLanguageModel,
    config: Config,
    dataset: CaseDataset,
    device: torch.device,
    provenance: dict[str, str],
    masks: MaskUse = "given",
    *,
    stopping: Callable[[], bool] = lambda: False,
) -> EmbeddingSet:
    """Embed all cases of a data set, shared among the ranks; every rank gets all of them, in the data set's order.

    The ranks share whole batches, and on a CPU every batch is embedded by one thread (several batches at a time): the
    embeddings are the same to the bit whatever the number of ranks and threads. The cases are prepared already. The
    model is put into evaluation mode and back.

    Raises:
        Stopped: ``stopping``, asked between batches, said yes on some rank; all ranks raise it.
        DataError: an entry is damaged and cannot be made again; the other ranks raise a `ConfigError`.
    """
    was_training = model.training
    model.eval()
    preprocess = Preprocess.from_config(config.preprocess)
    own = _batches(dataset.cases, _batch_size(config, device))[rank() :: world_size()]
    threads = torch.get_num_threads() if device.type == "cpu" else 1

    def embed(batch: Batch) -> dict[str, np.ndarray]:
        batch = batch.to(device)
        with torch.inference_mode(), autocast_for_inference(config, device):
            embedded, _ = model(guided(model_input(batch, config, dataset.table), masks))
        return _arrays(embedded, batch)

    parts: list[dict[str, np.ndarray]] = []
    with (
        leaving_together(),
        progress("Embedding", total=sum(map(len, own))) as ticker,
        one_thread_each(device),
        ThreadPoolExecutor(threads) as pool,
    ):
        for group in range(0, len(own), threads):
            if stopping():
                break
            numbers = own[group : group + threads]
            for part in pool.map(embed, list(evaluation_batches(dataset, numbers, preprocess))):
                parts.append(part)
                ticker.advance(len(part["volume"]))
    model.train(was_training)
    if any(gather_objects(stopping())):
        raise Stopped("stopped while embedding cases.")
    arrays = _in_order([number for numbers in own for number in numbers], parts)
    said = [bool(case.reports) for case in dataset.cases]
    arrays["text_groups"] = np.where(said, arrays["text_groups"], NO_TEXT_GROUP)
    return EmbeddingSet(
        case_ids=tuple(case.case_id for case in dataset.cases),
        patient_ids=tuple(case.patient_id for case in dataset.cases),
        **arrays,
        provenance=provenance,
    )


def _in_order(numbers: list[int], parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The parts of all ranks, joined in the order of the case numbers that they are of."""
    gathered = gather_objects((numbers, parts))
    order = np.argsort(np.concatenate([np.array(numbers, np.int64) for numbers, _ in gathered]))
    found = [part for _, parts_of_rank in gathered for part in parts_of_rank]
    return {name: np.concatenate([part[name] for part in found])[order] for name in found[0]}


def embedding_key(encoder: Encoder, cases: Sequence[Case], masks: MaskUse) -> EmbeddingKey:
    """What the embeddings of these cases depend on."""
    settings = config_to_mapping(encoder.config)
    files = [[*case.image_paths, *case.mask_paths] for case in cases]
    return EmbeddingKey(
        weights=encoder.provenance["checkpoint_weights_sha256"],
        settings=_hash_json([settings[part] for part in ("model", "text", "preprocess", "training")]),
        preprocessing=encoder.provenance["preprocessing_fingerprint"],
        cases=_hash_json([[case.kind, case.case_id, case.patient_id] for case in cases]),
        texts=_hash_json([[_read(report) for report in case.reports[:1]] for case in cases]),
        sources=_hash_json([[[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in paths] for paths in files]),
        masks=masks,
    )


def _read(report: Report) -> list[Any]:
    """What is stored of a report: its words, and the regions that are found in them."""
    found = find_mentions(report.answer, load_region_table())
    return [report.question, report.answer, [[sorted(sentence.regions), sentence.normal] for sentence in found]]


def embed_once(
    encoder: Encoder, dataset: CaseDataset, store: EmbeddingStore, *, masks: MaskUse = "given", recompute: bool = False
) -> EmbeddingSet:
    """The embeddings of a data set from the store, or made by all ranks and stored.

    Raises:
        DataError: the user named a file whose embeddings are stale or damaged, and did not ask to overwrite it.
    """
    key = embedding_key(encoder, dataset.cases, masks)
    found = None
    if not recompute:
        found, line = store.read(key)
        say(line)
    if gather_objects(found is not None)[0] and found is not None:
        return found
    provenance = {**encoder.provenance, **key.as_provenance()}
    embeddings = embed_cases(encoder.model, encoder.config, dataset, encoder.device, provenance, masks)
    if rank() == 0:
        store.write(embeddings)
    return embeddings


def _batches(cases: Sequence[Case], size: int) -> list[list[int]]:
    """The numbers of all cases in batches of one kind, slices first: the same whatever the number of ranks."""
    by_kind = [[i for i, case in enumerate(cases) if case.kind == kind] for kind in ("slice", "volume")]
    return [numbers[start : start + size] for numbers in by_kind for start in range(0, len(numbers), size)]


def _batch_size(config: Config, device: torch.device) -> int:
    if device.type != "cpu":
        return config.training.batch_size
    return max(1, min(config.training.batch_size, CPU_BATCH_VOXELS // prod(config.preprocess.size)))


def guided(inputs: ModelInput, masks: MaskUse) -> ModelInput:
    """The same input with its masks used as asked."""
    if masks == "given" or inputs.segmentation_mask is None:
        return inputs
    return replace(
        inputs,
        segmentation_mask=torch.zeros_like(inputs.segmentation_mask),
        mask_given=torch.full_like(inputs.mask_given, masks == "none"),
    )


def _hash_json(value: object) -> str:
    """SHA-256 of a value's JSON, its first 16 digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _arrays(embedded: Representations, batch: Batch) -> dict[str, np.ndarray]:
    """What is kept of a batch: no single sentences."""
    kept = ("volume", "text", "region_volume", "region_text")
    said = ("region_mentions", "region_groups", "text_groups")
    arrays = {name: to_numpy(getattr(embedded, name)) for name in kept}
    return arrays | {name: getattr(batch, name).cpu().numpy() for name in said}
