"""What is measured: settings of the plan's configuration, batches, and how much of a step."""

from __future__ import annotations

from dataclasses import dataclass

from vlm3d_ct.config import Config, config_from_mapping, config_to_mapping

BATCHES = (2, 4)
NO_DROPOUT = ("model.dropout=0", "model.attn_dropout=0")
DROPPED = (0.25, 0.5)
DEPTHS = (32, 64, 128, 256)
KEPT = "training.gradient_checkpointing=false"
CHEAP = "training.gradient_checkpointing=cheap"
COMPILED = "training.compile=true"


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        name: for the page.
        settings: beside the plan's.
        batch: pairs.
        trains: a whole training step, or else the vision encoder's forward pass in evaluation.
    """

    name: str
    settings: tuple[str, ...] = ()
    batch: int = 1
    trains: bool = False

    def config(self, base: Config) -> Config:
        """The base with its settings; a step is that of one micro-batch."""
        overrides = ("training.accumulation_steps=1", *self.settings)
        return config_from_mapping(config_to_mapping(base), source=self.name, overrides=overrides)


def dropped(share: float) -> str:
    """The setting that leaves out so many columns of patches."""
    return f"model.patch_dropout={share}"


def depth_case(slices: int) -> Case:
    """The forward pass for so many slices."""
    return Case(f"slice_region, {slices} slices", (f"preprocess.size=[{slices},512,512]",))


def cases_for(device: str, precision: str) -> list[Case]:
    """All measurements of a device: steps of one volume on a CPU, of batches of the plan and less on a GPU."""
    forward = [
        Case("slice_region", ("model.attention=slice_region",)),
        Case("slice_region, air skipped", ("model.attention=slice_region", "model.skip_air=true")),
        Case("dense", ("model.attention=dense",)),
        *(depth_case(slices) for slices in DEPTHS),
        *(Case(f"slice_region, batch {batch}", batch=batch) for batch in BATCHES),
    ]
    return [
        Case(case.name, (f"training.precision={precision}", *case.settings), case.batch, case.trains)
        for case in (*forward, *(_steps_on_gpu() if device == "cuda" else _steps_on_cpu()))
    ]


def _steps_on_cpu() -> list[Case]:
    """Without attention dropout, which no fused kernel of a CPU has, but for one case."""
    return [
        Case("all recomputed", NO_DROPOUT, trains=True),
        Case("half of the blocks recomputed", ("training.checkpointed_blocks=6", *NO_DROPOUT), trains=True),
        Case("all but products recomputed", (CHEAP, *NO_DROPOUT), trains=True),
        Case("nothing recomputed", (KEPT, *NO_DROPOUT), trains=True),
        Case("nothing recomputed, air skipped", (KEPT, "model.skip_air=true", *NO_DROPOUT), trains=True),
        *(
            Case(
                f"nothing recomputed, {share:.0%} of the columns dropped",
                (KEPT, dropped(share), *NO_DROPOUT),
                trains=True,
            )
            for share in DROPPED
        ),
        Case("nothing recomputed, compiled", (KEPT, COMPILED, *NO_DROPOUT), trains=True),
        Case("all recomputed, compiled", (COMPILED, *NO_DROPOUT), trains=True),
        Case("all recomputed, dropout as planned", (), trains=True),
    ]


def _steps_on_gpu() -> list[Case]:
    return [
        *(Case(f"cheap, batch {batch}", (CHEAP,), batch, trains=True) for batch in (1, 2, 4, 8, 16)),
        Case("nothing recomputed", (KEPT,), 8, trains=True),
        Case("nothing recomputed, no dropout", (KEPT, *NO_DROPOUT), 8, trains=True),
        Case("nothing recomputed, compiled", (KEPT, COMPILED), 8, trains=True),
        Case("half of the blocks recomputed", ("training.checkpointed_blocks=6",), 8, trains=True),
        Case("all recomputed", (), 8, trains=True),
        Case("all recomputed, compiled", (COMPILED,), 8, trains=True),
        Case("cheap, air skipped", (CHEAP, "model.skip_air=true"), 8, trains=True),
        *(
            Case(f"cheap, {share:.0%} of the columns dropped", (CHEAP, dropped(share)), 8, trains=True)
            for share in DROPPED
        ),
        Case("dense, all recomputed", ("model.attention=dense",), 8, trains=True),
    ]
