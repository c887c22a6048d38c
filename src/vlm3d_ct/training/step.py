"""One training step: the gradient of the whole step's loss, exact over ranks and micro-batches, then the update."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vlm3d_ct.config import Config
from vlm3d_ct.data.batch import Batch
from vlm3d_ct.distributed import gather, gather_with_gradient, sum_over_ranks, world_size
from vlm3d_ct.inference import model_input
from vlm3d_ct.models import ModelInput, Representations
from vlm3d_ct.models.dual import tokens_of
from vlm3d_ct.objectives import ContrastiveObjective, Losses, Targets
from vlm3d_ct.text.regions import RegionTable
from vlm3d_ct.training.gradients import clip_gradients


@dataclass
class MicroBatch:
    """What a step needs of a micro-batch.

    Attributes:
        model_input: for the model.
        targets: what the reports say.
        seed: of the dropout; the same in both passes of an accumulated step.
    """

    model_input: ModelInput
    targets: Targets
    seed: int


@dataclass
class StepLosses:
    """The losses of a step, over all ranks; scalars on the device."""

    total: Float[Tensor, ""]
    global_loss: Float[Tensor, ""]
    region_loss: Float[Tensor, ""]
    reasoning_loss: Float[Tensor, ""]
    sentence_loss: Float[Tensor, ""]
    sentence_region_loss: Float[Tensor, ""]
    occupancy_loss: Float[Tensor, ""]


def micro_batch(batch: Batch, config: Config, table: RegionTable, seed: int) -> MicroBatch:
    """A batch on the device as a step takes it; without the levels of single sentences where the objective has none."""
    inputs = model_input(batch, config, table)
    num_steps = inputs.step_regions.shape[1]
    targets = Targets(
        mentions=batch.region_mentions,
        groups=batch.region_groups,
        step_groups=batch.step_groups[:, :num_steps],
        step_places=batch.step_places[:, :num_steps],
        sentence_groups=batch.step_groups[:, : inputs.num_sentences],
        turned=tokens_of(inputs.opposite_steps, inputs.num_sentences).any(-1),
        sentence_regions=batch.step_regions[:, : inputs.num_sentences],
    )
    return MicroBatch(model_input=inputs, targets=targets, seed=seed)


def backward(
    model: nn.Module,
    objective: ContrastiveObjective,
    micro_batches: Sequence[MicroBatch],
    *,
    accumulation: Literal["exact", "naive"] = "exact",
    precision: str = "fp32",
    loss_scale: float | Tensor = 1.0,
) -> StepLosses:
    """Add the gradient of the whole step's loss to the parameters.

    All pairs of the step, over all ranks and micro-batches, are negatives of each other. Several micro-batches take two
    passes (GradCache, Gao et al. 2021): embed all without a graph, take the loss's gradient at the embeddings, then
    embed each again with a graph and pass that gradient on. The result is that of one large batch.

    Args:
        model: the dual encoder, possibly replicated over ranks.
        objective: the same on every rank.
        micro_batches: this rank's; the same number of the same size on every rank.
        accumulation: ``naive`` takes the mean of the micro-batches' own losses instead, for comparisons.
        precision: of the autocast.
        loss_scale: the gradient scaler's factor.
    """
    given = [micro.model_input.mask_given.sum() for micro in micro_batches]
    num_masks = sum_over_ranks(torch.stack(given).sum()).clamp(min=1)
    occupancy_factor = objective.config.occupancy_weight * world_size() / num_masks  # replicate() averages over ranks

    if accumulation == "naive":
        return _backward_each(model, objective, micro_batches, occupancy_factor, num_masks, precision, loss_scale)
    columns = zip(*(micro.targets.tensors() for micro in micro_batches), strict=True)
    targets = Targets(*(gather(torch.cat(column)) for column in columns))
    if len(micro_batches) == 1:
        embedded, occupancy_sum = embed(model, micro_batches[0], precision)
        losses = objective(*(gather_with_gradient(part) for part in embedded.tensors()), targets)
        ((losses.total + occupancy_factor * occupancy_sum) * loss_scale).backward()
        return _report(losses, occupancy_sum.detach(), num_masks, objective)

    with torch.no_grad():
        first_pass = [embed(model, micro, precision)[0].tensors() for micro in micro_batches]
    cached = [torch.cat(parts).requires_grad_() for parts in zip(*first_pass, strict=True)]
    losses = objective(*(gather_with_gradient(part) for part in cached), targets)
    (losses.total * loss_scale).backward()
    occupancy_total = torch.zeros_like(losses.total)
    start = 0
    for i, micro in enumerate(micro_batches):
        with _in_sync(model, last=i == len(micro_batches) - 1):
            embedded, occupancy_sum = embed(model, micro, precision)
            end = start + len(micro.model_input.input_ids)
            passed_on = [part.grad[start:end] for part in cached if part.grad is not None]
            auxiliary = occupancy_factor * occupancy_sum * loss_scale
            torch.autograd.backward((*embedded.tensors(), auxiliary), (*passed_on, torch.ones_like(auxiliary)))
        start = end
        occupancy_total += occupancy_sum.detach()
    return _report(losses, occupancy_total, num_masks, objective)


def _backward_each(
    model: nn.Module,
    objective: ContrastiveObjective,
    micro_batches: Sequence[MicroBatch],
    occupancy_factor: Tensor,
    num_masks: Tensor,
    precision: str,
    loss_scale: float | Tensor,
) -> StepLosses:
    """The mean of the micro-batches' own gradients: negatives are those of the same micro-batch, on all ranks."""
    found, occupancy_sums = [], []
    for i, micro in enumerate(micro_batches):
        with _in_sync(model, last=i == len(micro_batches) - 1):
            embedded, occupancy_sum = embed(model, micro, precision)
            targets = Targets(*(gather(part) for part in micro.targets.tensors()))
            losses = objective(*(gather_with_gradient(part) for part in embedded.tensors()), targets)
            mean = losses.total / len(micro_batches)
            ((mean + occupancy_factor * occupancy_sum) * loss_scale).backward()
        found.append(torch.stack(list(vars(losses).values())).detach())
        occupancy_sums.append(occupancy_sum.detach())
    means = Losses(*torch.stack(found).mean(0))
    return _report(means, torch.stack(occupancy_sums).sum(), num_masks, objective)


