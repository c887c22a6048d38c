"""One stage of training from its configuration to its last checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path

import torch

from vlm3d_ct.config import Config
from vlm3d_ct.data.cohort import Cohort, find_cohort, prepare_cohort
from vlm3d_ct.data.dataset import CaseDataset, open_cache
from vlm3d_ct.distributed import pick_device, process_group, world_size
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.inference import load_weights, read_text_side
from vlm3d_ct.log import say
from vlm3d_ct.models import Built, build, rebuild
from vlm3d_ct.seeding import derive_seed
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.text.tokenize import ReportTokenizer, train_small_tokenizer
from vlm3d_ct.training.resume import Start, check_same_run, find_start
from vlm3d_ct.training.trainer import RunFacts, Trainer, Validate

MakeValidate = Callable[[Config, CaseDataset, torch.device], Validate]
"""Makes the validation from the validation cases: the trainer knows no metric."""


def train(
    config: Config,
    output_dir: Path,
    resume: Path | None,
    make_validate: MakeValidate,
    allow_changes: AbstractSet[str] = frozenset(),
) -> None:
    """Train one stage; started again after an interruption it continues.

    Args:
        config: of the stage.
        output_dir: for checkpoints and metrics; event files go to ``tensorboard`` beside it, so that stages compare.
        resume: a checkpoint to continue, or of another stage to start from.
        make_validate: see `MakeValidate`.
        allow_changes: dotted settings that may differ from those of the run that is continued.

    Raises:
        ConfigError, DataError, CheckpointError: nothing was trained.
        Stopped: a signal asked for it.
    """
    device = pick_device()
    with process_group(device):
        start = find_start(config, output_dir, resume)
        cohort = prepare_cohort(find_cohort(config), config, workers=config.data.num_workers)
        _check_precision(config, device)
        built = _build(config, cohort, start)
        trainer = _trainer(config, built, cohort, start, output_dir, device, make_validate)
        if start.continues and start.content is not None:
            check_same_run(start, config, cohort.identity, step_batch(config), allow_changes)
            trainer.restore(start.content)
        _announce(config, built, cohort, trainer, device)
        output_dir.mkdir(parents=True, exist_ok=True)
        trainer.run(output_dir.parent / "tensorboard" / output_dir.name)
        say(f"done: {output_dir}")


def step_batch(config: Config) -> int:
    """Pairs that one step contrasts, over all ranks and micro-batches."""
    return config.training.batch_size * config.training.accumulation_steps * world_size()


def _check_precision(config: Config, device: torch.device) -> None:
    if config.training.precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError(f"training.precision = bf16: {torch.cuda.get_device_name(device)} has no bf16; use --fp16.")


def _build(config: Config, cohort: Cohort, start: Start) -> Built:
    torch.manual_seed(derive_seed(config.seed, "weights"))
    if start.content is None:
        tokenizer_json = None
        if config.text.source == "small":
            texts = [text for case in cohort.training for r in case.reports for text in (r.question, r.answer)]
            tokenizer_json = train_small_tokenizer(texts, config.text.small_vocabulary)
        return build(config, tokenizer_json)
    assert start.source is not None
    bert_json, tokenizer_json = read_text_side(start.content, start.source)
    model = rebuild(config, bert_json)  # from this stage's settings: another model in the checkpoint is noticed
    load_weights(model, start.content["model"], start.source)
    return Built(model, tokenizer_json, bert_json)


def _trainer(
    config: Config,
    built: Built,
    cohort: Cohort,
    start: Start,
    output_dir: Path,
    device: torch.device,
    make_validate: MakeValidate,
) -> Trainer:
    table = load_region_table()
    cache = open_cache(config)
    tokenizer = ReportTokenizer(built.tokenizer_json, config.text.max_len)
    training = CaseDataset(cohort.training, cache, tokenizer, table, config.augment, config.seed)
    held_out = [case for case in cohort.validation if case.kind == "volume"]
    if not held_out:
        raise ConfigError(
            f"data.validation_fraction = {config.data.validation_fraction}: leaves no volume for validation among "
            f"{len(cohort.training)} training cases; raise it or add patients."
        )
    validation = CaseDataset(held_out, cache, tokenizer, table, None, config.seed)
    seen_before = start.content["training_patients"] if start.content is not None else []
    patients = sorted({*cohort.training_patients, *seen_before})  # of earlier stages, too
    facts = RunFacts(cohort.identity, patients, cache.fingerprint)
    return Trainer(
        config,
        built,
        training,
        facts,
        output_dir=output_dir,
        device=device,
        validate=make_validate(config, validation, device),
    )


def _announce(config: Config, built: Built, cohort: Cohort, trainer: Trainer, device: torch.device) -> None:
    training, ranks = config.training, world_size()
    pairs = step_batch(config)
    kinds = [case.kind for case in cohort.training]
    say(
        f"{kinds.count('volume')} volumes and {kinds.count('slice')} slices to train on, "
        f"{len(cohort.validation)} cases of other patients held out"
    )
    parameters = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in built.model.num_parameters().items())
    say(f"parameters: {parameters}; precision {training.precision}; device {device}")
    say(
        f"{ranks} rank{'s' * (ranks > 1)} x {training.batch_size} pairs x {training.accumulation_steps} accumulated = "
        f"{pairs} contrastive pairs per step, {pairs - 1} negatives for each"
    )
    steps = trainer.order().steps_per_epoch
    say(f"{steps} steps per epoch x {training.num_epochs} epochs = {steps * training.num_epochs} steps")
