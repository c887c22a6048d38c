"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vlm3d_ct.config import Config, config_to_mapping
from vlm3d_ct.data.batch import Batch
from vlm3d_ct.data.dataset import CaseDataset, training_loader
from vlm3d_ct.data.order import MicroBatchOrder
from vlm3d_ct.distributed import any_rank, leaving_together, rank, sum_over_ranks, world_size
from vlm3d_ct.errors import ConfigError, Stopped
from vlm3d_ct.log import Ticker, progress, say, warn
from vlm3d_ct.models import Built, VisionLanguageModel
from vlm3d_ct.objectives import ContrastiveObjective
from vlm3d_ct.seeding import derive_seed
from vlm3d_ct.training.account import Account
from vlm3d_ct.training.compiling import explain_failure_to_compile
from vlm3d_ct.training.keeper import Keeper
from vlm3d_ct.training.memory import explain_out_of_memory, static_bytes
from vlm3d_ct.training.nonfinite import explain_skip, too_many_skips
from vlm3d_ct.training.optimizer import build_optimizer
from vlm3d_ct.training.recorder import Recorder
from vlm3d_ct.training.saver import Saver
from vlm3d_ct.training.schedule import learning_rate
from vlm3d_ct.training.sharding import distribute, whole_model
from vlm3d_ct.training.state import gather_state, restore_optimizer
from vlm3d_ct.training.step import MicroBatch, StepLosses, Update, backward, micro_batch
from vlm3d_ct.training.stop import StopRequest
from vlm3d_ct.training.system import system_metrics
from vlm3d_ct.training.totals import Totals

Stopping = Callable[[], bool]
"""Whether this rank was asked to stop."""
Validate = Callable[[VisionLanguageModel, Stopping], Mapping[str, float]]
"""Scores of the model, the same on every rank; the entry ``score`` (higher is better) chooses the best checkpoint.
Raises `Stopped` on all ranks together soon after one of them was asked to stop."""


@dataclass(frozen=True)
class RunFacts:
    """What a checkpoint says about its run besides the weights."""

    cohort_identity: str
    training_patients: list[str]
    validation_patients: list[str]
    fingerprint: str