def _in_sync(model: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Gradients are averaged over the ranks with the last micro-batch only."""
    return nullcontext() if last or world_size() == 1 else model.no_sync()  # type: ignore[operator]


def embed(model: nn.Module, micro: MicroBatch, precision: str) -> tuple[Representations, Float[Tensor, ""]]:
    """Representations and summed occupancy loss; dropout depends on the micro-batch's seed only.

    Args:
        model: the dual encoder, possibly replicated over ranks.
        micro: what to embed.
        precision: of the autocast.
    """
    device = micro.model_input.input_ids.device
    torch.manual_seed(micro.seed)
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    with torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32"):
        embedded: tuple[Representations, Tensor] = model(micro.model_input)
    return embedded


def _report(
    losses: Losses, occupancy_sum: Float[Tensor, ""], num_masks: Tensor, objective: ContrastiveObjective
) -> StepLosses:
    occupancy = sum_over_ranks(occupancy_sum) / num_masks
    return StepLosses(
        total=losses.total.detach() + objective.config.occupancy_weight * occupancy,
        global_loss=losses.global_loss.detach(),
        region_loss=losses.region_loss.detach(),
        reasoning_loss=losses.reasoning_loss.detach(),
        sentence_loss=losses.sentence_loss.detach(),
        sentence_region_loss=losses.sentence_region_loss.detach(),
        occupancy_loss=occupancy,
    )


class Update:
    """Unscale, clip, step: or skip, on all ranks together, when the gradient is not finite."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        gradient_clip: float,
    ):
        self.parameters, self.optimizer, self.scaler, self.gradient_clip = parameters, optimizer, scaler, gradient_clip

    def loss_scale(self) -> Float[Tensor, ""]:
        """What the loss is to be multiplied with (1 without fp16)."""
        # `scale`, not `get_scale`: only the former makes a new scaler ready for `unscale_`
        return self.scaler.scale(torch.ones((), device=self.parameters[0].device))

    def is_calibrating(self) -> bool:
        """Whether the fp16 scaler can still give way: a gradient that only overflowed fits after some halvings."""
        return self.scaler.is_enabled() and self.scaler.get_scale() >= 1.0

    def __call__(self, learning_rate: float) -> tuple[float, bool]:
        """Take the step.

        Returns:
            The gradient norm before clipping, and whether the step was taken. The gradients are averaged over the
            ranks before, so that every rank sees the same norm and decides alike.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.scaler.unscale_(self.optimizer)
        norm = float(clip_gradients(self.parameters, self.gradient_clip))
        finite = norm < float("inf")  # False for NaN, too
        if finite or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)  # an enabled scaler looks for itself
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return norm, finite
