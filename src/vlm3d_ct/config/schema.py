"""Every setting with its default. The defaults are the plan's pre-training recipe; YAML files hold only deltas."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

WINDOW_PRESETS: dict[str, tuple[float, float]] = {
    "plan": (40.0, 400.0),
    "soft_tissue": (40.0, 400.0),
    "lung": (-600.0, 1500.0),
    "bone": (400.0, 1800.0),
}
"""Named windows as (centre_hu, width_hu)."""

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
_Millimetres = Annotated[float, Field(ge=0.1, le=20.0)]
_Side = Annotated[int, Field(gt=0, le=4096)]
Shape3 = tuple[_Side, _Side, _Side]
Spacing3 = tuple[_Millimetres, _Millimetres, _Millimetres]
Precision = Literal["int16", "uint8"]
Window = Literal["plan", "soft_tissue", "lung", "bone"] | tuple[float, Annotated[float, Field(gt=0)]]

_settings = dataclass(frozen=True, kw_only=True, config={"extra": "forbid"})


@_settings
class DataConfig:
    """Where the cases are and how they are loaded. Relative paths start at the working directory."""

    ctrate_dir: str | None = None
    """Folder with the 3D volumes: the plan's layout or an official CT-RATE tree."""
    omniabnorm_dir: str | None = None
    """Folder with the 2D slices; None trains without them."""
    cache_dir: str = "data/cache"
    """Prepared cases, about 19 MB a volume at full size, in 16 bits."""
    validation_fraction: Share = 0.1
    """Share of the patients held out, by a hash of the patient id, where no other split is declared."""
    mask_labels: Literal["auto", "regions", "totalsegmentator", "totalsegmentator_v1"] = "auto"
    """What the ids in volumes' masks mean; ``auto``: TotalSegmentator's (version 2) in CT-RATE's ``ts_seg``, else the
    region table's. Folders with one file for each structure are recognised whatever it is."""
    on_invalid: Literal["error", "skip"] = "error"
    """What an unusable case does: stop the run, or be left out, listed and counted."""
    num_workers: NonNegative = 4
    prefetch_factor: Positive = 2
    pin_memory: bool = True


@_settings
class PreprocessConfig:
    """What is done to a scan once, before the cache. Part of the fingerprint."""

    size: Shape3 = (64, 512, 512)
    """Voxels (z, y, x) of a prepared volume."""
    slice_size: Shape3 = (4, 512, 512)
    """Voxels (z, y, x) of a prepared pseudo-3D slice."""
    spacing_mm: Spacing3 | None = None
    """Millimetres (z, y, x) of a prepared voxel: scans are cropped, or padded with air, about their centre. None
    stretches every scan to ``size``, as the plan does."""
    precision: Precision = "int16"
    """How the cache keeps HU: exact, or in 8 bits with an error of 2 HU in soft tissue, 4 HU in lung, 58 HU in dense
    bone and two thirds of the disk."""


@_settings
class AugmentConfig:
    """Random changes of a training case, drawn from (seed, epoch, case)."""

    flip_probability: Share = 0.5
    """Left-right flips; where a text cannot be mirrored there is none."""
    mirror_words: bool = True
    """Sided words and regions are swapped with a flip. False mirrors every scan alone, and left is called right: for
    comparisons, as scripts often do it."""
    rotation_probability: Share = 0.3
    rotation_degrees: Annotated[float, Field(ge=0, le=45)] = 10.0
    """Largest rotation about each axis, in millimetre space."""
    intensity_probability: Share = 0.3
    intensity_shift: Annotated[float, Field(ge=0)] = 0.1
    """Largest shift of the windowed intensity (range 0..1)."""
    noise_probability: Share = 0.2
    noise_sigma: Annotated[float, Field(ge=0)] = 0.01
    sentence_probability: Share = 0.0
    """Share of the reports of which a training step reads only some sentences, drawn at random, in random order."""


