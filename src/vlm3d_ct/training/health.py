"""Whether the embeddings of a step still use their space: a collapse looks like a low loss that teaches nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vlm3d_ct.health import measure_health
from vlm3d_ct.objectives import ContrastiveObjective

MOST_PAIRS = 256
"""Of a larger step as many, evenly spread, are measured: the singular values of more cost more than they tell."""
LEAST_PAIRS = 8
"""Fewer have no rank worth a warning."""
HIGHEST_MEAN_COSINE = 0.95
LOWEST_EFFECTIVE_RANK = 2.0
PATIENCE = 5
"""So many logged steps in a row are a collapse."""


class PairWatch:
    """Measures the volumes and texts that the objective saw last: those of the whole step, over all ranks."""

    def __init__(self, objective: ContrastiveObjective):
        self._objective, self._seen = objective, (torch.empty(0, 0), torch.empty(0, 0))
        objective.register_forward_pre_hook(self._note)

    def _note(self, _objective: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._seen = (inputs[0].detach(), inputs[1].detach())

    def measure(self) -> dict[str, float]:
        """Effective ranks, mean cosines, cosines of matched and of other pairs (see `vlm3d_ct.health`), logit scale."""
        volume, text = (_some(rows).float().cpu().numpy() for rows in self._seen)
        if not (np.isfinite(volume).all() and np.isfinite(text).all()):
            volume, text = volume[:0], text[:0]  # a step that is skipped has no health: all NaN
        health = measure_health(volume, text)
        return {
            "volume_effective_rank": health.volume_effective_rank,
            "text_effective_rank": health.text_effective_rank,
            "volume_mean_cosine": health.volume_mean_cosine,
            "text_mean_cosine": health.text_mean_cosine,
            "matched_cosine": health.matched_cosine,
            "unmatched_cosine": health.unmatched_cosine,
            "logit_scale": float(self._objective.scale.detach()),
        }


def _some(rows: Tensor) -> Tensor:
    return rows[:: max(1, -(-len(rows) // MOST_PAIRS))]


class CollapseAlarm:
    """Says once that a side has collapsed, and again after it had recovered.

    Encoders begin with everything alike, and may take a good part of a run to spread it out. A side that was spread and
    is alike again has collapsed; one that never was is warned of only when it is late.

    Args:
        late_step: from here on a side that was never spread counts as collapsed, too.
        pairs: of a step; with fewer than `LEAST_PAIRS` the alarm stays silent.
    """

    def __init__(self, late_step: float, pairs: int):
        self._late_step, self._pairs = late_step, pairs
        self._in_a_row = {"volume": 0, "text": 0}
        """Logged steps in which a side was alike; negative: in which it was spread."""
        self._was_spread = {"volume": False, "text": False}

    def __call__(self, step: int, measured: Mapping[str, float]) -> list[str]:
        """The warnings that these measurements of a logged step (see `PairWatch.measure`) call for."""
        if self._pairs < LEAST_PAIRS:
            return []
        warnings = []
        for side, name in (("volume", "volumes"), ("text", "reports")):
            cosine, rank = measured[f"{side}_mean_cosine"], measured[f"{side}_effective_rank"]
            if np.isnan(cosine) or np.isnan(rank):
                continue  # a skipped step says neither
            alike = cosine > HIGHEST_MEAN_COSINE or rank < LOWEST_EFFECTIVE_RANK
            counts, row = self._was_spread[side] or step > self._late_step, self._in_a_row[side]
            row = (max(row, 0) + 1 if counts else 0) if alike else min(row, 0) - 1
            self._in_a_row[side] = row
            self._was_spread[side] |= row == -PATIENCE
            if row == PATIENCE:
                what = "have collapsed" if self._was_spread[side] else "have never been told apart"
                warnings.append(
                    f"step {step}: the {name} {what}: for {PATIENCE} logged steps nearly all of them have had the same "
                    f"embedding (mean cosine {cosine:.3f}, effective rank {rank:.1f}). If the loss does not fall "
                    "either, start anew with a lower training.lr, a longer warm-up or more pairs per step."
                )
        return warnings
