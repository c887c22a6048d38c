"""Which cases a step sees: a pure function of (seed, epoch), the same for any number of ranks and workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from vlm3d_ct.errors import ConfigError
from vlm3d_ct.seeding import random_stream


def steps_of_kind(num_cases: int, batch: int) -> int:
    """Steps that cover every case once; the last one is filled up."""
    return -(-num_cases // batch)


def steps_per_epoch(cases_by_kind: Mapping[str, Sequence[int]], batch: int) -> int:
    """Steps of one epoch over all kinds."""
    return sum(steps_of_kind(len(cases), batch) for cases in cases_by_kind.values())


def epoch_order(cases_by_kind: Mapping[str, Sequence[int]], batch: int, seed: int, epoch: int) -> list[list[int]]:
    """The steps of one epoch, each a list of ``batch`` cases of one kind.

    Every case comes once; the last step of a kind is filled up with the first cases of its order. The kinds are
    interleaved evenly, in proportion to their steps. One kind a step: mixed, the model could tell pairs apart by shape.

    Args:
        cases_by_kind: case numbers by kind.
        batch: cases of a step, over all ranks and micro-batches.
        seed: of the run.
        epoch: counted from 0.

    Raises:
        ConfigError: there is no case, or a kind has fewer than a step takes (a case would be its own negative).
    """
    _check_enough(cases_by_kind, batch)
    placed: list[tuple[float, str, list[int]]] = []
    for kind, cases in cases_by_kind.items():
        shuffled = [cases[i] for i in random_stream(seed, "order", epoch, kind).permutation(len(cases))]
        num_steps = steps_of_kind(len(cases), batch)
        shuffled += shuffled[: num_steps * batch - len(cases)]
        for step in range(num_steps):
            placed.append(((step + 0.5) / num_steps, kind, shuffled[step * batch : (step + 1) * batch]))
    return [cases for _, _, cases in sorted(placed, key=lambda item: item[:2])]


def _check_enough(cases_by_kind: Mapping[str, Sequence[int]], batch: int) -> None:
    if not cases_by_kind:
        raise ConfigError("there is no case to train on. Add patients, or lower data.validation_fraction.")
    for kind, cases in cases_by_kind.items():
        if len(cases) < batch:
            raise ConfigError(
                f"training has {len(cases)} cases of kind {kind!r}, but a step contrasts {batch} of them. Add data, or "
                f"lower training.batch_size, training.accumulation_steps or the number of ranks."
            )


class MicroBatchOrder:
    """The micro-batches of one rank, from a given step of the run to its end, as (epoch, case number) pairs.

    Raises:
        ConfigError: see `epoch_order`; before anything is trained.
    """

    def __init__(
        self,
        cases_by_kind: Mapping[str, Sequence[int]],
        *,
        batch_size: int,
        accumulation_steps: int,
        rank: int,
        world_size: int,
        seed: int,
        first_step: int,
        num_epochs: int,
    ):
        self._cases_by_kind, self._seed = cases_by_kind, seed
        self._batch_size, self._accumulation_steps = batch_size, accumulation_steps
        self._rank, self._world_size = rank, world_size
        self._first_step, self._num_epochs = first_step, num_epochs
        self._step_batch = batch_size * accumulation_steps * world_size
        _check_enough(cases_by_kind, self._step_batch)
        self.steps_per_epoch = steps_per_epoch(cases_by_kind, self._step_batch)

    def __len__(self) -> int:
        steps = self._num_epochs * self.steps_per_epoch - self._first_step
        return max(0, steps) * self._accumulation_steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        share = self._batch_size * self._accumulation_steps
        first_epoch, done = divmod(self._first_step, self.steps_per_epoch)
        for epoch in range(first_epoch, self._num_epochs):
            for cases in epoch_order(self._cases_by_kind, self._step_batch, self._seed, epoch)[done:]:
                own = cases[self._rank * share : (self._rank + 1) * share]
                for start in range(0, share, self._batch_size):
                    yield [(epoch, case) for case in own[start : start + self._batch_size]]
            done = 0
