"""The same seed gives the same bytes on every processor."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vlm3d_ct.phantom import rounded
from vlm3d_ct.phantom.settings import GENERATION
from vlm3d_ct.seeding import random_stream

REFERENCE = (3, "ddba5b1dd17370b7ecc3de19440a9616035807485393dc14466ae263fec2a7b5")
"""Generation and SHA-256 of the cohort below; to be renewed with `GENERATION`."""
COHORT = """
import sys
from pathlib import Path
from vlm3d_ct.phantom.cohort import write_cohort
write_cohort(Path(sys.argv[1]), patients=6, slices=3, seed=7, workers=1)
"""
OTHER_PROCESSORS = {
    "without AVX-512": {"NPY_DISABLE_CPU_FEATURES": "X86_V4,AVX512_ICL,AVX512_SPR"},
    "without AVX2, other BLAS": {
        "NPY_DISABLE_CPU_FEATURES": "X86_V3,X86_V4,AVX512_ICL,AVX512_SPR",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
}
"""Settings with which NumPy and its BLAS compute as on processors of other kinds, where they know these settings."""


def digest(directory: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(directory).as_posix()}\n".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def written(directory: Path, **environment: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", COHORT, str(directory)]
    subprocess.run(command, check=True, env={**os.environ, **environment}, capture_output=True)
    return digest(directory)


def test_the_bytes_are_those_of_the_reference(tmp_path: Path) -> None:
    assert (GENERATION, written(tmp_path / "cohort")) == REFERENCE


@pytest.mark.parametrize("processor", OTHER_PROCESSORS)
def test_the_bytes_are_the_same_on_other_processors(processor: str, tmp_path: Path) -> None:
    assert written(tmp_path / "cohort", **OTHER_PROCESSORS[processor]) == REFERENCE[1]


def test_rounded_functions_are_exact_to_the_last_digit() -> None:
    values = random_stream("rounded").uniform(0.01, 6.0, size=(40, 30)).astype(np.float32)
    wide = values.astype(np.longdouble)
    for function, reference in (
        (rounded.sine, np.sin(wide)),
        (rounded.cosine, np.cos(wide)),
        (rounded.exponential, np.exp(wide)),
        (lambda x: rounded.power(x, 2.2), wide ** np.longdouble(2.2)),
        (lambda x: rounded.angle(x, x[::-1].copy()), np.arctan2(wide, wide[::-1])),
    ):
        found = function(values)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, reference.astype(np.float32))
    product = (wide @ wide.T).astype(np.float32)
    np.testing.assert_array_equal(rounded.product(values, values.T.copy()), product)
