"""Files appear whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vlm3d_ct.volumes.atomic import remove_stray_files, write_atomically


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "entry.ct"
    write_atomically(path, [b"old"])

    def chunks() -> Iterator[bytes]:
        yield b"new, half"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(path, chunks())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_what_dead_writers_left_is_removed(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys; from vlm3d_ct.volumes.atomic import write_atomically\n"
        "def chunks():\n    yield b'half'\n    os._exit(9)\n"
        "write_atomically(pathlib.Path(sys.argv[1]), chunks())"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.ct")], check=False).returncode == 9
    (left,) = tmp_path.iterdir()
    host = left.name.split("@")[1]
    foreign = tmp_path / ".b.ct@another-host@1.tmp"
    alive = tmp_path / f".c.ct@{host}@{os.getppid()}.tmp"
    unrelated = tmp_path / ".notes.tmp"
    for path in (foreign, alive, unrelated):
        path.write_bytes(b"")
    assert remove_stray_files(tmp_path) == 1
    assert sorted(tmp_path.iterdir()) == sorted([foreign, alive, unrelated])
