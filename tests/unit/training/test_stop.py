"""Signals ask a run to stop; nothing more, and only while it runs."""

from __future__ import annotations

import os
import signal

import pytest

from vlm3d_ct.data.stopping import SIGNALS
from vlm3d_ct.training.stop import stop_on_signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_remembered_and_the_first_one_counts(number: signal.Signals):
    with stop_on_signals() as request:
        assert not request
        os.kill(os.getpid(), number)
        assert request
        assert request.signal_name == number.name
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.signal_name == number.name


def test_the_former_handlers_come_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with stop_on_signals():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
