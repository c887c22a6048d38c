"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlm3d_ct.config import Config, config_to_mapping
from vlm3d_ct.data.batch import Batch
from vlm3d_ct.data.dataset import CaseDataset, training_loader
from vlm3d_ct.data.order import MicroBatchOrder
from vlm3d_ct.distributed import any_rank, gather_objects, rank, replicate, sum_over_ranks, world_size
from vlm3d_ct.errors import DataError, Problem, Stopped
from vlm3d_ct.inference import model_input
from vlm3d_ct.log import Ticker, progress, say
from vlm3d_ct.models import Built, VisionLanguageModel
from vlm3d_ct.objectives import ContrastiveObjective
from vlm3d_ct.seeding import derive_seed
from vlm3d_ct.training.keeper import Keeper
from vlm3d_ct.training.optimizer import build_optimizer, full_state_dict
from vlm3d_ct.training.recorder import Recorder, RecordKind
from vlm3d_ct.training.saver import Saver
from vlm3d_ct.training.schedule import learning_rate
from vlm3d_ct.training.step import MicroBatch, StepLosses, Update, backward
from vlm3d_ct.training.stop import StopRequest, stop_on_signals
from vlm3d_ct.training.system import system_metrics

Validate = Callable[[VisionLanguageModel], Mapping[str, float]]
"""Scores of the model, the same on every rank; the entry ``score`` (higher is better) chooses the best checkpoint."""


