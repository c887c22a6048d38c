from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from vlm3d_ct.evaluation.probe import AttentiveProbe, LinearProbe, choose_share, make_probes, measure_probe
from vlm3d_ct.inference import one_thread_each
from vlm3d_ct.seeding import random_stream


def made_up(count: int = 200, seed: int = 0, token: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes; two are read off one token linearly, the third is noise."""
    stream = random_stream("probe", seed)
    tokens = stream.normal(size=(count, 5, 8)).astype(np.float32)
    labels = np.stack([tokens[:, token, 0] > 0, tokens[:, token, 1] > 0.5, stream.random(count) < 0.5], axis=1)
    return tokens, labels.astype(np.int8)


def test_the_linear_probe_is_a_standardised_logistic_regression():
    tokens, labels = made_up()
    logits = LinearProbe().fit(tokens, labels).decision_function(tokens[:20])
    scaler = StandardScaler().fit(tokens[:, 0].astype(float))
    for column in range(3):
        expected = LogisticRegression(C=1.0, max_iter=2000).fit(scaler.transform(tokens[:, 0]), labels[:, column])
        np.testing.assert_allclose(
            logits[:, column], expected.decision_function(scaler.transform(tokens[:20, 0])), atol=1e-3
        )


@pytest.mark.parametrize(
    ("name", "token", "found"),
    [("linear", 0, True), ("linear", 3, False), ("attentive", 0, True), ("attentive", 3, True)],
)
def test_a_probe_finds_what_its_tokens_hold(name: str, token: int, found: bool):
    fit, test = made_up(400, 0, token), made_up(200, 1, token)
    patients = tuple(map(str, range(200)))
    result = measure_probe(make_probes(0)[name], fit, test, ("a", "b", "c"), patients, num_samples=20, seed=0)
    aurocs = [result.scored.classes[c].numbers["auroc"].estimate for c in "abc"]
    assert (aurocs[0] > 0.9) == found
    assert (aurocs[1] > 0.9) == found
    assert abs(aurocs[2] - 0.5) < 0.15
    assert (result.num_cases, result.num_classes) == (400, 3)


def test_attention_finds_what_stands_in_a_region_only():
    stream = random_stream("marked")
    labels = (stream.random((600, 1)) < 0.5).astype(np.int8)
    tokens = 0.3 * stream.normal(size=(600, 4, 8)).astype(np.float32)
    place = stream.integers(1, 4, 600)
    tokens[np.arange(600), place, 0] += 3.0 * labels[:, 0]  # in one of the regions, a different one each time
    probe = AttentiveProbe().fit(tokens[:400], labels[:400])
    logits = probe.decision_function(tokens[400:])[:, 0]
    assert ((logits > 0) == (labels[400:, 0] == 1)).mean() > 0.9


def test_the_attentive_probe_is_the_same_on_one_thread_to_the_bit():
    tokens, labels = made_up(60)
    with one_thread_each(torch.device("cpu")):
        first = AttentiveProbe(seed=3, steps=5).fit(tokens, labels).decision_function(tokens)
        again = AttentiveProbe(seed=3, steps=5).fit(tokens, labels).decision_function(tokens)
        other = AttentiveProbe(seed=4, steps=5).fit(tokens, labels).decision_function(tokens)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("probe", [LinearProbe(), AttentiveProbe(steps=60)], ids=["linear", "attentive"])
def test_unknown_labels_teach_nothing(probe: LinearProbe | AttentiveProbe):
    tokens, labels = made_up(200)
    labels[:, 1] = 1  # one kind only
    hidden = labels.copy()
    hidden[:, 0] = -1
    logits = probe.fit(tokens, hidden).decision_function(tokens)
    np.testing.assert_allclose(logits[:, 0], 0.0, atol=1e-6)
    assert np.isfinite(logits).all()


def test_a_smaller_share_is_a_part_of_a_larger_one_and_keeps_patients_whole():
    patients = tuple(f"p{i // 3}" for i in range(300))
    small, medium, whole = (choose_share(patients, share, seed=0) for share in (0.01, 0.1, 1.0))
    assert (len(small), len(medium), len(whole)) == (3, 30, 300)
    assert set(small) < set(medium) < set(whole)
    assert len({patients[i] for i in medium}) == 10
    assert set(choose_share(patients, 0.1, seed=1)) != set(medium)
    assert len(choose_share(("a", "a"), 0.01, seed=0)) == 2