class Trainer:
    """One stage of training; `run` takes it from its current step to its end.

    Everything random depends on (seed, step) only: an interrupted run goes on as if it had not been.
    """

    def __init__(
        self,
        config: Config,
        built: Built,
        dataset: CaseDataset,
        facts: RunFacts,
        *,
        output_dir: Path,
        device: torch.device,
        validate: Validate,
    ):
        self.config, self.built, self.dataset, self.facts = config, built, dataset, facts
        self.output_dir, self.device, self.validate = output_dir, device, validate
        self.model = distribute(built.model, config, device)
        self.objective = ContrastiveObjective(config.objective).to(device)
        self.optimizer = build_optimizer((built.model, self.objective), config.training)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.training.precision == "fp16")
        self.update = Update(
            [*built.model.parameters(), *self.objective.parameters()],
            self.optimizer,
            self.scaler,
            config.training.gradient_clip,
        )
        keeper = Keeper(output_dir, config.training.keep_best, config.training.keep_last)
        self.saver = Saver(keeper, config.training.save_minutes)
        self.step = 0
        self.skipped_in_a_row = 0
        self._validated_step = 0
        self.account = Account(
            config,
            built.model,
            self.objective,
            steps_per_epoch=self.order().steps_per_epoch,
            pairs=self._step_batch(),
        )
        self._last_loss = ""
        sharded = config.training.strategy == "fsdp"
        self._explain_out_of_memory = partial(
            explain_out_of_memory,
            config,
            built.bert_json,
            static_bytes(built.model.parameters()) // (world_size() if sharded else 1),
            device,
        )

    def order(self) -> MicroBatchOrder:
        """This rank's micro-batches from the current step on."""
        kinds = sorted({case.kind for case in self.dataset.cases}, reverse=True)
        training = self.config.training
        return MicroBatchOrder(
            {kind: [i for i, case in enumerate(self.dataset.cases) if case.kind == kind] for kind in kinds},
            batch_size=training.batch_size,
            accumulation_steps=training.accumulation_steps,
            rank=rank(),
            world_size=world_size(),
            seed=self.config.seed,
            first_step=self.step,
            num_epochs=training.num_epochs,
        )

    def restore(self, content: dict[str, Any]) -> None:
        """Take up a checkpoint of this very run (the weights are loaded already)."""
        self.objective.load_state_dict(content["objective"])
        restore_optimizer(self.optimizer, content["optimizer"])
        if content["scaler"]:  # empty, where the run was not in fp16 before
            self.scaler.load_state_dict(content["scaler"])
        self.step, self.skipped_in_a_row = content["step"], content["skipped_in_a_row"]
        scored = [entry["step"] for entry in content["kept"] if entry["score"] is not None]
        self._validated_step = max(scored, default=0)
        self.account.totals = Totals(**content["totals"])
        with leaving_together():
            if rank() == 0:
                self.saver.keeper.restore(content)

    def run(self, tensorboard_dir: Path, stop: StopRequest) -> None:
        """Train to the end, validating and saving on the way.

        Args:
            tensorboard_dir: for the event files.
            stop: looked at after every step and within a validation.

        Raises:
            Stopped: a signal asked for it; the checkpoint is written.
            DataError: too many steps in a row had no finite gradient.
            ConfigError: a checkpoint or the metrics cannot be written, or the device has too little memory.
        """
        order = self.order()
        total = self.config.training.num_epochs * order.steps_per_epoch
        first_step = self.step
        if self.step < total:
            self.saver.rehearse(self._content())
        with leaving_together():
            recorder = Recorder(self.output_dir, tensorboard_dir, self.step) if rank() == 0 else None
        batches = training_loader(self.dataset, order, self.config)
        self.built.model.train()  # transformers hands BERT over in evaluation mode
        try:
            with progress(self.config.stage, total, initial=self.step) as ticker:
                self._between_steps(order.steps_per_epoch, total, recorder, stop, saved=True)
                while self.step < total:
                    with self._explain_out_of_memory(), explain_failure_to_compile(self.config):
                        self._one_step(batches, order.steps_per_epoch, total, recorder, ticker)
                    self._between_steps(order.steps_per_epoch, total, recorder, stop, saved=False)
                self.saver.settle()
        finally:
            batches.close()  # its workers end now, not when a traceback lets go of them
            self.saver.wait()
            if recorder is not None:
                recorder.close()
        if recorder is not None and self.step > first_step:
            self.account.finish(self.saver.keeper.kept, self.step, self.output_dir, self.device)
        if recorder is not None and recorder.failure is not None:
            raise ConfigError(recorder.failure)

    def _one_step(
        self, batches: Iterator[Any], steps_per_epoch: int, total: int, recorder: Recorder | None, ticker: Ticker
    ) -> None:
        training, start = self.config.training, time.perf_counter()
        loaded: list[Batch] = [next(batches) for _ in range(training.accumulation_steps)]
        waited = time.perf_counter() - start
        micro_batches = [self._to_device(batch, i) for i, batch in enumerate(loaded)]
        rate = learning_rate(
            self.step,
            peak=training.lr,
            floor=training.min_lr,
            warmup_steps=training.warmup_epochs * steps_per_epoch,
            total_steps=total,
        )
        losses = backward(
            self.model,
            self.objective,
            micro_batches,
            accumulation=training.accumulation,
            precision=training.precision,
            loss_scale=self.update.loss_scale(),
        )
        if world_size() > 1 and self.objective.logit_scale.grad is not None:
            # equal on all ranks up to rounding; averaged, so that it is equal to the bit
            self.objective.logit_scale.grad = sum_over_ranks(self.objective.logit_scale.grad) / world_size()
        logs = (self.step + 1) % training.log_interval == 0 or self.step + 1 == total
        norms = self.account.gradient_norms(self.update.loss_scale()) if logs else {}
        norm, taken = self.update(rate)
        self.objective.limit_scale()
        self.step += 1
        took = time.perf_counter() - start
        self.account.count(took, waited, taken, total - self.step)
        epoch = self.step / steps_per_epoch
        if recorder is not None and logs:
            metrics = _train_metrics(losses, rate, norm, self.objective) | norms | self.account.observe(self.step)
            recorder.record("train", self.step, epoch, metrics)
            pairs = self._step_batch()
            recorder.record("system", self.step, epoch, system_metrics(self.device, took, waited, pairs))
        ticker.advance(note=f"epoch {epoch:.1f}/{training.num_epochs}" + self._loss_note(losses))
        if taken:
            self.skipped_in_a_row = 0
        else:
            self._after_skip(micro_batches, [batch.case_ids for batch in loaded], losses, recorder, epoch)

    def _after_skip(
        self,
        micro_batches: Sequence[MicroBatch],
        case_ids: Sequence[Sequence[str]],
        losses: StepLosses,
        recorder: Recorder | None,
        epoch: float,
    ) -> None:
        """Say why a step was skipped and what is suspected; give up after too many."""
        training = self.config.training
        if not any_rank(not losses.total.isfinite(), self.device) and self.update.is_calibrating():
            # nothing is wrong: the scaled gradient was too large for fp16, and the scale has been halved
            if recorder is not None:
                recorder.record_skip(self.step, epoch, "overflow", [])
            return
        self.skipped_in_a_row += 1
        skip = explain_skip(self.model, micro_batches, case_ids, losses, training.precision)
        if recorder is not None:
            recorder.record_skip(self.step, epoch, skip.cause, skip.case_ids)
        warn(
            f"step {self.step} was skipped on all ranks: {skip} "
            f"({self.skipped_in_a_row} in a row; {training.max_nonfinite_steps} end the run)."
        )
        if self.skipped_in_a_row >= training.max_nonfinite_steps:
            raise too_many_skips(skip, self.skipped_in_a_row, self.output_dir)

    def _loss_note(self, losses: StepLosses) -> str:
        # reading the loss waits for the device: only now and then
        if self.device.type == "cpu" or self.step % self.config.training.log_interval == 0:
            self._last_loss = f" loss {float(losses.total):.3f}"
        return self._last_loss

    def _to_device(self, batch: Batch, number: int) -> MicroBatch:
        batch = batch.to(self.device)
        # counted over the whole step: two ranks draw what one rank with two micro-batches draws
        place = rank() * self.config.training.accumulation_steps + number
        seed = derive_seed(self.config.seed, "dropout", self.step, place)
        return micro_batch(batch, self.config, self.dataset.table, seed)

    def _between_steps(
        self, steps_per_epoch: int, total: int, recorder: Recorder | None, stop: StopRequest, *, saved: bool
    ) -> None:
        """Stop if asked to, or validate and save where it is due; a continued run makes up for what a stop prevented.

        Args:
            steps_per_epoch: of the run.
            total: steps of the run.
            recorder: on rank 0.
            stop: the request.
            saved: whether there is nothing new since the last checkpoint.
        """
        epoch, into_epoch = divmod(self.step, steps_per_epoch)
        finished = self.step == total
        at_validation = (
            self.step > 0 and into_epoch == 0 and (finished or epoch % self.config.training.val_interval == 0)
        )
        due = at_validation and self._validated_step != self.step
        interrupted = any_rank(bool(stop), self.device) and (due or not finished)
        if due and not interrupted:
            if not saved:
                self.save(None)  # whatever happens in the validation, these epochs are kept
                saved = True
            try:
                scores = self.validate(
                    whole_model(self.model, self.built, self.config, self.device), lambda: bool(stop)
                )
            except Stopped:
                interrupted = True
            else:
                if recorder is not None:
                    recorder.record("validation", self.step, float(epoch), scores)
                say(f"epoch {epoch}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))
                self._validated_step = self.step
                self.save(scores["score"])
                interrupted = any_rank(bool(stop), self.device) and not finished
        problem = None if recorder is None else recorder.failure
        if not (interrupted or any_rank(problem is not None or self.saver.wants_attention(), self.device)):
            return
        if not saved:
            self.save(None)
        if interrupted or any_rank(problem is not None, self.device):
            self.saver.settle(problem)
            raise Stopped(f"stopped by {stop.reason} after step {self.step}; start the same command again to continue.")

    def save(self, score: float | None) -> None:
        """Begin to write a checkpoint of the current step; all ranks take part.

        Raises:
            ConfigError: the one before could not be written.
        """
        self.saver.save(self._content(), self.step, score)

    def _content(self) -> dict[str, Any]:
        return {
            **gather_state(self.built.model, self.optimizer),
            "stage": self.config.stage,
            "step": self.step,
            "skipped_in_a_row": self.skipped_in_a_row,
            "totals": asdict(self.account.totals),
            "step_batch": self._step_batch(),
            "config": config_to_mapping(self.config),
            "objective": self.objective.state_dict(),
            "scaler": self.scaler.state_dict(),
            "tokenizer_json": self.built.tokenizer_json,
            "bert_json": self.built.bert_json,
            "fingerprint": self.facts.fingerprint,
            "cohort_identity": self.facts.cohort_identity,
            "training_patients": self.facts.training_patients,
            "validation_patients": self.facts.validation_patients,
        }

    def _step_batch(self) -> int:
        training = self.config.training
        return training.batch_size * training.accumulation_steps * world_size()


def _train_metrics(losses: StepLosses, rate: float, norm: float, objective: ContrastiveObjective) -> dict[str, float]:
    return {
        "loss": float(losses.total),
        "global_loss": float(losses.global_loss),
        "region_loss": float(losses.region_loss),
        "reasoning_loss": float(losses.reasoning_loss),
        "sentence_loss": float(losses.sentence_loss),
        "sentence_region_loss": float(losses.sentence_region_loss),
        "occupancy_loss": float(losses.occupancy_loss),
        "lr": rate,
        "grad_norm": norm,
        "temperature": 1 / float(objective.scale.detach()),
    }
