from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from vlm3d_ct.evaluation import probe as probe_module
from vlm3d_ct.evaluation.metrics.binary import auroc, average_precision
from vlm3d_ct.evaluation.probe import (
    STRENGTHS,
    AttentiveProbe,
    Labelled,
    LinearProbe,
    choose_share,
    choose_strength,
    measure_probe,
)
from vlm3d_ct.seeding import random_stream


def made_up(count: int = 200, seed: int = 0, token: int = 0) -> Labelled:
    """Three classes; two are read off one token linearly, the third is noise. Two cases a patient."""
    stream = random_stream("probe", seed)
    tokens = stream.normal(size=(count, 5, 8)).astype(np.float32)
    labels = np.stack([tokens[:, token, 0] > 0, tokens[:, token, 1] > 0.5, stream.random(count) < 0.5], axis=1)
    patients = tuple(f"{seed}_{number // 2}" for number in range(count))
    return Labelled(tokens=tokens, labels=labels.astype(np.int8), patient_ids=patients)


def measure(kind: str, fit_on: Labelled, test: Labelled, share: float = 1.0, **changes: int):
    return measure_probe(kind, fit_on, test, ("a", "b", "c"), share, **({"num_samples": 20, "seed": 0} | changes))


def test_the_linear_probe_is_a_standardised_logistic_regression(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probe_module, "STRENGTHS", (0.01,))
    cases = made_up()
    features = cases.tokens[:, 0].astype(float)
    logits = LinearProbe().fit(cases).decision_function(cases.tokens[:20])
    scaler = StandardScaler().fit(features)
    for column in range(3):
        expected = LogisticRegression(C=0.01, max_iter=2000).fit(scaler.transform(features), cases.labels[:, column])
        found = expected.decision_function(scaler.transform(features[:20]))
        np.testing.assert_allclose(logits[:, column], found, atol=1e-9)


def test_the_penalty_is_strong_where_there_is_nothing_to_learn_and_weak_where_there_is():
    stream = random_stream("strength")
    features, patients = stream.normal(size=(300, 20)), [f"p{i // 3}" for i in range(300)]
    noise, signal = stream.random(300) < 0.5, features[:, 0] > 0
    assert choose_strength(features, noise, patients) < choose_strength(features, signal, patients)
    assert choose_strength(features, signal, patients) == max(STRENGTHS)


def test_the_penalty_is_chosen_on_other_patients():
    """Every patient has a mark of its own that tells the label: only by other patients it is seen to teach nothing."""
    patient = np.repeat(np.arange(60), 5)
    present = (random_stream("marks").random(60) < 0.5)[patient]
    assert choose_strength(np.eye(60)[patient], present, [f"p{number}" for number in patient]) == min(STRENGTHS)


def test_too_few_patients_give_the_default_penalty():
    present = np.array([True, True, False, False, False, False, False, False])
    assert choose_strength(np.eye(8), present, list("aabbccdd")) == probe_module.DEFAULT_STRENGTH


@pytest.mark.parametrize(
    ("kind", "token", "found"),
    [("linear", 0, True), ("linear", 3, False), ("attentive", 0, True), ("attentive", 3, True)],
)
def test_a_probe_finds_what_its_tokens_hold(kind: str, token: int, found: bool):
    result = measure(kind, made_up(400, 0, token), made_up(200, 1, token))
    aurocs = [result.scored.classes[c].numbers["auroc"].estimate for c in "abc"]
    assert (aurocs[0] > 0.9) == found
    assert (aurocs[1] > 0.9) == found
    assert abs(aurocs[2] - 0.5) < 0.15
    assert (result.num_cases, result.num_classes) == (400, 3)
    assert result.macro["auroc"].estimate == pytest.approx(np.mean(aurocs), abs=1e-12)
    assert result.macro["auroc"].low < result.macro["auroc"].estimate < result.macro["auroc"].high


def test_a_share_is_the_mean_over_several_draws_of_patients():
    fit_on, test = made_up(200, 0), made_up(100, 1)
    result = measure("linear", fit_on, test, 0.1, num_draws=3)
    aurocs, precisions = [], []
    for draw in range(3):
        cases = fit_on.select(choose_share(fit_on.patient_ids, 0.1, 0, draw))
        logits = LinearProbe().fit(cases).decision_function(test.tokens)
        labels = test.labels == 1
        aurocs.append(np.mean([auroc(labels[:, c], logits[:, c]) for c in range(3)]))
        precisions.append(np.mean([average_precision(labels[:, c], logits[:, c]) for c in range(3)]))
    assert result.draws == pytest.approx(aurocs, abs=1e-9)
    assert len(set(aurocs)) == 3
    assert result.macro["auroc"].estimate == pytest.approx(np.mean(aurocs), abs=1e-9)
    assert result.macro["average_precision"].estimate == pytest.approx(np.mean(precisions), abs=1e-9)
    assert len(measure("linear", fit_on, test, 1.0, num_draws=3).draws) == 1


def test_attention_finds_what_stands_in_a_region_only():
    stream = random_stream("marked")
    labels = (stream.random((600, 1)) < 0.5).astype(np.int8)
    tokens = 0.3 * stream.normal(size=(600, 4, 8)).astype(np.float32)
    place = stream.integers(1, 4, 600)
    tokens[np.arange(600), place, 0] += 3.0 * labels[:, 0]  # in one of the regions, a different one each time
    cases = Labelled(tokens=tokens, labels=labels, patient_ids=tuple(map(str, range(600))))
    logits = AttentiveProbe().fit(cases.select(np.arange(400))).decision_function(tokens[400:])[:, 0]
    assert ((logits > 0) == (labels[400:, 0] == 1)).mean() > 0.9


@pytest.mark.parametrize("kind", ["linear", "attentive"])
def test_the_same_seed_gives_the_same_logits_to_the_bit(kind: str):
    fit_on, test = made_up(60, 0), made_up(40, 1)
    first, again = (measure(kind, fit_on, test, num_samples=0).margins for _ in range(2))
    np.testing.assert_array_equal(first, again)
    if kind == "attentive":
        assert not np.array_equal(first, measure(kind, fit_on, test, num_samples=0, seed=1).margins)


@pytest.mark.parametrize("probe", [LinearProbe(), AttentiveProbe(steps=60)], ids=["linear", "attentive"])
def test_unknown_labels_teach_nothing(probe: LinearProbe | AttentiveProbe):
    cases = made_up(200)
    cases.labels[:, 1] = 1  # one kind only
    cases.labels[:, 0] = -1
    logits = probe.fit(cases).decision_function(cases.tokens)
    np.testing.assert_allclose(logits[:, 0], 0.0, atol=1e-6)
    assert np.isfinite(logits).all()


def test_a_smaller_share_is_a_part_of_a_larger_one_and_keeps_patients_whole():
    patients = tuple(f"p{i // 3}" for i in range(300))
    small, medium, whole = (choose_share(patients, share, seed=0) for share in (0.01, 0.1, 1.0))
    assert (len(small), len(medium), len(whole)) == (3, 30, 300)
    assert set(small) < set(medium) < set(whole)
    assert len({patients[i] for i in medium}) == 10
    assert set(choose_share(patients, 0.1, seed=1)) != set(medium)
    assert set(choose_share(patients, 0.1, seed=0, draw=1)) != set(medium)
    assert len(choose_share(("a", "a"), 0.01, seed=0)) == 2
