"""Slots: memory is used again when nobody holds it, and not before."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from vlm3d_ct.data.slots import Slots, check_shared_memory
from vlm3d_ct.errors import ConfigError


def test_a_slot_is_free_when_the_last_view_of_it_is_gone():
    slots = Slots(2, 64)
    assert [slots.take(), slots.take(), slots.take()] == [0, 1, None]
    content = slots.receive(1)
    part = content[8:].view(torch.int16)[3:]
    array = part.numpy()
    del content
    gc.collect()
    assert slots.take() is None
    del part
    gc.collect()
    assert slots.take() is None
    del array
    gc.collect()
    assert slots.take() == 1


def test_what_does_not_fit_gets_no_view():
    slots = Slots(1, 64)
    assert slots.view(0, 0, (4, 8), torch.int16) is not None
    assert slots.view(0, 1, (4, 8), torch.int16) is None


def test_too_little_shared_memory_is_refused_with_a_remedy(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"needs 1000000000\.00 GB of shared memory .* --shm-size"):
        check_shared_memory(10**18, tmp_path)