@_settings
class ModelConfig:
    """The vision encoder."""

    embed_dim: Positive = 768
    depth: Positive = 12
    num_heads: Positive = 12
    num_regions: Positive = 20
    patch_size: Shape3 = (4, 16, 16)
    sub_patch_size: Shape3 | None = None
    """Embeds patches in two stages: voxels (z, y, x) of the parts that one small map with GELU looks at before a second
    map joins them; for patches that are large beside the lesions. None: one linear map, the plan's."""
    sub_patch_channels: Positive = 32
    """What the first stage makes of each sub-patch."""
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    dropout: Share = 0.1
    attn_dropout: Share = 0.1
    windows: Annotated[tuple[Window, ...], Field(min_length=1)] = ("plan",)
    """Intensity windows, one input channel each: a preset or (centre_hu, width_hu)."""
    attention: Literal["slice_region", "dense", "dense_z_bias"] = "slice_region"
    """``slice_region``: within slabs and along z, linear in depth. ``dense``: every patch to all others, without
    bias by distance; for comparisons, as its cost grows with the square of the patches. ``dense_z_bias``: with a bias
    by the distance in slabs in every third block, all pairs in memory; a reference for small grids. The weights of one
    kind fit another."""
    skip_air: bool = False
    """Leaves out columns of patches that hold no tissue all along z, in training and after: about a third of a chest
    CT."""
    patch_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the columns of patches that a training step leaves out, drawn at random, of what `skip_air` left."""
    pooling: Literal["token", "mean"] = "token"
    """What stands for the volume: the global token, or the mean of its patches."""
    mask_dropout: Share = 0.1
    """Share of the training cases whose mask is withheld, so that the encoder learns to work without one."""

    @property
    def windows_hu(self) -> tuple[tuple[float, float], ...]:
        """The intensity windows as (centre_hu, width_hu), presets resolved."""
        return tuple(WINDOW_PRESETS[w] if isinstance(w, str) else w for w in self.windows)


@_settings
class TextConfig:
    """The text encoder."""

    source: Literal["pretrained", "small"] = "pretrained"
    """``pretrained``: a BERT from the hub or a local folder. ``small``: one made on the spot, for demo and tests."""
    name_or_path: str = "dmis-lab/biobert-v1.1"
    revision: str = "551ca18efd7f052c8dfa0b01c94c2a8e68bc5488"
    """Commit of the hub's repository; ignored for a local folder."""
    max_len: Annotated[int, Field(ge=8, le=512)] = 512
    small_width: Positive = 128
    small_depth: Positive = 2
    small_heads: Positive = 4
    small_vocabulary: Positive = 2000
    gradient_checkpointing: bool = False
    pooling: Literal["cls", "mean"] = "cls"
    """How tokens become one vector: BERT's pooler on the first (the plan), or the mean, from which an untrained BERT
    learns sooner."""
    attention: Literal["text", "sentence"] = "text"
    """What a token attends to: the whole text (the plan), or its own sentence only, so that an untrained BERT learns
    what a "no" belongs to, and a sentence is read alike whatever stands around it. Needs ``pooling`` by the mean."""
    frozen: bool = False
    """The BERT keeps its weights and drops nothing; of the text encoder only the projections learn."""
    cache_dir: str | None = None
    """Keeps what a frozen BERT makes of each training text, in fp16, and reads no text twice. None reads anew."""
    cache_gb: Annotated[float, Field(gt=0)] = 50.0
    """A run fills that folder up to so much; what no longer fits is read anew, text by text. A token takes two bytes
    for each of the BERT's features: 21,907 reports of 300 tokens 10 GB with BioBERT, and as much again mirrored."""


