"""Probes: what frozen embeddings hold, read out by small models that are fitted on labels of other patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int8, Int64
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from vlm3d_ct.evaluation.zero_shot import FIXED_CUTS, Scored, measure_classes, probability
from vlm3d_ct.seeding import derive_seed, random_stream

SHARES = (0.01, 0.1, 1.0)
"""Shares of the patients for fitting, for the label-efficiency curve; the smaller ones are parts of the larger."""
INVERSE_REGULARISATION = 1.0
LEARNING_RATE, WEIGHT_DECAY = 1e-2, 0.1
MARGIN_DIGITS = 6
"""Decimals of the logits that are kept: what the number of threads may change lies below."""


@runtime_checkable
class Probe(Protocol):
    """A small model in the manner of scikit-learn."""

    def fit(self, tokens: Float32[np.ndarray, "n t d"], labels: Int8[np.ndarray, "n c"]) -> Probe:
        """Learn from cases; labels are 1, 0, or -1 where unknown."""

    def decision_function(self, tokens: Float32[np.ndarray, "n t d"]) -> Float64[np.ndarray, "n c"]:
        """The logit of every class."""


class LinearProbe:
    """A logistic regression for each class on the first token (the global embedding), standardised, L2 with C = 1.

    A class whose known labels are all alike cannot be fitted; its logit is 0 for every case.
    """

    def fit(self, tokens: Float32[np.ndarray, "n t d"], labels: Int8[np.ndarray, "n c"]) -> LinearProbe:
        """Learn from cases; labels are 1, 0, or -1 where unknown."""
        features = tokens[:, 0].astype(np.float64)
        self.mean, self.scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
        standard = (features - self.mean) / self.scale
        self.weights = np.zeros((labels.shape[1], features.shape[1]))
        self.bias = np.zeros(labels.shape[1])
        for column in range(labels.shape[1]):
            known = labels[:, column] >= 0
            if len(np.unique(labels[known, column])) == 2:
                model = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=2000)
                model.fit(standard[known], labels[known, column])
                self.weights[column], self.bias[column] = model.coef_[0], model.intercept_[0]
        return self

    def decision_function(self, tokens: Float32[np.ndarray, "n t d"]) -> Float64[np.ndarray, "n c"]:
        """The logit of every class."""
        standard = (tokens[:, 0].astype(np.float64) - self.mean) / self.scale
        logits: Float64[np.ndarray, "n c"] = standard @ self.weights.T + self.bias
        return logits


class AttentiveProbe:
    """Attention over the global and the region embeddings, one query a class, then a linear layer.

    logit_c = w_c . sum_t softmax_t(q_c . x_t / sqrt(d) + p_ct) x_t + b_c, with x_t the standardised tokens and p_ct
    what the class expects of a place. AdamW on the mean cross-entropy of the known labels, a fixed number of steps.
    Within `inference.one_thread_each` it is the same to the bit on any number of cores.

    Args:
        seed: of the start and of the order of the batches.
        steps: of the optimisation.
        batch_size: cases of a step.
    """

    def __init__(self, seed: int = 0, steps: int = 600, batch_size: int = 256):
        self.seed, self.steps, self.batch_size = seed, steps, batch_size

    def fit(self, tokens: Float32[np.ndarray, "n t d"], labels: Int8[np.ndarray, "n c"]) -> AttentiveProbe:
        """Learn from cases; labels are 1, 0, or -1 where unknown."""
        width, num_classes = tokens.shape[2], labels.shape[1]
        self.mean = tokens.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
        self.scale = np.maximum(tokens.std(axis=(0, 1), dtype=np.float64), 1e-6).astype(np.float32)
        start = random_stream(self.seed, "attentive probe").normal(size=(num_classes, width)) / width**0.5
        self.query = nn.Parameter(torch.tensor(start, dtype=torch.float32))
        self.place = nn.Parameter(torch.zeros(num_classes, tokens.shape[1]))
        self.weight = nn.Parameter(torch.zeros(num_classes, width))
        self.bias = nn.Parameter(torch.zeros(num_classes))
        parameters = [self.query, self.place, self.weight, self.bias]
        optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        order = random_stream(self.seed, "attentive probe order")
        for _ in range(self.steps):
            rows = order.permutation(len(tokens))[: self.batch_size]
            target = torch.from_numpy(labels[rows].astype(np.float32))
            loss = nn.functional.binary_cross_entropy_with_logits(
                self._logits(tokens[rows]), target.clamp(min=0), reduction="none"
            )
            known = (target >= 0).float()
            optimizer.zero_grad()
            ((loss * known).sum() / known.sum().clamp(min=1)).backward()
            optimizer.step()
        return self

    def decision_function(self, tokens: Float32[np.ndarray, "n t d"]) -> Float64[np.ndarray, "n c"]:
        """The logit of every class."""
        with torch.no_grad():
            parts = [
                self._logits(tokens[begin : begin + self.batch_size]).numpy()
                for begin in range(0, len(tokens), self.batch_size)
            ]
        return np.concatenate(parts).astype(np.float64)

    def _logits(self, tokens: Float32[np.ndarray, "b t d"]) -> Tensor:
        standard = torch.from_numpy((tokens - self.mean) / self.scale)
        attention = torch.einsum("btd,cd->bct", standard, self.query) / standard.shape[-1] ** 0.5 + self.place
        pooled = torch.einsum("bct,btd->bcd", attention.softmax(-1), standard)
        return torch.einsum("bcd,cd->bc", pooled, self.weight) + self.bias


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeResult:
    """One probe fitted on one share of the patients.

    Attributes:
        num_cases: that it was fitted on.
        num_classes: that it could be fitted for: both kinds of label occur.
        margins: logits of the test cases.
        scored: compared with their labels.
    """

    num_cases: int
    num_classes: int
    margins: Float64[np.ndarray, "n c"]
    scored: Scored


def make_probes(seed: int) -> dict[str, Probe]:
    """The probes by name."""
    return {"linear": LinearProbe(), "attentive": AttentiveProbe(seed=seed)}


def choose_share(patient_ids: Sequence[str], share: float, seed: int) -> Int64[np.ndarray, " m"]:
    """The cases of a share of the patients (at least one); a smaller share is a part of a larger one."""
    patients = sorted(set(patient_ids))
    rank = {name: derive_seed(seed, "label share", name) for name in patients}
    kept = set(sorted(patients, key=rank.__getitem__)[: max(1, round(share * len(patients)))])
    return np.array([i for i, name in enumerate(patient_ids) if name in kept], dtype=np.int64)


def measure_probe(
    probe: Probe,
    fit_on: tuple[Float32[np.ndarray, "m t d"], Int8[np.ndarray, "m c"]],
    test: tuple[Float32[np.ndarray, "n t d"], Int8[np.ndarray, "n c"]],
    names: Sequence[str],
    patient_ids: Sequence[str],
    *,
    num_samples: int,
    seed: int,
) -> ProbeResult:
    """Fit a probe on the first cases and compare its logits on the test cases with their labels.

    Args:
        probe: not fitted yet.
        fit_on: tokens and labels (1, 0, -1 unknown) to fit on.
        test: tokens and labels of other patients.
        names: of the classes.
        patient_ids: of the test cases.
        num_samples: behind each interval; 0 for none.
        seed: of the samples.
    """
    tokens, labels = fit_on
    margins = np.round(probe.fit(tokens, labels).decision_function(test[0]), MARGIN_DIGITS)
    cuts: list[Mapping[str, float]] = [FIXED_CUTS] * len(names)
    return ProbeResult(
        num_cases=len(tokens),
        num_classes=sum(bool((column == 1).any() and (column == 0).any()) for column in labels.T),
        margins=margins,
        scored=measure_classes(
            names,
            margins,
            probability(margins),
            test[1],
            patient_ids,
            cuts=cuts,
            num_samples=num_samples,
            seed=seed,
        ),
    )
