from __future__ import annotations

import math

import numpy as np
import pytest

from vlm3d_ct.evaluation.metrics import ranking
from vlm3d_ct.evaluation.metrics.ct_clip import report_to_volume, volume_to_volume
from vlm3d_ct.seeding import random_stream


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def top(values: list[float], k: int) -> list[int]:
    """As CT-CLIP's `find_top_k_indices`: a stable sort, largest first."""
    return [index for index, _ in sorted(enumerate(values), key=lambda pair: pair[1], reverse=True)[:k]]


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    either = int((first | second).sum())
    return int((first & second).sum()) / either if either else 1.0


def made_up(count: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    stream = random_stream("ct clip")
    volume = np.round(unit(stream.normal(size=(count, 6))) * 8) / 8  # coarse, so that similarities tie
    volume[volume.any(axis=1) == 0] = 0.25
    volume = np.where(np.linalg.norm(volume, axis=1, keepdims=True) > 1.3, volume / 2, volume).astype(np.float32)
    text = np.roll(volume, 1, axis=1).astype(np.float32)
    labels = stream.random((count, 5)) < 0.25
    return volume, text, labels


def test_compatible_recall_is_what_the_published_code_computes():
    volume, text, _ = made_up(120)
    found = report_to_volume(volume, text, np.arange(120))["compatible"]
    similarity = text.astype(float) @ volume.T.astype(float)
    for k in (5, 10, 50, 100):
        hits = sum(query in top(similarity[query].tolist(), k) for query in range(120))
        assert found[f"R@{k}"] == pytest.approx(hits / 120, abs=1e-12)


def test_corrected_recall_takes_identical_texts_as_right_and_ties_as_wrong():
    stream = random_stream("corrected")
    volume = unit(stream.normal(size=(40, 8)))
    text = volume.copy()
    text[1::2] = text[::2]  # reconstructions share their text
    found = report_to_volume(volume, text, np.arange(40) // 2)
    assert found["corrected"]["R@5"] == 1.0
    same = unit(np.ones((40, 8)))
    collapsed = report_to_volume(same, same, np.arange(40))
    assert collapsed["compatible"]["R@5"] == 5 / 40  # the earlier index wins
    assert collapsed["corrected"]["R@5"] == 0.0


@pytest.mark.parametrize("block", [1 << 23, 130])
def test_volume_to_volume_equals_naive_code(monkeypatch: pytest.MonkeyPatch, block: int):
    monkeypatch.setattr(ranking, "BLOCK_ELEMENTS", block)
    volume, _, labels = made_up(60)
    patients = np.arange(60) // 3
    found = volume_to_volume(volume, labels, patients)
    similarity = volume.astype(float) @ volume.T.astype(float)
    gallery = [i for i in range(60) if labels[i].any()]
    seen: list[float] = []
    for k in (1, 5, 10, 50):
        for query in range(60):
            nearest = [gallery[i] for i in top([similarity[query, j] for j in gallery], k)]
            seen.append(float(np.mean([jaccard(labels[query], labels[i]) for i in nearest])))
        assert found["compatible"][f"MAP@{k}"] == pytest.approx(np.mean(seen), abs=1e-12)
        own = []
        for query in range(60):
            others = [i for i in range(60) if patients[i] != patients[query]]
            nearest = [others[i] for i in top([similarity[query, j] for j in others], k)]
            own.append(np.mean([jaccard(labels[query], labels[i]) for i in nearest]))
        assert found["corrected"][f"MAP@{k}"] == pytest.approx(np.mean(own), abs=1e-12)


def test_a_gallery_without_volumes_gives_no_number():
    volume = unit(np.eye(3, 4))
    found = volume_to_volume(volume, np.zeros((3, 2), bool), np.zeros(3, np.int64))
    assert all(math.isnan(value) for variant in found.values() for value in variant.values())
    alone = volume_to_volume(volume[:1], np.ones((1, 2), bool), np.zeros(1, np.int64))
    assert alone["compatible"]["MAP@1"] == 1.0  # the query finds itself
    assert math.isnan(alone["corrected"]["MAP@1"])
