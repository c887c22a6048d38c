"""What to say where torch cannot compile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch._dynamo.exc import TorchDynamoException

from vlm3d_ct.errors import ConfigError


@contextmanager
def explain_failure_to_compile() -> Iterator[None]:
    """Name the setting and the remedy where a block cannot be compiled.

    Raises:
        ConfigError: it cannot.
    """
    try:
        yield
    except TorchDynamoException as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"training.compile = true: torch could not compile the encoder's blocks: {reason} Install what is missing "
            "(on a CPU a C++ compiler such as g++), or leave training.compile out; the same command with "
            "--allow_changes training.compile then goes on from what was saved, if anything was."
        ) from error
