"""Probes: what frozen embeddings hold, read out by small models that are fitted on labels of other patients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int8, Int64
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from vlm3d_ct.evaluation.class_rates import Patients, behind_ranking, count_behind_mean, mean_over_classes
from vlm3d_ct.evaluation.metrics.binary import auroc_weighted, average_precision_weighted
from vlm3d_ct.evaluation.metrics.bootstrap import Interval, interval, resample
from vlm3d_ct.evaluation.prompt_scores import probability
from vlm3d_ct.evaluation.zero_shot import FIXED_CUTS, Scored, measure_classes
from vlm3d_ct.inference import one_thread_each
from vlm3d_ct.seeding import derive_seed, random_stream

SHARES = (0.01, 0.1, 1.0)
"""Shares of the patients for fitting, for the label-efficiency curve; the smaller ones are parts of the larger."""
NUM_DRAWS = 5
"""Different patients that make a share below 1."""
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Values of scikit-learn's C to choose from: the inverse of the L2 penalty on standardised features."""
DEFAULT_STRENGTH = 1e-1
"""Where there are too few patients to choose."""
NUM_FOLDS = 3
MAX_TUNING_CASES = 4000
"""Of more cases, some patients choose C; the final fit takes all."""
LEARNING_RATE, WEIGHT_DECAY = 1e-2, 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """Cases with labels.

    Attributes:
        tokens: the global embedding of each scan, then those of its regions.
        labels: 1, 0, or -1 where unknown.
        patient_ids: of the cases.
    """

    tokens: Float32[np.ndarray, "n t d"]
    labels: Int8[np.ndarray, "n c"]
    patient_ids: tuple[str, ...]

    def select(self, rows: Int64[np.ndarray, " m"]) -> Labelled:
        """The cases of these rows."""
        patients = tuple(self.patient_ids[row] for row in rows)
        return Labelled(tokens=self.tokens[rows], labels=self.labels[rows], patient_ids=patients)


@runtime_checkable
class Probe(Protocol):
    """A small model in the manner of scikit-learn."""

    def fit(self, cases: Labelled) -> Probe:
        """Learn from cases."""

    def decision_function(self, tokens: Float32[np.ndarray, "n t d"]) -> Float64[np.ndarray, "n c"]:
        """The logit of every class."""


class LinearProbe:
    """For each class a logistic regression on the first token (the global embedding), standardised, with an L2 penalty.

    The penalty of a class has the smallest log loss in a cross-validation whose folds share no patient. A class whose
    known labels are all alike cannot be fitted; its logit is 0 for every case.
    """

    def fit(self, cases: Labelled) -> LinearProbe:
        """Learn from cases."""
        features = cases.tokens[:, 0].astype(np.float64)
        patients = np.asarray(cases.patient_ids)
        self.models: list[Pipeline | None] = []
        for column in cases.labels.T:
            known = column >= 0
            present = column[known] == 1
            if len(np.unique(present)) < 2:
                self.models.append(None)
                continue
            strength = choose_strength(features[known], present, patients[known].tolist())
            self.models.append(_regression(strength).fit(features[known], present))
        return self

    def decision_function(self, tokens: Float32[np.ndarray, "n t d"]) -> Float64[np.ndarray, "n c"]:
        """The logit of every class."""
        features = tokens[:, 0].astype(np.float64)
        nothing = np.zeros(len(features))
        columns = [nothing if model is None else model.decision_function(features) for model in self.models]
        logits: Float64[np.ndarray, "n c"] = np.stack(columns, axis=1)
        return logits


def choose_strength(
    features: Float64[np.ndarray, "n d"], present: Bool[np.ndarray, " n"], patient_ids: Sequence[str]
) -> float:
    """The C with the smallest log loss on patients that were not fitted on; of equals the smallest C."""
    rows = choose_share(patient_ids, min(1.0, MAX_TUNING_CASES / len(present)), 0)
    features, present, patients = features[rows], present[rows], np.asarray(patient_ids)[rows]
    if min(len(np.unique(patients[present == kind])) for kind in (True, False)) < NUM_FOLDS:
        return DEFAULT_STRENGTH
    losses = dict.fromkeys(STRENGTHS, 0.0)
    for fitted, held_out in StratifiedGroupKFold(NUM_FOLDS).split(features, present, patients):
        if len(np.unique(present[fitted])) < 2:
            return DEFAULT_STRENGTH
        for strength in STRENGTHS:
            model = _regression(strength).fit(features[fitted], present[fitted])
            probable = model.predict_proba(features[held_out])
            losses[strength] += log_loss(present[held_out], probable, labels=[False, True]) * len(held_out)
    return min(STRENGTHS, key=lambda strength: (round(losses[strength], 9), strength))


