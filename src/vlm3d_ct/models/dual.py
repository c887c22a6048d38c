"""The dual encoder: volume and report into one space, at volume and at region level."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from vlm3d_ct.models.encoder import LEAST_PATCH_SHARE, EncoderOutput, VisionEncoder
from vlm3d_ct.models.text_encoder import TextEncoder
from vlm3d_ct.text.steps import MOST_STEPS


@dataclass
class ModelInput:
    """A micro-batch on the device, ready for the model.

    Attributes:
        ct_volume: windowed intensities in [0, 1].
        tissue: the columns of patches that hold tissue, where others are not to be read; None for all.
        segmentation_mask: region ids; None for a batch of slices.
        mask_given: which cases have a mask.
        region_tokens: the tokens whose sentence mentions the region.
        token_steps: the sentence that each token belongs to, from 1; 0 for none.
        step_regions: the regions that each sentence speaks of; no sentence at all (s = 0) where nothing compares them.
        opposite_ids: the opposites of the sentences; none at all (o = 0) where nothing compares them.
        opposite_mask: 1 for their tokens, 0 for what fills up.
        opposite_steps: the sentence whose opposite each of these tokens belongs to, from 1; 0 for none.
    """

    ct_volume: Float[Tensor, "b c z y x"]
    tissue: Bool[Tensor, "b columns"] | None
    segmentation_mask: Integer[Tensor, "b 1 z y x"] | None
    mask_given: Bool[Tensor, " b"]
    input_ids: Integer[Tensor, "b t"]
    attention_mask: Integer[Tensor, "b t"]
    token_type_ids: Integer[Tensor, "b t"]
    region_tokens: Bool[Tensor, "b r t"]
    token_steps: Integer[Tensor, "b t"]
    step_regions: Bool[Tensor, "b s r"]
    opposite_ids: Integer[Tensor, "b o"]
    opposite_mask: Integer[Tensor, "b o"]
    opposite_steps: Integer[Tensor, "b o"]

    @property
    def num_sentences(self) -> int:
        """Sentences of a text that are embedded by themselves."""
        return MOST_STEPS if self.opposite_ids.shape[1] else 0


@dataclass
class Representations:
    """What the objectives compare, in fp32; every row that stands for something is of unit length."""

    volume: Float[Tensor, "b d"]
    text: Float[Tensor, "b d"]
    region_volume: Float[Tensor, "b r d"]
    region_text: Float[Tensor, "b r d"]
    step_volume: Float[Tensor, "b s d"]
    step_text: Float[Tensor, "b s d"]
    sentence_text: Float[Tensor, "b k d"]
    opposite_text: Float[Tensor, "b k d"]
    sentence_region_text: Float[Tensor, "b k d"]
    opposite_region_text: Float[Tensor, "b k d"]

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors in the order of the fields."""
        return tuple(getattr(self, field.name) for field in fields(self))


class VisionLanguageModel(nn.Module):
    """`vision_encoder` and `text_encoder` side by side; one forward pass embeds a micro-batch of pairs."""

    def __init__(self, vision_encoder: VisionEncoder, text_encoder: TextEncoder):
        super().__init__()
        self.vision_encoder = vision_encoder
        self.text_encoder = text_encoder

    def forward(self, batch: ModelInput) -> tuple[Representations, Float[Tensor, ""]]:
        """Embed both sides.

        Returns:
            The representations, and the occupancy loss summed over the cases that have a mask: the cross-entropy
            between the given and the predicted share of each region, averaged over a case's patches.
        """
        # texts first: laying out their sentences waits for the device, which has nothing to do yet
        read = self.text_encoder(batch.input_ids, batch.attention_mask, batch.token_type_ids, batch.token_steps)
        sentence_tokens = tokens_of(batch.token_steps, batch.num_sentences)
        opposites, opposite_tokens = self._opposites(batch, read.last_hidden_state)
        seen = self.see(batch)
        representations = Representations(
            volume=self.vision_encoder.global_proj(seen.global_features),
            text=self.text_encoder.projection(read.pooler_output),
            region_volume=self.vision_encoder.region_proj(seen.region_features),
            region_text=self.text_encoder.region_features(read.last_hidden_state, batch.region_tokens),
            step_volume=self.vision_encoder.region_proj(select_patches(seen, batch.step_regions)),
            step_text=self.text_encoder.region_features(
                read.last_hidden_state, tokens_of(batch.token_steps, batch.step_regions.shape[1])
            ),
            sentence_text=self.text_encoder.sentence_features(read.last_hidden_state, sentence_tokens),
            opposite_text=self.text_encoder.sentence_features(opposites, opposite_tokens),
            sentence_region_text=self.text_encoder.region_features(read.last_hidden_state, sentence_tokens),
            opposite_region_text=self.text_encoder.region_features(opposites, opposite_tokens),
        )
        occupancy_loss = _occupancy_loss(seen)
        # every parameter takes part in every step, or distributed training stops
        for parameter in self.vision_encoder.seen_by_patches_only():
            occupancy_loss = occupancy_loss + 0.0 * parameter.sum()
        return representations, occupancy_loss

    def see(self, batch: ModelInput) -> EncoderOutput:
        """The vision encoder's output."""
        seen: EncoderOutput = self.vision_encoder(
            batch.ct_volume, batch.segmentation_mask, batch.mask_given, batch.tissue
        )
        return seen

    def _opposites(
        self, batch: ModelInput, tokens: Float[Tensor, "b t width"]
    ) -> tuple[Float[Tensor, "b o width"], Bool[Tensor, "b k o"]]:
        steps = batch.token_steps
        if batch.num_sentences:
            steps = batch.opposite_steps
            tokens = self.text_encoder(batch.opposite_ids, batch.opposite_mask, None, steps).last_hidden_state
        return tokens, tokens_of(steps, batch.num_sentences)

    @torch.no_grad()
    def num_parameters(self) -> dict[str, int]:
        """Parameters of each encoder."""
        return {name: sum(p.numel() for p in part.parameters()) for name, part in self.named_children()}


def _occupancy_loss(seen: EncoderOutput) -> Float[Tensor, ""]:
    logits, target = seen.occupancy_logits, seen.mask_occupancy
    if target is None:
        return logits.sum() * 0.0  # the head takes part all the same
    # without a mask, and where nothing was read, the target is 0 and so is the loss; all cases have as many patches
    return F.cross_entropy(logits.transpose(1, 2), target.transpose(1, 2), reduction="sum") / seen.read[0].sum()


def select_patches(seen: EncoderOutput, step_regions: Bool[Tensor, "b s r"]) -> Float[Tensor, "b s d"]:
    """Mean of the local features over the regions of each step, a patch weighing what it holds of them.

    A step that names no region, or none that the scan shows, is held against all patches that were read, alike.
    """
    chosen = (step_regions & seen.region_present[:, None]).to(seen.occupancy.dtype)
    share = chosen @ seen.occupancy[..., 1:].transpose(1, 2)
    share = share.masked_fill(share < LEAST_PATCH_SHARE, 0.0)
    share = torch.where(share.sum(-1, keepdim=True) == 0, seen.read[:, None].to(share.dtype), share)
    weights = (share / share.sum(-1, keepdim=True)).to(seen.local_features.dtype)
    return weights @ seen.local_features


def tokens_of(numbers: Integer[Tensor, "b t"], count: int) -> Bool[Tensor, "b s t"]:
    """The tokens that carry each of the numbers from 1 to ``count``."""
    return numbers[:, None] == torch.arange(1, count + 1, device=numbers.device)[:, None]
