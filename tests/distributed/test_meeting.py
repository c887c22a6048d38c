"""Ranks that start again meet each other, not those before them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist

from vlm3d_ct.distributed import meet

SOON, PATIENCE = timedelta(seconds=0.2), timedelta(seconds=60)


@pytest.fixture(scope="module")
def seen() -> list[dist.TCPStore]:
    """A launcher's store as each of four ranks sees it, over all attempts."""
    first = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=PATIENCE)
    return [first, *(dist.TCPStore("127.0.0.1", first.port, is_master=False, timeout=PATIENCE) for _ in range(3))]


def attempt(seen: list[dist.TCPStore], order: list[int]) -> set[str]:
    """Let ranks come in this order; the names that they agreed on."""
    with ThreadPoolExecutor(len(order)) as pool:
        return set(pool.map(lambda rank: meet(seen[rank], rank, len(order), PATIENCE), order))


def test_every_attempt_agrees_on_a_name_of_its_own_in_whatever_order_its_ranks_come(seen: list[dist.TCPStore]):
    orders = random.Random(0)
    names = [attempt(seen, orders.sample(range(4), 4)) for _ in range(20)]
    assert all(len(agreed) == 1 for agreed in names), names
    assert len(set.union(*names)) == 20


@pytest.mark.parametrize("early", [1, 2])
def test_a_rank_does_not_take_what_dead_ones_left_for_an_answer(early: int, seen: list[dist.TCPStore]):
    attempt(seen, [0, 1, 2])
    with pytest.raises(TimeoutError, match=f"rank {early}: rank 0 did not come"):
        meet(seen[early], early, 3, SOON)  # no rank 0 in this attempt
    assert len(attempt(seen, [early, 3 - early, 0])) == 1


LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--standalone")
RANK = """
import os, signal, sys, time
from pathlib import Path
again, rank, arrived = os.environ["TORCHELASTIC_RESTART_COUNT"] != "0", os.environ["RANK"], Path(sys.argv[1])
while again and rank == "1" and not arrived.exists():
    time.sleep(0.01)
import torch  # so long it takes for rank 0 to be there first, and to find what the dead rank 1 left
from vlm3d_ct.distributed import any_rank, process_group
if again and rank == "0":
    arrived.touch()
cpu = torch.device("cpu")
with process_group(cpu):
    any_rank(True, cpu)
    if not again:
        if rank == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        any_rank(True, cpu)  # waits for the dead one, and fails
    print("met again")
"""


@pytest.mark.long
def test_one_restart_is_enough_after_a_rank_was_killed(tmp_path: Path):
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node=2",
            "--max-restarts=1",
            script,
            tmp_path / "arrived",
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("met again") == 2
