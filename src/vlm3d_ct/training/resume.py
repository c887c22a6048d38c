"""The two meanings of a checkpoint given to a run: go on exactly, or start another stage from its weights."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm3d_ct.checkpoint import load_checkpoint
from vlm3d_ct.config import Config, config_from_mapping, config_to_mapping
from vlm3d_ct.distributed import gather_objects, leaving_together
from vlm3d_ct.errors import CheckpointError, ConfigError
from vlm3d_ct.log import say
from vlm3d_ct.training.keeper import newest_checkpoint
from vlm3d_ct.volumes.preprocess import Preprocess

HARMLESS = {
    "data.cache_dir",
    "data.ctrate_dir",
    "data.omniabnorm_dir",
    "data.num_workers",
    "data.on_invalid",
    "data.pin_memory",
    "data.prefetch_factor",
    "training.log_interval",
    "training.val_interval",
    "training.save_minutes",
    "training.keep_best",
    "training.keep_last",
    "training.max_nonfinite_steps",
    "training.timeout_minutes",
    "training.gradient_checkpointing",
    "training.checkpointed_blocks",
    "training.strategy",
    "text.cache_gb",
    "text.gradient_checkpointing",
    "text.name_or_path",
    "text.revision",
}
"""Settings that may differ when a run is continued: none of them moves a weight (the cases themselves are compared)."""
MOVABLE = {"text.cache_dir"}
"""May be another folder; whether there is one rounds what a step sees."""
HELD_BY_THE_OPTIMIZER = {"text.frozen", "training.optimizer"}
"""Say what there are moments of; within a run they cannot change, whoever asks for it."""
ONE_STEP = {"training.batch_size", "training.accumulation_steps"}
"""May differ, too, as long as a step holds as many pairs (another number of ranks, say) and contrasts all of them."""

SEEN_BY_WEIGHTS = ("preprocess.", "model.", "text.attention", "text.pooling", "text.max_len")
"""Settings of what the weights are made of, or of what they are given: a stage that changes one may mean it. The BERT
itself comes with the weights, whatever the new stage says of it."""


@dataclass(frozen=True)
class Start:
    """Where a run starts from.

    Attributes:
        content: of the checkpoint; None for a start from scratch.
        source: its file.
        continues: whether the run goes on exactly, rather than taking the weights only.
    """

    content: dict[str, Any] | None
    source: Path | None
    continues: bool


def find_start(config: Config, output_dir: Path, resume: Path | None) -> Start:
    """Decide where to start, and say so.

    The output folder's own checkpoints win: a run that was started before is continued. Else ``resume``: of the same
    stage it is continued, of another stage its weights start this one.

    Raises:
        CheckpointError: a checkpoint cannot be read.
        ConfigError: the output folder holds another stage's checkpoints, or the ranks do not see the same ones.
    """
    with leaving_together():
        start = _find_own_start(config, output_dir, resume)
    step = None if start.content is None else start.content["step"]
    seen = gather_objects((str(start.source), step))
    if len(set(seen)) > 1:
        shown = "\n  ".join(f"rank {rank}: {source}, step {step}" for rank, (source, step) in enumerate(seen))
        raise ConfigError(
            f"--output_dir {output_dir}: the ranks would not start from the same state:\n  {shown}\n"
            "Give a folder on a disk that all nodes share; where one cannot read a checkpoint, delete that one."
        )
    return start


def _find_own_start(config: Config, output_dir: Path, resume: Path | None) -> Start:
    own = newest_checkpoint(output_dir)
    if own is not None:
        path, content = own
        if content["stage"] != config.stage:
            raise ConfigError(
                f"--output_dir {output_dir}: holds checkpoints of stage {content['stage']!r}, this is "
                f"{config.stage!r}. Give each stage its own folder."
            )
        say(f"continuing this run exactly, from {path} at step {content['step']}")
        return Start(content, path, continues=True)
    if resume is None:
        say("starting from scratch")
        return Start(None, None, continues=False)
    content = load_checkpoint(resume)
    if "stage" not in content:
        raise CheckpointError(f"{resume}: has no 'stage': not a checkpoint of a training run.")
    if content["stage"] == config.stage:
        say(f"continuing exactly, from {resume} at step {content['step']}")
        return Start(content, resume, continues=True)
    say(
        f"new stage {config.stage!r} at epoch 0 with the weights of stage {content['stage']!r} ({resume}, "
        f"step {content['step']}); optimiser, schedule and temperature start anew"
    )
    before = _flat(config_to_mapping(Config())) | _flat(content["config"])  # what is newer than it has its default
    now = _flat(config_to_mapping(config))
    for key in sorted(now):
        if key.startswith(SEEN_BY_WEIGHTS) and before[key] != now[key]:
            say(f"the weights learned with another {key}: {before[key]} then, {now[key]} now")
    return Start(content, resume, continues=False)


def check_same_run(
    start: Start, config: Config, cohort_identity: str, step_batch: int, allowed: AbstractSet[str] = frozenset()
) -> None:
    """Refuse to continue what is another run.

    Args:
        start: the checkpoint.
        config: of now.
        cohort_identity: of the cases now.
        step_batch: pairs per step now.
        allowed: dotted settings that may differ because the user asked for it. The cases, their preprocessing and the
            pairs of a step may not: the position in the run would mean nothing.

    Raises:
        ConfigError: settings, cases or pairs per step differ, all differences are listed; or a setting that is allowed
            to differ does not exist.
    """
    assert start.content is not None
    # a setting that is newer than the checkpoint has the default that its run did not have to name
    then = config_from_mapping(start.content["config"], source=str(start.source))
    before, now = _flat(config_to_mapping(then)), _flat(config_to_mapping(config))
    if unknown := sorted(allowed - now.keys()):
        raise ConfigError(f"--allow_changes {','.join(unknown)}: no such setting. Write it like training.lr.")
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    whole_step = ONE_STEP if config.training.accumulation == "exact" else set[str]()
    harmless = HARMLESS | whole_step | {key for key in MOVABLE if None not in (before.get(key), now.get(key))}
    free = harmless | (allowed - HELD_BY_THE_OPTIMIZER)
    differing = [f"{k}: {before.get(k)} then, {now.get(k)} now" for k in changed if k not in free]
    if start.content["step_batch"] != step_batch:
        differing.append(f"pairs per step: {start.content['step_batch']} then, {step_batch} now")
    fingerprint = Preprocess.from_config(config.preprocess).fingerprint
    if start.content["fingerprint"] != fingerprint:
        differing.append(f"preprocessing: {start.content['fingerprint']} then, {fingerprint} now")
    if start.content["cohort_identity"] != cohort_identity:
        differing.append("the training and validation cases are not the same")
    if differing:
        raise ConfigError(
            f"{start.source}: cannot be continued exactly:\n  " + "\n  ".join(differing) + "\n"
            "Use the former settings and data, or start anew in another --output_dir. A setting that is meant to "
            "change from here on can be named with --allow_changes, but for what the optimiser's moments depend on "
            f"({', '.join(sorted(HELD_BY_THE_OPTIMIZER))}): that takes another stage."
        )
    for key in changed:
        asked = "" if key in harmless else " (as asked for: from here on this is another run)"
        say(f"differs from the checkpoint: {key}: {before.get(key)} then, {now.get(key)} now{asked}")


def _flat(mapping: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
