"""Scans that nobody has described: read, embedded, and their embeddings in a file."""

from __future__ import annotations

import io
import json
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from vlm3d_ct.data.case import Case
from vlm3d_ct.data.load import load_and_preprocess
from vlm3d_ct.data.workers import map_cases
from vlm3d_ct.errors import DataError
from vlm3d_ct.inference.encoder import Encoder, ScanEmbedding
from vlm3d_ct.volumes.atomic import write_atomically
from vlm3d_ct.volumes.preprocess import Preprocess

FORMAT = "vlm3d-ct scans 1"


def embed_scans(
    encoder: Encoder, cases: Sequence[Case], workers: int
) -> Generator[tuple[Case, ScanEmbedding | DataError], None, None]:
    """Each scan with its embeddings, or with what is wrong with its files, in order of completion.

    Args:
        encoder: of a checkpoint.
        cases: volumes; texts and labels are not needed.
        workers: processes that read while the encoder computes; 0 reads in this one.
    """
    task = partial(load_and_preprocess, preprocess=Preprocess.from_config(encoder.config.preprocess))
    for case, prepared in map_cases(task, cases, workers):
        yield case, prepared if isinstance(prepared, DataError) else encoder.embed_prepared(prepared)


def save_scans(path: Path, found: Mapping[str, ScanEmbedding], provenance: Mapping[str, str]) -> None:
    """Write the embeddings of at least one scan as ``.npz``; it appears whole or not at all.

    Its arrays, which `numpy.load` reads without pickle: ``names`` (n), ``volume`` (n d), ``regions`` (n r d),
    ``present`` (n r), and ``header``, the bytes of a JSON object with the format and the provenance.
    """
    header = json.dumps({"format": FORMAT, "provenance": dict(provenance)}, sort_keys=True)
    arrays = {
        "names": np.array(list(found)),
        "volume": np.stack([each.volume for each in found.values()]),
        "regions": np.stack([each.regions for each in found.values()]),
        "present": np.stack([each.present for each in found.values()]),
        "header": np.frombuffer(header.encode(), dtype=np.uint8),
    }
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, [file.getvalue()])
