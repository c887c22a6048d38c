"""What is compared: the full design, and what is taken away from it, each as settings of the same commands."""

from __future__ import annotations

from dataclasses import dataclass

REASONING = ("objective.reasoning_weight=0.5",)


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        about: what it is, for the page.
        both: settings of both stages.
        finetune: settings of the second stage, beside.
        slices: whether the second stage sees 2D slices.
    """

    about: str
    both: tuple[str, ...] = ()
    finetune: tuple[str, ...] = REASONING
    slices: bool = True


NO_REGIONS = ("objective.region_weight=0", "objective.occupancy_weight=0", "model.mask_dropout=1")
VARIANTS = {
    "full": Variant("slabs, z and regions; volume, region and (in fine-tuning) step level"),
    "dense": Variant("every patch attends to every patch", ("model.attention=dense",)),
    "no region guidance": Variant("no mask is ever seen, no region loss", NO_REGIONS),
    "no region loss": Variant("masks guide, but no sentence is held against a region", ("objective.region_weight=0",)),
    "no soft targets": Variant("texts that say the same are negatives", ("objective.soft_targets=false",)),
    "no reasoning level": Variant("volume and region level only", finetune=()),
    "no slices": Variant("fine-tuning on volumes alone", slices=False),
    "plain CLIP": Variant(
        "dense, mean of the patches, volume level only",
        ("model.attention=dense", "model.pooling=mean", *NO_REGIONS),
        finetune=(),
    ),
}