def _regression(strength: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))


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

    def fit(self, cases: Labelled) -> AttentiveProbe:
        """Learn from cases."""
        tokens, labels = cases.tokens, cases.labels
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
        num_cases: that it was fitted on, in the first draw of the share.
        num_classes: that it could be fitted for in the first draw: both kinds of label occur.
        macro: ``auroc`` and ``average_precision``: mean over the draws of the mean over the classes with positive and
            negative test cases; the interval is over the patients of the test, the draws stay.
        draws: macro AUROC of every draw; their spread says what the choice of patients makes.
        margins: logits of the test cases, first draw.
        scored: compared with their labels, first draw.
    """

    num_cases: int
    num_classes: int
    macro: Mapping[str, Interval]
    draws: tuple[float, ...]
    margins: Float64[np.ndarray, "n c"]
    scored: Scored


def make_probes(seed: int) -> dict[str, Probe]:
    """The probes by name."""
    return {"linear": LinearProbe(), "attentive": AttentiveProbe(seed=seed)}


def choose_share(patient_ids: Sequence[str], share: float, seed: int, draw: int = 0) -> Int64[np.ndarray, " m"]:
    """The cases of a share of the patients (at least one); in a draw, a smaller share is a part of a larger one."""
    patients = sorted(set(patient_ids))
    rank = {name: derive_seed(seed, "label share", draw, name) for name in patients}
    kept = set(sorted(patients, key=rank.__getitem__)[: max(1, round(share * len(patients)))])
    return np.array([i for i, name in enumerate(patient_ids) if name in kept], dtype=np.int64)


def measure_probe(
    kind: str,
    fit_on: Labelled,
    test: Labelled,
    names: Sequence[str],
    share: float,
    *,
    num_samples: int,
    seed: int,
    num_draws: int = NUM_DRAWS,
) -> ProbeResult:
    """Fit a probe on a share of the first cases and compare its logits on the test cases with their labels.

    Args:
        kind: a name of `make_probes`.
        fit_on: cases to fit on.
        test: cases of other patients.
        names: of the classes.
        share: of the patients to fit on, above 0, up to 1.
        num_samples: behind each interval; 0 for none.
        seed: of the shares, the probes and the samples.
        num_draws: of patients, for a share below 1.
    """
    margins = []
    chosen = [fit_on.select(choose_share(fit_on.patient_ids, share, seed, draw)) for draw in range(num_draws)]
    with _one_thread():
        for cases in chosen if share < 1 else chosen[:1]:
            margins.append(make_probes(seed)[kind].fit(cases).decision_function(test.tokens))
    samples = [
        _macro(margins, test, weights)
        for weights in (np.ones((1, len(test.labels))), *resample(test.patient_ids, num_samples, seed))
    ]
    together = {key: np.concatenate([found[key] for found in samples], axis=1) for key in samples[0]}
    counts = _count_behind(test)
    return ProbeResult(
        num_cases=len(chosen[0].labels),
        num_classes=sum(bool((column == 1).any() and (column == 0).any()) for column in chosen[0].labels.T),
        macro={
            key: interval(float(values[:, 0].mean()), values[:, 1:].mean(axis=0), counts[key])
            for key, values in together.items()
        },
        draws=tuple(together["auroc"][:, 0].tolist()),
        margins=margins[0],
        scored=measure_classes(
            names,
            margins[0],
            probability(margins[0]),
            test.labels,
            test.patient_ids,
            cuts=[FIXED_CUTS] * len(names),
            num_samples=num_samples,
            seed=seed,
        ),
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums are then taken in the same order on any number of cores, in torch, NumPy and scikit-learn."""
    with one_thread_each(torch.device("cpu")), threadpool_limits(1):
        yield


def _macro(
    margins: Sequence[Float64[np.ndarray, "n c"]], test: Labelled, weights: Float64[np.ndarray, "b n"]
) -> dict[str, Float64[np.ndarray, "draws b"]]:
    """Mean over the classes with positive and negative cases, of every draw in each of b samples."""
    known = test.labels >= 0
    by_draw = []
    for of_draw in margins:
        by_class = []
        for column in range(test.labels.shape[1]):
            rows = known[:, column]
            args = test.labels[rows, column] == 1, of_draw[rows, column], np.ascontiguousarray(weights[:, rows])
            areas = {"auroc": auroc_weighted(*args), "average_precision": average_precision_weighted(*args)}
            by_class.append(areas)
        by_draw.append(mean_over_classes(by_class))
    return {key: np.stack([found[key] for found in by_draw]) for key in by_draw[0]}


def _count_behind(test: Labelled) -> dict[str, int]:
    """The patients that the means over the classes rest on."""
    patients = Patients(test.patient_ids)
    behind = [behind_ranking(column, patients) for column in test.labels.T if {0, 1} <= set(column.tolist())]
    return {key: count_behind_mean([found[key] for found in behind]) for key in ("auroc", "average_precision")}
