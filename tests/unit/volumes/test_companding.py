"""Eight bits for Hounsfield units: the error is what the documents say, and storing twice changes nothing."""

from __future__ import annotations

import numpy as np

from vlm3d_ct.volumes.companding import LEVELS_HU, describe_error, to_codes, to_hu
from vlm3d_ct.volumes.volume import MAX_HU, MIN_HU

ALL_HU = np.arange(MIN_HU, MAX_HU + 1, dtype=np.int16).reshape(4, 32, 32)


def test_every_value_takes_the_nearest_of_256_levels() -> None:
    assert LEVELS_HU.shape == (256,)
    assert (np.diff(LEVELS_HU) > 0).all()
    assert (LEVELS_HU[0], LEVELS_HU[-1]) == (MIN_HU, MAX_HU)
    nearest = np.abs(ALL_HU.astype(int)[..., None] - LEVELS_HU).min(axis=-1)
    np.testing.assert_array_equal(np.abs(to_hu(to_codes(ALL_HU)).astype(int) - ALL_HU), nearest)


def test_the_error_is_the_stated_one() -> None:
    error = np.abs(to_hu(to_codes(ALL_HU)).astype(int) - ALL_HU)
    for low, high, most in ((-1024, -200, 4), (-200, 200, 2), (200, 1000, 12), (1000, 3071, 58)):
        assert error[(low <= ALL_HU) & (high >= ALL_HU)].max() == most
        assert f"{most} HU in {low}..{high}" in describe_error()


def test_levels_survive_any_number_of_rounds() -> None:
    once = to_hu(to_codes(ALL_HU))
    np.testing.assert_array_equal(to_hu(to_codes(once)), once)
