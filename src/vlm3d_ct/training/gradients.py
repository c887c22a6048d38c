"""Norms of gradients: of the whole, to clip it, and of each part of the model, to watch it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from vlm3d_ct.models import VisionLanguageModel

REGION_PATH = (
    "vision_encoder.region_embedding",
    "vision_encoder.occupancy_norm.",
    "vision_encoder.occupancy_head.",
    "vision_encoder.region_proj.",
    "text_encoder.region_projection.",
)
"""What only the regions use; the region tokens share their table with the global token and count to the encoder."""


def parts_of(model: VisionLanguageModel, objective: nn.Module) -> dict[str, list[nn.Parameter]]:
    """All trained parameters: of each encoder without the region path, of the region path, of the temperature."""
    parts: dict[str, list[nn.Parameter]] = {"vision_encoder": [], "text_encoder": [], "region_path": []}
    for name, parameter in ((n, p) for n, p in model.named_parameters() if p.requires_grad):
        parts["region_path" if name.startswith(REGION_PATH) else name.partition(".")[0]].append(parameter)
    return {**parts, "temperature": list(objective.parameters())}


def gradient_norms(parts: Mapping[str, Sequence[nn.Parameter]]) -> dict[str, Tensor]:
    """The Euclidean norm of each part's gradient; all ranks call this together, all get the same."""
    return dict(zip(parts, _norms(parts.values()), strict=True))


def clip_gradients(parameters: Sequence[nn.Parameter], largest_norm: float) -> Tensor:
    """Scale all gradients together so that their norm is at most ``largest_norm``; the norm before it.

    As `torch.nn.utils.clip_grad_norm_`, which does not take sharded and whole tensors together.
    """
    shared_out = [p for p in parameters if isinstance(p, DTensor)]
    whole = [p for p in parameters if not isinstance(p, DTensor)]
    if not shared_out:
        return nn.utils.clip_grad_norm_(whole, largest_norm)
    norm: Tensor = torch.linalg.vector_norm(torch.stack(_norms((shared_out, whole))))
    for kind in (shared_out, whole):
        nn.utils.clip_grads_with_norm_(kind, largest_norm, norm)
    return norm


def _norms(parts: Iterable[Sequence[nn.Parameter]]) -> list[Tensor]:
    """One norm a part. A part is sharded as a whole or not at all; the squares of sharded ones add up over ranks."""
    norms, is_sharded = [], []
    for part in parts:
        gradients = [p.grad for p in part if p.grad is not None]
        is_sharded.append(any(isinstance(gradient, DTensor) for gradient in gradients))
        local = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
        norms.append(nn.utils.get_total_norm(local).float())
    if any(is_sharded):
        squares = torch.stack([norm.square() for norm in norms])
        summed = squares.clone()
        dist.all_reduce(summed)
        norms = list(torch.where(torch.tensor(is_sharded, device=squares.device), summed, squares).sqrt())
    return norms
