"""A run's account of itself: what each logged step is told with, what is warned of, and the summary at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from vlm3d_ct.config import Config
from vlm3d_ct.log import say, warn
from vlm3d_ct.models import VisionLanguageModel
from vlm3d_ct.objectives import ContrastiveObjective
from vlm3d_ct.training.gradients import gradient_norms, parts_of
from vlm3d_ct.training.health import CollapseAlarm, PairWatch
from vlm3d_ct.training.keeper import Kept
from vlm3d_ct.training.summary import summarise, write_summary
from vlm3d_ct.training.totals import Pace, Totals


class Account:
    """Watches the steps of a run; made before the first one, on every rank.

    Args:
        config: of the stage.
        model: as it is trained, sharded or not.
        objective: that computes the losses.
        steps_per_epoch: of the run.
        pairs: of a step, over all ranks.
    """

    def __init__(
        self,
        config: Config,
        model: VisionLanguageModel,
        objective: ContrastiveObjective,
        *,
        steps_per_epoch: int,
        pairs: int,
    ):
        self.config, self.pairs = config, pairs
        self.parts = parts_of(model, objective)
        self.totals = Totals()
        self._watch, self._pace = PairWatch(objective), Pace()
        self._alarm = CollapseAlarm(config.training.num_epochs * steps_per_epoch / 2, pairs)

    def gradient_norms(self, loss_scale: Float[Tensor, ""]) -> dict[str, float]:
        """Before clipping, and without the scale of fp16; all ranks call this together."""
        norms = torch.stack(list(gradient_norms(self.parts).values())) / loss_scale
        return {f"grad_norm_{name}": norm for name, norm in zip(self.parts, norms.tolist(), strict=True)}

    def count(self, step_seconds: float, wait_seconds: float, taken: bool, steps_left: int) -> None:
        """Add a step up; after the first ones, say how long the rest takes."""
        self.totals.count(step_seconds, wait_seconds, taken)
        if (estimate := self._pace.after_step(step_seconds, steps_left)) is not None:
            say(estimate)

    def observe(self, step: int) -> dict[str, float]:
        """What is logged of the last step's embeddings, and the steps skipped so far; a collapse is warned of."""
        measured = self._watch.measure()
        for warning in self._alarm(step, measured):
            warn(warning)
        return {**measured, "skipped_steps": float(self.totals.skipped_steps)}

    def finish(self, kept: Sequence[Kept], steps: int, output_dir: Path, device: torch.device) -> None:
        """Write and say the summary of the whole run.

        Raises:
            ConfigError: it cannot be written.
        """
        summary = summarise(
            self.config, self.totals, kept, steps=steps, pairs=self.pairs, output_dir=output_dir, device=device
        )
        write_summary(summary, output_dir)
