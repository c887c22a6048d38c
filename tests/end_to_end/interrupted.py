"""Runs that are killed on purpose: a parent with everything imported forks the ranks, so that a start costs a second.

`python interrupted.py FOLDER JSON`, where the JSON names what to do (see `Task`); prints what it found as JSON. It is a
program of its own because a process may be forked safely only while it has no threads.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from commands import free_port
from test_training import digest

from tiny import tiny_config
from vlm3d_ct import checkpoint
from vlm3d_ct.config import Config
from vlm3d_ct.data.batch import Batch
from vlm3d_ct.data.dataset import CaseDataset
from vlm3d_ct.errors import UserError
from vlm3d_ct.models import VisionLanguageModel
from vlm3d_ct.training import keeper
from vlm3d_ct.training.run import train
from vlm3d_ct.training.step import MicroBatch
from vlm3d_ct.training.trainer import Stopping, Trainer, Validate

INTERVAL = 5
"""Steps between two checkpoints: 21 volumes and 6 slices, six a step."""
LEAVE_S = 20.0
"""A worker looks every 5 s whether its rank is there."""
SAVING = {checkpoint.__file__, keeper.__file__}


@dataclass(frozen=True)
class Moment:
    """When an attempt ends early.

    Attributes:
        kind: ``time``, ``statement`` (of saving, by rank 0) or ``forward`` (a pass of rank 0); ``never`` counts the
            statements and comes to its end.
        number: seconds, or the n-th of them.
        signal: how it ends.
    """

    kind: str
    number: float
    signal: int = signal.SIGKILL


@dataclass
class Task:
    """What to do: ``attempts`` of ``moments`` each until they are used up, then one to the end."""

    overrides: list[str]
    moments: list[Moment]
    ranks: list[int] = field(default_factory=lambda: [2])
    """Of the attempts in turn; a step has six pairs whatever it is."""
    workers: list[int] = field(default_factory=lambda: [0])


def config_of(task: Task, attempt: int) -> Config:
    ranks, workers = task.ranks[attempt % len(task.ranks)], task.workers[attempt % len(task.workers)]
    shared = f"training.batch_size={6 // ranks // (3 - ranks)}", f"training.accumulation_steps={3 - ranks}"
    steps = ("training.num_epochs=4", "training.val_interval=1", "training.log_interval=1")
    return tiny_config(*steps, *shared, f"data.num_workers={workers}", *task.overrides)


def make_validate(_config: Config, _dataset: CaseDataset, _device: torch.device) -> Validate:
    def validate(_model: VisionLanguageModel, _stopping: Stopping) -> Mapping[str, float]:
        return {"score": 0.5}

    return validate


def arm(moment: Moment, folder: Path) -> Callable[[], None]:
    """Make this process end itself at the moment; returns what writes down how many statements of saving there were."""
    random_cut, count, passes = random.Random(str(moment)), 0, 0

    def at_statement(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename not in SAVING:
            return None
        if event == "line":
            count += 1
            if moment.kind == "statement" and count == moment.number:
                left = frame.f_locals.get("left")
                if left:  # in the middle of a write: any number of its bytes have arrived
                    os.write(frame.f_locals["self"]._descriptor, left[: random_cut.randrange(len(left) + 1)])
                os.kill(os.getpid(), moment.signal)
        return at_statement

    def in_forward(module: torch.nn.Module, _inputs: Any) -> None:
        nonlocal passes
        if isinstance(module, VisionLanguageModel):
            passes += 1
            if passes == moment.number:
                os.kill(os.getpid(), moment.signal)

    if moment.kind in ("statement", "never"):
        threading.settrace(at_statement)  # for threads to come: the one that saves
    if moment.kind == "forward":
        torch.nn.modules.module.register_module_forward_pre_hook(in_forward)
    return lambda: (folder / "statements").write_text(str(count)) and None


def note_cases(folder: Path, rank: int) -> None:
    """Write down which cases each micro-batch of this rank holds."""
    to_device = Trainer._to_device

    def noting(self: Trainer, batch: Batch, number: int) -> MicroBatch:
        with (folder / f"cases_{rank}.jsonl").open("a") as file:
            file.write(json.dumps([self.step, number, list(batch.case_ids)]) + "\n")
        return to_device(self, batch, number)

    Trainer._to_device = noting  # type: ignore[method-assign]


def be_rank(rank: int, ranks: int, port: int, config: Config, moment: Moment | None, folder: Path) -> None:
    os.setpgid(0, 0)  # its workers are those of its group
    log = os.open(folder / f"log_{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    note_cases(folder, rank)
    count = arm(moment, folder) if rank == 0 and moment is not None else None
    try:
        train(config, folder / "run", None, make_validate)
        if count is not None:
            count()
    except UserError as error:
        print(error, flush=True)
        os._exit(error.exit_code)
    os._exit(0)


def orphans(groups: Sequence[int]) -> int:
    """How many of the groups of processes still live `LEAVE_S` after their ranks; those are ended."""
    until, living = time.monotonic() + LEAVE_S, list(groups)
    while living and time.monotonic() < until:
        time.sleep(0.01)
        living = [group for group in living if _is_alive(group)]
    for group in living:
        os.killpg(group, signal.SIGKILL)
    return len(living)


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def attempt(task: Task, number: int, moment: Moment | None, folder: Path) -> tuple[list[int], int, int]:
    """Start the ranks and end them at the moment; returns how each ended, rank 0's process id, and `orphans`."""
    config, port = config_of(task, number), free_port()
    ranks, pids = task.ranks[number % len(task.ranks)], []
    for rank in range(ranks):
        pid = os.fork()
        if pid == 0:
            try:
                be_rank(rank, ranks, port, config, moment, folder)
            finally:
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
                os._exit(1)
        pids.append(pid)
    if moment is not None and moment.kind == "time":
        until = time.monotonic() + moment.number
        while time.monotonic() < until and os.waitid(os.P_PID, pids[0], os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.002)
        for pid in pids:
            os.kill(pid, moment.signal)
    ends = [os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1])]
    if ends[0] < 0:  # as a launcher would
        for pid in pids[1:]:
            os.kill(pid, signal.SIGKILL)
    ends += [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids[1:]]
    return ends, pids[0], orphans(pids)


