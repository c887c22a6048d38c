"""Which checkpoints stay, where the links point, and what happens when the newest one is damaged."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm3d_ct.checkpoint import load_checkpoint, save_checkpoint
from vlm3d_ct.errors import CheckpointError
from vlm3d_ct.training.keeper import Keeper, newest_checkpoint

Scores = Sequence[tuple[int, float | None]]


def content(step: int) -> dict[str, Any]:
    return {"step": step, "weight": torch.full((3,), float(step))}


def run(folder: Path, scores: Scores) -> Keeper:
    keeper = Keeper(folder, keep_best=3, keep_last=2)
    for step, score in scores:
        keeper.save(content(step), step, score)
    return keeper


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def file(step: int) -> str:
    return f"checkpoint_step_{step:08d}.pth"


def expected(scores: Scores) -> set[int]:
    """Steps that stay when each save keeps the best 3 and the last 2 of what was there."""
    there: dict[int, float | None] = {}
    for step, score in scores:
        there[step] = score
        scored = [(-s, number) for number, s in there.items() if s is not None]
        stay = {number for _, number in sorted(scored)[:3]} | set(sorted(there)[-2:])
        there = {number: there[number] for number in there if number in stay}
    return set(there)


def test_the_best_three_and_the_last_two_stay(tmp_path: Path):
    run(tmp_path, [(1, 0.5), (2, 0.9), (3, 0.8), (4, 0.1), (5, 0.7), (6, 0.2), (7, 0.3)])
    assert names(tmp_path) == [
        "checkpoint_best.pth",
        "checkpoint_last.pth",
        *(file(step) for step in (2, 3, 5, 6, 7)),
    ]
    assert (tmp_path / "checkpoint_best.pth").readlink() == Path(file(2))
    assert (tmp_path / "checkpoint_last.pth").readlink() == Path(file(7))
    assert load_checkpoint(tmp_path / "checkpoint_best.pth")["step"] == 2
    kept = load_checkpoint(tmp_path / "checkpoint_last.pth")["kept"]
    assert {entry["step"]: entry["score"] for entry in kept} == {2: 0.9, 3: 0.8, 5: 0.7, 6: 0.2, 7: 0.3}


@settings(max_examples=30)
@given(st.lists(st.sampled_from([None, 0.1, 0.2, 0.2, 0.9]), min_size=1, max_size=9))
def test_what_stays_is_what_a_naive_reading_says(tmp_path_factory: pytest.TempPathFactory, values: list[float | None]):
    folder = tmp_path_factory.mktemp("run")
    scores = list(enumerate(values, 1))
    run(folder, scores)
    steps = expected(scores)
    assert {name for name in names(folder) if "step" in name} == {file(step) for step in steps}
    assert (folder / "checkpoint_last.pth").readlink().name == file(len(values))
    scored = [(-score, step) for step, score in scores if score is not None]
    if scored:  # the earliest of equals
        assert (folder / "checkpoint_best.pth").readlink().name == file(min(scored)[1])
    else:
        assert not (folder / "checkpoint_best.pth").is_symlink()


def test_saving_a_step_again_replaces_it(tmp_path: Path):
    keeper = run(tmp_path, [(1, 0.5), (2, None)])
    keeper.save(content(2), 2, 0.7)
    assert [(entry.step, entry.score) for entry in keeper.kept] == [(1, 0.5), (2, 0.7)]
    assert (tmp_path / "checkpoint_best.pth").readlink().name == file(2)


def test_the_newest_checkpoint_is_found(tmp_path: Path):
    assert newest_checkpoint(tmp_path / "absent") is None
    assert newest_checkpoint(tmp_path) is None
    run(tmp_path, [(1, 0.5), (10, None), (9, 0.4)])
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found[0].name == file(10)
    assert found[1]["step"] == 10


def test_a_damaged_newest_checkpoint_is_named_and_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run(tmp_path, [(1, 0.5), (2, 0.6), (3, 0.7)])
    newest = tmp_path / file(3)
    newest.write_bytes(newest.read_bytes()[:-500])
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found[1]["step"] == 2
    assert f"{newest}: carries no checksum at its end" in capsys.readouterr().err


def test_every_damage_is_passed_over_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run(tmp_path, [(1, 0.5), (2, 0.6)])
    newest, random_damage = tmp_path / file(2), random.Random(0)
    whole = newest.read_bytes()
    for number in range(120):
        damaged = bytearray(whole)
        if number % 6:
            damaged[random_damage.randrange(len(whole))] ^= 1 << random_damage.randrange(8)
        else:
            del damaged[random_damage.randrange(len(whole)) :]
        newest.write_bytes(damaged)
        found = newest_checkpoint(tmp_path)
        assert found is not None
        assert found[1]["step"] == 1
        assert f"warning: {newest}: " in capsys.readouterr().err


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(tmp_path: Path):
    run(tmp_path, [(1, 0.5), (2, 0.6)])
    for step in (1, 2):
        (tmp_path / file(step)).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="none of its 2 checkpoints can be read"):
        newest_checkpoint(tmp_path)


def test_the_next_start_finishes_what_a_killed_run_left_undone(tmp_path: Path):
    scores: Scores = [(1, 0.5), (2, 0.4), (3, 0.6), (4, 0.7)]
    run(tmp_path, scores)
    # killed after the new checkpoint had its name, before the links moved and the old one went
    entries = [{"step": step, "score": score} for step, score in [*scores[:1], *scores[2:], (5, 0.8)]]
    save_checkpoint(tmp_path / file(5), {**content(5), "kept": entries})
    (tmp_path / f".{file(6)}.123.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    found = newest_checkpoint(tmp_path)
    assert found is not None
    keeper = Keeper(tmp_path, keep_best=3, keep_last=2)
    keeper.restore(found[1])
    assert names(tmp_path) == [
        "checkpoint_best.pth",
        "checkpoint_last.pth",
        *(file(step) for step in (1, 3, 4, 5)),
        "notes.txt",
    ]
    assert (tmp_path / "checkpoint_last.pth").readlink().name == file(5)
    assert (tmp_path / "checkpoint_best.pth").readlink().name == file(5)
    keeper.save(content(6), 6, 0.1)
    assert [entry.step for entry in keeper.kept] == [3, 4, 5, 6]


def test_a_run_continued_in_a_new_folder_starts_a_new_record(tmp_path: Path):
    run(tmp_path / "old", [(1, 0.5)])
    keeper = Keeper(tmp_path / "new", keep_best=3, keep_last=2)
    keeper.restore(load_checkpoint(tmp_path / "old" / file(1)))
    assert keeper.kept == []
    keeper.save(content(2), 2, None)
    assert names(tmp_path / "new") == ["checkpoint_last.pth", file(2)]
    assert names(tmp_path / "old") == ["checkpoint_best.pth", "checkpoint_last.pth", file(1)]
