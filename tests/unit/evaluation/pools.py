"""Pools of made-up embeddings and cases for the tests of evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np

from vlm3d_ct.embeddings import EmbeddingSet
from vlm3d_ct.evaluation.examples import Example
from vlm3d_ct.seeding import random_stream


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def make_pool(num_cases: int = 12, noise: float = 1.0, **changes: Any) -> EmbeddingSet:
    stream = random_stream("pool", num_cases)
    text = stream.normal(size=(num_cases, 8))
    region_text = stream.normal(size=(num_cases, 4, 8))
    fields: dict[str, Any] = {
        "case_ids": tuple(f"valid_{i}_a_1" for i in range(num_cases)),
        "patient_ids": tuple(f"valid_{i}" for i in range(num_cases)),
        "volume": unit(text + noise * stream.normal(size=text.shape)),
        "text": unit(text),
        "text_groups": np.arange(num_cases),
        "region_volume": unit(region_text + noise * stream.normal(size=region_text.shape)),
        "region_text": unit(region_text),
        "region_mentions": stream.random((num_cases, 4)) < 0.7,
        "region_groups": np.arange(num_cases * 4).reshape(num_cases, 4),
        "provenance": {"checkpoint": "checkpoint_best.pth", "data": "made up"},
    }
    return EmbeddingSet(**(fields | changes))


def make_example(case_id: str, text: str = "The heart is enlarged.", *, labelled: bool = True) -> Example:
    stream = random_stream("example", case_id)
    labels = np.zeros((16, 24, 20), dtype=np.uint8)
    labels[4:9, 3:12, 5:15] = 8
    return Example(
        case_id=case_id,
        voxels_hu=stream.integers(-900, 300, size=labels.shape).astype(np.int16),
        labels=labels if labelled else None,
        spacing_mm=(5.0, 2.0, 2.0),
        text=text,
    )