def last_step(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return max([json.loads(line)["step"] for line in lines if line.endswith("}")], default=0)


def look(run: Path, before: int, pid: int) -> dict[str, int]:
    """What an attempt left: unusable checkpoints, steps lost, and files that its start should have removed."""
    steps, unusable = [0], 0
    for path in run.glob("checkpoint_step_*.pth"):
        try:
            steps.append(checkpoint.load_checkpoint(path)["step"])
        except UserError:
            unusable += 1
    reached = last_step(run)
    hidden = [path.name for path in run.glob(".*")]
    strays = [name for name in hidden if f".{pid}." not in name and f"@{pid}." not in name] if reached > before else []
    return {"unusable": unusable, "lost": reached - max(steps), "strays": len(strays), "half": len(hidden)}


def result(folder: Path) -> dict[str, Any]:
    content = checkpoint.load_checkpoint(folder / "run" / "checkpoint_last.pth")
    cases: dict[str, list[list[str]]] = {}
    for path in sorted(folder.glob("cases_*.jsonl")):
        for line in path.read_text().splitlines():
            step, number, ids = json.loads(line)
            seen = cases.setdefault(f"{path.stem} {step} {number}", [])
            if ids not in seen:
                seen.append(ids)
    counted = folder / "statements"
    state = {name: digest(content[name]) for name in ("model", "objective", "optimizer", "scaler", "step")}
    return {
        "state": state,
        "cases": cases,
        "files": sorted(path.name for path in (folder / "run").iterdir()),
        "statements": int(counted.read_text()) if counted.exists() else 0,
    }


def main(folder: Path, task: Task) -> dict[str, Any]:
    """All attempts; a run that came to its end is begun again as long as there are moments left."""
    folder.mkdir(parents=True)
    found: list[dict[str, Any]] = []
    ended: list[dict[str, Any]] = []
    for number, moment in enumerate([*task.moments, None]):
        before = last_step(folder / "run")
        ends, pid, alone = attempt(task, number, moment, folder)
        if set(ends) == {0}:
            ended.append({"attempt": number, **result(folder)})
            shutil.copy(folder / "run" / "checkpoint_last.pth", folder.with_name(f"ended_{number}.pth"))
            if moment is not None:
                shutil.rmtree(folder)
                folder.mkdir()
        else:
            about = {"moment": moment and vars(moment), "ends": ends, "orphans": alone}
            found.append(about | look(folder / "run", before, pid))
    return {"found": found, "ended": ended, "log": (folder / "log_0").read_text()[-3000:]}


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    given["moments"] = [Moment(**moment) for moment in given["moments"]]
    assert threading.active_count() == 1
    print(json.dumps(main(Path(sys.argv[1]), Task(**given))))