@_settings
class ObjectiveConfig:
    """total = global_weight * global + region_weight * region + reasoning_weight * reasoning
    + sentence_weight * sentence + sentence_region_weight * sentence_region + occupancy_weight * occupancy."""

    global_weight: Annotated[float, Field(ge=0)] = 1.0
    region_weight: Annotated[float, Field(ge=0)] = 0.5
    reasoning_weight: Annotated[float, Field(ge=0)] = 0.0
    """Of the third level: each sentence or reasoning step against the patches of the regions that it speaks of."""
    sentence_weight: Annotated[float, Field(ge=0)] = 0.0
    """Of sentences by themselves: what one says, and its opposite does not, has to find its volume among those of the
    step. Teaches what "no" means, which is what a zero-shot prompt asks. Needs ``text.attention`` by the sentence and
    ``text.pooling`` by the mean, in every stage."""
    sentence_region_weight: Annotated[float, Field(ge=0)] = 0.0
    """Of the same, with the same rivals and needs, against the regions that a sentence speaks of in each volume. For
    prompts that are asked of regions (``evaluate zero-shot --against regions``)."""
    occupancy_weight: Annotated[float, Field(ge=0)] = 0.1
    soft_targets: bool = True
    """Texts that say the same, or only that the same is normal, are no negatives of each other at the region and step
    levels, equal sentences none at the sentence level; false makes all of them negatives."""
    temperature: Annotated[float, Field(gt=0.01)] = 0.07
    """Start of the learned temperature; its inverse is clamped at 100."""

    @property
    def opposites(self) -> bool:
        """Whether the opposites of sentences are read."""
        return self.sentence_weight > 0 or self.sentence_region_weight > 0


@_settings
class TrainingConfig:
    """The optimisation."""

    num_epochs: Positive = 50
    batch_size: Positive = 8
    """Pairs per rank and micro-batch."""
    accumulation_steps: Positive = 2
    """Micro-batches per step."""
    accumulation: Literal["exact", "naive"] = "exact"
    """``exact``: the gradient of one large batch, all its pairs negatives. ``naive``: the mean of the gradients of the
    micro-batches, each with its own negatives only; for comparisons, as scripts often do it."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """``adamw``: the plan's. ``muon``: Muon for the matrices of both encoders' blocks and AdamW for all else, at one
    rate; small encoders learned much sooner from scratch (docs/log.md)."""
    lr: Annotated[float, Field(gt=0)] = 1e-4
    min_lr: Annotated[float, Field(ge=0)] = 1e-6
    warmup_epochs: Annotated[float, Field(ge=0)] = 5.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    precision: Literal["fp32", "fp16", "bf16"] = "fp16"
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    gradient_checkpointing: bool | Literal["cheap"] = True
    """What of the vision encoder's blocks is computed again in the backward pass instead of being kept: everything;
    with ``cheap`` all but products of matrices and attention without dropout, which takes little time; or with false
    nothing."""
    checkpointed_blocks: Positive | None = None
    """Of how many blocks, where not of all: between the memory and the time of none and of all. None: all."""
    compile: bool = False
    """Compiles the vision encoder's blocks for training (``torch.compile``): fewer, larger kernels, which decide
    themselves what to compute again, after some minutes at the start of a run. Needs a C++ compiler."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """How ranks share the work: ``ddp``, every one holds all weights and moments; ``fsdp``, each holds a share of them,
    for models too large for one GPU."""
    log_interval: Positive = 10
    """Steps between two logged lines."""
    val_interval: Positive = 5
    """Epochs between two validations, each with a checkpoint; the last epoch always has both."""
    save_minutes: Annotated[float, Field(ge=0)] = 0.0
    """A checkpoint after so many minutes without one, too; 0 for those of `val_interval` only."""
    keep_best: Positive = 3
    keep_last: Positive = 2
    max_nonfinite_steps: Positive = 10
    """So many skipped steps in a row stop the run."""
    timeout_minutes: Annotated[float, Field(gt=0)] = 10.0
    """A rank that waits so long for the others in a step takes one of them for lost and ends the run. More than the
    slowest read of a step's cases and the writing of a checkpoint take; preparing the cases has no such limit."""


@_settings
class Config:
    """One stage of training, complete."""

    stage: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")] = "pretrain"
    """Name of the stage; a checkpoint of the same stage is continued, of another one only its weights are taken."""
    seed: NonNegative = 0
    data: DataConfig = Field(default_factory=DataConfig)
    preprocess: PreprocessConfig = Field(default_factory=PreprocessConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    text: TextConfig = Field(default_factory=TextConfig)
    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
