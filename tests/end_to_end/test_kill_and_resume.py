"""Runs that are killed anywhere, and continued by anyone: nothing is lost, and nothing comes out differently."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import environment

from tiny import NO_DROPOUT
from vlm3d_ct.checkpoint import load_checkpoint

HERE = Path(__file__).parent
INTERVAL, STEPS = 5, 20
NEVER: dict[str, Any] = {"kind": "never", "number": 0}
PASSES_A_STEP = 4
"""Of one rank: two micro-batches, each embedded twice."""


def play(
    folder: Path,
    data: Sequence[str],
    moments: Sequence[dict[str, Any]],
    ranks: Sequence[int] = (2,),
    workers: Sequence[int] = (0,),
    timeout: float = 280,
) -> dict[str, Any]:
    task = {"overrides": list(data), "moments": list(moments), "ranks": list(ranks), "workers": list(workers)}
    done = subprocess.run(
        [sys.executable, str(HERE / "interrupted.py"), str(folder), json.dumps(task)],
        env={**environment(), "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def kill(folder: Path, data: Sequence[str], times: int, statements: int, timeout: float) -> dict[str, Any]:
    """Kill so often at random times, and inside the saving of checkpoints; the first run is left alone."""
    random_moment = random.Random(0)
    moments = [{"kind": "time", "number": random_moment.uniform(0.2, 4)} for _ in range(times)]
    moments += [{"kind": "statement", "number": random_moment.randrange(1, 900)} for _ in range(statements)]
    random_moment.shuffle(moments)
    return play(folder, data, [NEVER, *moments], timeout=timeout)


def assert_nothing_was_lost(found: dict[str, Any]) -> None:
    for end in found["found"]:
        # the rank that is killed second may have noticed before that the other one is gone
        assert -signal.SIGKILL in end["ends"], found["log"]
        assert 0 not in end["ends"], found["log"]
        assert (end["unusable"], end["strays"]) == (0, 0), end
        # one interval, and what was trained while the checkpoint at its end was being written
        assert end["lost"] < 2 * INTERVAL, end
    straight, *others = found["ended"]
    assert straight["statements"] >= 900, "the moments do not reach all of the saving"
    assert len(others) >= 1
    for run in others:
        assert run["state"] == straight["state"]
        assert run["cases"] == straight["cases"]
        assert run["files"] == straight["files"]
        assert not any(name.startswith(".") for name in run["files"])


def test_a_run_that_is_killed_anywhere_is_continued_to_the_bit(phantom_data: tuple[str, ...], tmp_path: Path):
    found = kill(tmp_path / "a", phantom_data, times=2, statements=3, timeout=280)
    assert_nothing_was_lost(found)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_300_kills_leave_no_unusable_checkpoint_and_no_stray_file(phantom_data: tuple[str, ...], tmp_path: Path):
    found = kill(tmp_path / "a", phantom_data, times=200, statements=100, timeout=7200)
    kinds = [end["moment"]["kind"] for end in found["found"]]
    most = max(end["lost"] for end in found["found"])
    print(f"killed: {kinds.count('time')} by time, {kinds.count('statement')} in a save; most steps lost {most}")
    print(f"{sum(end['half'] > 0 for end in found['found'])} left a half-written file")
    assert_nothing_was_lost(found)


def interruptions(random_moment: random.Random, count: int) -> list[dict[str, Any]]:
    """Within the passes of a step, at its end, twice in an epoch: by a request to stop and by force, in turn."""
    longest = 2 * INTERVAL * PASSES_A_STEP
    return [
        {
            "kind": "forward",
            "number": random_moment.randrange(1, longest) if i % 3 else 1 + PASSES_A_STEP * random_moment.randrange(9),
            "signal": (signal.SIGTERM, signal.SIGKILL, signal.SIGINT)[i % 3].value,
        }
        for i in range(count)
    ]


def interrupt(folder: Path, data: Sequence[str], count: int, workers: Sequence[int], timeout: float) -> None:
    moments = [NEVER, *interruptions(random.Random(1), count)]
    found = play(folder, (*data, "training.precision=fp16"), moments, (1,), workers, timeout)
    assert {end["ends"][0] for end in found["found"]} <= {4, -signal.SIGKILL}, found["log"]
    assert [end["orphans"] for end in found["found"]] == [0] * len(found["found"])
    straight, *others = found["ended"]
    assert others
    for run in others:
        assert run["state"] == straight["state"]
        assert run["cases"] == straight["cases"]


def test_interruptions_in_the_middle_of_steps_change_no_bit(phantom_data: tuple[str, ...], tmp_path: Path):
    interrupt(tmp_path / "a", phantom_data, 3, (0, 2, 4), timeout=280)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_20_interruptions_change_no_bit(phantom_data: tuple[str, ...], tmp_path: Path):
    interrupt(tmp_path / "a", phantom_data, 20, (0, 2, 4), timeout=3600)


def in_order(run: dict[str, Any]) -> dict[int, list[str]]:
    """The cases of every step, over ranks and micro-batches."""
    steps: dict[int, list[str]] = {}
    for key in sorted(run["cases"]):
        (ids,) = run["cases"][key]
        steps.setdefault(int(key.split()[1]), []).extend(ids)
    return steps


def test_one_rank_then_two_then_one_see_the_same_cases_and_reach_the_same_weights(
    phantom_data: tuple[str, ...], tmp_path: Path
):
    """Two ranks sum a gradient in another order: relative error 1e-5 (see test_two_processes), of a norm up to 1.

    AdamW's quotient is Lipschitz with about 2 / eps; with eps = 1e-2 and a rate of 1e-4 that makes 2e-7 a step, 4e-6
    in all 20, and ten times as much is allowed for what the steps make of each other's errors. No dropout: its seed
    names the rank.
    """
    data = (*phantom_data, *NO_DROPOUT, "training.eps=1e-2")
    stops = [{"kind": "forward", "number": n, "signal": signal.SIGTERM.value} for n in (5 * PASSES_A_STEP + 2, 8)]
    found = play(tmp_path / "a", data, [NEVER, *stops], ranks=(1, 1, 2, 1))
    assert [end["ends"] for end in found["found"]] == [[4], [4, 4]], found["log"]
    straight, mixed = found["ended"]
    assert in_order(mixed) == in_order(straight)
    assert sorted(in_order(mixed)) == list(range(STEPS))
    before, after = (load_checkpoint(tmp_path / f"ended_{number}.pth")["model"] for number in (0, 3))
    apart = torch.cat(
        [(after[name] - tensor).flatten() for name, tensor in before.items() if tensor.is_floating_point()]
    )
    assert 0 < float(apart.norm()) < 4e-5