@dataclass(frozen=True)
class RunFacts:
    """What a checkpoint says about its run besides the weights."""

    cohort_identity: str
    training_patients: list[str]
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
        self.model = replicate(built.model, device)
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
        self._last_loss = ""
        self._unrecorded: str | None = None

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
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        self.step, self.skipped_in_a_row = content["step"], content["skipped_in_a_row"]
        if rank() == 0:
            self.saver.keeper.restore(content)

    def run(self, tensorboard_dir: Path) -> None:
        """Train to the end, validating and saving on the way.

        Raises:
            Stopped: a signal asked for it; the checkpoint is written.
            DataError: too many steps in a row had no finite gradient.
            ConfigError: a checkpoint or the metrics cannot be written.
        """
        order = self.order()
        total = self.config.training.num_epochs * order.steps_per_epoch
        if self.step < total:
            self.saver.rehearse(self._content())
        recorder = Recorder(self.output_dir, tensorboard_dir, self.step) if rank() == 0 else None
        batches = training_loader(self.dataset, order, self.config)
        self.built.model.train()  # transformers hands BERT over in evaluation mode
        try:
            with stop_on_signals() as stop, progress(self.config.stage, total, initial=self.step) as ticker:
                while self.step < total:
                    self._one_step(batches, order.steps_per_epoch, total, recorder, ticker)
                    self._after_step(order.steps_per_epoch, total, recorder, stop)
                self.saver.settle()
        finally:
            self.saver.wait()
            if recorder is not None:
                with suppress(OSError) if self._unrecorded else nullcontext():
                    recorder.close()

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
            precision=training.precision,
            loss_scale=self.update.loss_scale(),
        )
        if world_size() > 1 and self.objective.logit_scale.grad is not None:
            # equal on all ranks up to rounding; averaged, so that it is equal to the bit
            self.objective.logit_scale.grad = sum_over_ranks(self.objective.logit_scale.grad) / world_size()
        norm, taken = self.update(rate)
        self.objective.limit_scale()
        self.skipped_in_a_row = 0 if taken else self.skipped_in_a_row + 1
        self.step += 1
        took = time.perf_counter() - start
        epoch = self.step / steps_per_epoch
        if recorder is not None and (self.step % training.log_interval == 0 or self.step == total):
            self._record(recorder, "train", epoch, _train_metrics(losses, rate, norm, self.objective))
            pairs = training.batch_size * training.accumulation_steps * world_size()
            self._record(recorder, "system", epoch, system_metrics(self.device, took, waited, pairs))
        ticker.advance(note=f"epoch {epoch:.1f}/{training.num_epochs}" + self._loss_note(losses))
        if self.skipped_in_a_row >= training.max_nonfinite_steps:
            own = [case for batch in loaded for case in batch.case_ids]
            self._give_up([case for cases in gather_objects(own) for case in cases])

    def _record(self, recorder: Recorder, kind: RecordKind, epoch: float, values: Mapping[str, float]) -> None:
        """Record; what cannot be written ends the run after this step, once a checkpoint is saved."""
        if self._unrecorded is not None:
            return
        try:
            recorder.record(kind, self.step, epoch, values)
        except OSError as error:
            self._unrecorded = (
                f"{self.output_dir}: the metrics of step {self.step} or the event file beside it cannot be written: "
                f"{error.strerror}. A checkpoint of this step is written; free space and start again."
            )

    def _loss_note(self, losses: StepLosses) -> str:
        # reading the loss waits for the device: only now and then
        if self.device.type == "cpu" or self.step % self.config.training.log_interval == 0:
            self._last_loss = f" loss {float(losses.total):.3f}"
        return self._last_loss

    def _to_device(self, batch: Batch, number: int) -> MicroBatch:
        batch = batch.to(self.device)
        return MicroBatch(
            model_input=model_input(batch, self.config, self.dataset.table),
            mentions=batch.region_mentions,
            groups=batch.region_groups,
            seed=derive_seed(self.config.seed, "dropout", self.step, rank(), number),
        )

    def _after_step(self, steps_per_epoch: int, total: int, recorder: Recorder | None, stop: StopRequest) -> None:
        epoch, into_epoch = divmod(self.step, steps_per_epoch)
        finished, saved = self.step == total, False
        if into_epoch == 0 and (finished or epoch % self.config.training.val_interval == 0):
            scores = self.validate(self.built.model)
            if recorder is not None:
                self._record(recorder, "validation", float(epoch), scores)
            say(f"epoch {epoch}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))
            self.save(scores["score"])
            saved = True
        ending = bool(stop) or self._unrecorded is not None
        if not any_rank(ending or self.saver.wants_attention(), self.device):
            return
        if not saved:
            self.save(None)
        if any_rank(ending, self.device):
            self.saver.settle(self._unrecorded)
            if finished:
                return
            name = stop.signal_name or "a signal on another rank"
            raise Stopped(f"stopped by {name} after step {self.step}; start the same command again to continue.")

    def save(self, score: float | None) -> None:
        """Begin to write a checkpoint of the current step; all ranks take part.

        Raises:
            ConfigError: the one before could not be written.
        """
        self.saver.save(self._content(), self.step, score)

    def _content(self) -> dict[str, Any]:
        return {
            "stage": self.config.stage,
            "step": self.step,
            "skipped_in_a_row": self.skipped_in_a_row,
            "step_batch": self._step_batch(),
            "config": config_to_mapping(self.config),
            "model": self.built.model.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": full_state_dict(self.optimizer),
            "scaler": self.scaler.state_dict(),
            "tokenizer_json": self.built.tokenizer_json,
            "bert_json": self.built.bert_json,
            "fingerprint": self.facts.fingerprint,
            "cohort_identity": self.facts.cohort_identity,
            "training_patients": self.facts.training_patients,
        }

    def _step_batch(self) -> int:
        training = self.config.training
        return training.batch_size * training.accumulation_steps * world_size()

    def _give_up(self, case_ids: list[str]) -> None:
        raise DataError(
            Problem(
                code="not-finite",
                file=str(self.output_dir),
                field="gradient",
                value="NaN or infinite",
                message=f"{self.skipped_in_a_row} steps in a row had no finite gradient and were skipped; "
                f"cases of the last one: {', '.join(case_ids)}.",
                remedy="Look at these cases with `vlm3d-ct verify`, lower training.lr, or use --bf16.",
            )
        )


def _train_metrics(losses: StepLosses, rate: float, norm: float, objective: ContrastiveObjective) -> dict[str, float]:
    return {
        "loss": float(losses.total),
        "global_loss": float(losses.global_loss),
        "region_loss": float(losses.region_loss),
        "occupancy_loss": float(losses.occupancy_loss),
        "lr": rate,
        "grad_norm": norm,
        "temperature": 1 / float(objective.scale.detach()),
    }
