"""One stage of training from its configuration to its last checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch

from vlm3d_ct.config import Config
from vlm3d_ct.data.begun import read_begun, write_begun
from vlm3d_ct.data.cohort import LONGEST_PREPARATION, Cohort, check_sides, find_cohort, prepare_cohort
from vlm3d_ct.data.dataset import CaseDataset, open_cache
from vlm3d_ct.distributed import from_main_rank, leaving_together, pick_device, process_group, rank, world_size
from vlm3d_ct.errors import ConfigError, Stopped
from vlm3d_ct.inference import load_weights, read_text_side
from vlm3d_ct.log import format_bytes, say
from vlm3d_ct.models import Built, build, rebuild
from vlm3d_ct.models.readings import Readings, kept_bytes
from vlm3d_ct.seeding import derive_seed
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.text.tokenize import ReportTokenizer, train_small_tokenizer
from vlm3d_ct.training.announce import announce
from vlm3d_ct.training.keeper import checkpoints_of
from vlm3d_ct.training.lock import only_run
from vlm3d_ct.training.resume import Start, check_same_run, find_start
from vlm3d_ct.training.stop import StopRequest, clear_stopped, mark_stopped, stop_on_signals
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
        Stopped: a signal asked for it; what the run has done so far is kept, and `STOPPED_FILE` says so.
    """
    device = pick_device()
    timeout = timedelta(minutes=config.training.timeout_minutes)
    with stop_on_signals() as stop, process_group(device, timeout), ExitStack() as held:
        try:
            _train(config, output_dir, resume, make_validate, allow_changes, device, stop, held)
        except Stopped as stopped:
            if rank() == 0:
                mark_stopped(output_dir, str(stopped))
            raise


def _train(
    config: Config,
    output_dir: Path,
    resume: Path | None,
    make_validate: MakeValidate,
    allow_changes: AbstractSet[str],
    device: torch.device,
    stop: StopRequest,
    held: ExitStack,
) -> None:
    with leaving_together():
        if rank() == 0:
            clear_stopped(output_dir)
    begun_from = checkpoints_of(output_dir)
    start = find_start(config, output_dir, resume)
    found = from_main_rank(lambda: _found_cases(config, start), LONGEST_PREPARATION)
    # a BERT that is not there is noticed before hours of preparing; a small one is made of the prepared cases' texts
    later = start.content is None and config.text.source == "small"
    with leaving_together():
        built = None if later else _build(config, found, start)
    cohort = prepare_cohort(found, config, workers=config.data.num_workers, stopping=lambda: bool(stop))
    check_sides(cohort, config)  # preparing may have left cases out
    _check_precision(config, device)
    if built is None:
        built = _build(config, cohort, start)
    trainer = _trainer(config, built, cohort, start, output_dir, device, make_validate)
    if start.continues and start.content is not None:
        with leaving_together():
            check_same_run(start, config, cohort.identity, step_batch(config), allow_changes)
    with leaving_together():
        if rank() == 0:
            held.enter_context(only_run(output_dir))
            if checkpoints_of(output_dir) != begun_from:
                raise ConfigError(
                    f"--output_dir {output_dir}: another run has written there since this one started. Start the same "
                    "command again; it continues from what is there now."
                )
    if start.continues and start.content is not None:
        trainer.restore(start.content)
    start = replace(start, content=None)  # weights and moments, else kept in memory by every rank to the end
    built.model.text_encoder.readings = _readings(config, built)
    announce(
        config,
        built,
        cohort,
        trainer.account.parts,
        steps_per_epoch=trainer.order().steps_per_epoch,
        output_dir=output_dir,
        device=device,
    )
    with leaving_together():
        if rank() == 0:
            write_begun(output_dir, cohort.training, cohort.validation)
    trainer.run(output_dir.parent / "tensorboard" / output_dir.name, stop)
    say(f"done: {output_dir}")


def _found_cases(config: Config, start: Start) -> Cohort:
    """The cases of the data folders; of a run that is continued those that it began with, though there be more now."""
    found = find_cohort(config)
    begun = read_begun(start.source.parent) if start.continues and start.source is not None else None
    if begun is not None:
        found = found.restricted_to(begun)
    check_sides(found, config)  # before hours of preparing
    return found


def step_batch(config: Config) -> int:
    """Pairs that one step contrasts, over all ranks and micro-batches."""
    return config.training.batch_size * config.training.accumulation_steps * world_size()


def _check_precision(config: Config, device: torch.device) -> None:
    if config.training.precision != "bf16" or device.type != "cuda":
        return
    if not torch.cuda.is_bf16_supported(including_emulation=False):  # emulated, it is slower than fp32
        raise ConfigError(f"training.precision = bf16: {torch.cuda.get_device_name(device)} has no bf16; use --fp16.")


def _readings(config: Config, built: Built) -> Readings | None:
    """Where what a frozen BERT reads is kept; the ranks share what the folder may still take."""
    text = config.text
    if text.cache_dir is None:
        return None
    root = Path(text.cache_dir)
    kind = f"{text.attention}-{text.pooling}-{config.training.precision}"
    with leaving_together():
        count, taken = kept_bytes(root)
        left = max(0, round(text.cache_gb * 1e9) - taken) // world_size()
        readings = Readings(root, built.model.text_encoder.bert, kind, left)
    say(f"readings of texts are kept in {root}: {count} there, {format_bytes(taken)} of {text.cache_gb:g} GB")
    return readings


def _build(config: Config, cohort: Cohort, start: Start) -> Built:
    torch.manual_seed(derive_seed(config.seed, "weights"))
    if start.content is None:
        tokenizer_json = None
        if config.text.source == "small":
            _check_can_read(config)
            texts = [text for case in cohort.training for r in case.reports for text in (r.question, r.answer)]
            tokenizer_json = train_small_tokenizer(texts, config.text.small_vocabulary)
        return build(config, tokenizer_json)
    assert start.source is not None
    bert_json, tokenizer_json = read_text_side(start.content, start.source)
    model = rebuild(config, bert_json)  # from this stage's settings: another model in the checkpoint is noticed
    load_weights(model, start.content["model"], start.source)
    return Built(model, tokenizer_json, bert_json)


def _check_can_read(config: Config) -> None:
    if config.text.frozen:
        raise ConfigError(
            "text.frozen = true: a BERT made on the spot (text.source = small) has read nothing yet, and frozen it "
            "never would. Start from a checkpoint with --resume, or take one that has (text.source=pretrained)."
        )


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
    tokenizer, with_opposites = (
        ReportTokenizer(built.tokenizer_json, config.text.max_len, opposites=opposites)
        for opposites in (False, config.objective.opposites)
    )
    training = CaseDataset(cohort.training, cache, with_opposites, table, config.augment, config.seed)
    held_out = [case for case in cohort.validation if case.kind == "volume"]
    validation = CaseDataset(held_out, cache, tokenizer, table, None, config.seed)
    before = start.content or {}  # patients of earlier stages count, too
    trained_on = sorted({*cohort.training_patients, *before.get("training_patients", ())})
    validated_on = sorted({*cohort.validation_patients, *before.get("validation_patients", ())})
    facts = RunFacts(cohort.identity, trained_on, validated_on, cache.fingerprint)
    return Trainer(
        config,
        built,
        training,
        facts,
        output_dir=output_dir,
        device=device,
        validate=make_validate(config, validation, device),
    )
