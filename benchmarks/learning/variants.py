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
        takes_long: whether it gets the time of the two that are compared in the end, or the ablations'.
        micro_batches: that a step's pairs are split into.
    """

    about: str
    both: tuple[str, ...] = ()
    finetune: tuple[str, ...] = REASONING
    slices: bool = True
    takes_long: bool = False
    micro_batches: int = 1


NO_REGION_LOSS = ("objective.region_weight=0", "objective.sentence_region_weight=0")
NO_REGIONS = (*NO_REGION_LOSS, "objective.occupancy_weight=0", "model.mask_dropout=1")
NO_SENTENCES = ("objective.sentence_weight=0", "objective.sentence_region_weight=0")
PLAIN_CLIP = ("model.attention=dense", "model.pooling=mean", *NO_REGIONS, *NO_SENTENCES)
ADAMW = ("training.optimizer=adamw", "training.lr=1e-3")
FULL, PLAIN, SHORTER = "full", "plain CLIP", "full, shorter"
VARIANTS = {
    FULL: Variant("slabs, z and regions; volume, region, sentence and (in fine-tuning) step level", takes_long=True),
    PLAIN: Variant(
        "dense, mean of the patches, volume level only; patches, text encoder and optimizer of the full design",
        PLAIN_CLIP,
        finetune=(),
        takes_long=True,
    ),
    "usual CLIP": Variant(
        "the plain CLIP with linear patches, AdamW, and a BERT that reads whole texts, as most peers do",
        (*PLAIN_CLIP, *ADAMW, "model.sub_patch_size=null", "text.attention=text"),
        finetune=(),
        takes_long=True,
    ),
    SHORTER: Variant("the full design with the time of the ablations below, which take one thing away from it"),
    "dense": Variant("every patch attends to every patch", ("model.attention=dense",)),
    "no regions": Variant("no mask is ever seen, no region loss", NO_REGIONS),
    "no region loss": Variant("masks guide, but no sentence is held against a region", NO_REGION_LOSS),
    "no soft targets": Variant("texts that say the same are negatives", ("objective.soft_targets=false",)),
    "no reasoning level": Variant("no sentence or step is held against the patches of its regions", finetune=()),
    "no sentence level": Variant(
        "no sentence is held with its opposite against volumes and their regions", NO_SENTENCES
    ),
    "volumes only": Variant(
        "sentences and their opposites are held against whole volumes only", ("objective.sentence_region_weight=0",)
    ),
    "no slices": Variant("fine-tuning on volumes alone", slices=False),
    "naive accumulation": Variant(
        "two micro-batches of half the size, each with its own negatives only",
        ("training.accumulation=naive",),
        micro_batches=2,
    ),
    "unsafe flips": Variant("scans are mirrored, words and region ids are not", ("augment.mirror_words=false",)),
    "adamw": Variant("AdamW for all weights, at the rate that suits it", ADAMW),
}
