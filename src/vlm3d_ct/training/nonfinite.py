"""After a step without a finite gradient: what was not finite, and of which cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor, nn

from vlm3d_ct.distributed import gather_objects
from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.objectives.reasoning import NO_STEP
from vlm3d_ct.training.step import MicroBatch, StepLosses, embed

Cause = Literal["input", "embedding", "loss", "gradient"]
CAUSES: tuple[Cause, ...] = ("input", "embedding", "loss", "gradient")
"""In the order of the computation: the first one that is not finite explains those after it."""


@dataclass(frozen=True)
class Skip:
    """Why a step was skipped.

    Attributes:
        cause: the first thing in the step that was not finite.
        case_ids: the cases whose input or embedding it was; where every case's is finite, all of the step.
    """

    cause: Cause
    case_ids: tuple[str, ...]

    def __str__(self) -> str:
        cases = ", ".join(self.case_ids)
        return {
            "input": f"the voxels of {cases} are not finite",
            "embedding": f"the embeddings of {cases} are not finite",
            "loss": f"the loss is not finite though every embedding is; its cases: {cases}",
            "gradient": f"the gradient is not finite though the loss is; its cases: {cases}",
        }[self.cause]


def explain_skip(
    model: nn.Module,
    micro_batches: Sequence[MicroBatch],
    case_ids: Sequence[Sequence[str]],
    losses: StepLosses,
    precision: str,
) -> Skip:
    """Find the cause of a skipped step; all ranks call it together and get the same answer.

    Embeds the step's cases once more, under the same weights (the step was not taken) and the same dropout. That costs
    a forward pass, and only a skipped step pays for it.

    Args:
        model: as the step used it.
        micro_batches: this rank's.
        case_ids: of each micro-batch.
        losses: of the step.
        precision: of the autocast.
    """
    found: dict[Cause, list[str]] = {cause: [] for cause in CAUSES}
    for micro, ids in zip(micro_batches, case_ids, strict=True):
        with torch.no_grad():
            embedded, _ = embed(model, micro, precision)
        # texts of regions that are not mentioned, and of steps that are not there, are not used
        targets = micro.targets
        mentioned = embedded.region_text.masked_fill(~targets.mentions[:, :, None], 0.0)
        parts = [embedded.volume, embedded.text, embedded.region_volume, mentioned, embedded.step_volume]
        for sentences, used in (
            (embedded.step_text, targets.step_groups != NO_STEP),
            (embedded.sentence_text, targets.turned),
            (embedded.opposite_text, targets.turned),
            (embedded.sentence_region_text, targets.turned),
            (embedded.opposite_region_text, targets.turned),
        ):
            parts.append(sentences.masked_fill(~used[:, :, None], 0.0))
        finite = torch.stack([_finite_rows(part) for part in parts]).all(0)
        found["input"] += _names(ids, ~_finite_rows(micro.model_input.ct_volume))
        found["embedding"] += _names(ids, ~finite)
        found["gradient" if losses.total.isfinite() else "loss"] += ids
    of_all_ranks = gather_objects(found)
    for cause in CAUSES:
        cases = [case for of_rank in of_all_ranks for case in of_rank[cause]]
        if cases:
            return Skip(cause, tuple(cases))
    raise ValueError("a step without cases")


def _finite_rows(tensor: Shaped[Tensor, "b ..."]) -> Bool[Tensor, " b"]:
    return tensor.flatten(1).isfinite().all(1)


def _names(ids: Sequence[str], chosen: Bool[Tensor, " b"]) -> list[str]:
    return [name for name, wanted in zip(ids, chosen.tolist(), strict=True) if wanted]


def too_many_skips(skip: Skip, in_a_row: int, output_dir: Path) -> DataError:
    """The error that ends a run of which ``in_a_row`` steps were skipped, ``skip`` the last of them."""
    return DataError(
        Problem(
            code="not-finite",
            file=str(output_dir),
            field="gradient",
            value="NaN or infinite",
            message=f"{in_a_row} steps in a row had no finite gradient and were skipped; "
            f"cases of the last one: {', '.join(skip.case_ids)}; {skip.cause} not finite.",
            remedy="Look at these cases with `vlm3d-ct verify`, lower training.lr, or use --bf16.",
        )
    )
