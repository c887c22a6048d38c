"""What to say where torch cannot compile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vlm3d_ct.config import Config
from vlm3d_ct.errors import ConfigError


@contextmanager
def explain_failure_to_compile(config: Config) -> Iterator[None]:
    """Name the setting and the remedy where a block cannot be compiled.

    Raises:
        ConfigError: it cannot.
    """
    if not config.training.compile:
        yield
        return
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException  # slow import

    try:
        yield
    except (TorchDynamoException, FailOnRecompileLimitHit) as error:
        cause = getattr(error, "inner_exception", error)
        reason = " ".join((str(cause).strip() or type(cause).__name__).splitlines()[:1])
        missing = "" if isinstance(error, FailOnRecompileLimitHit) else "Install what is missing (a C++ compiler), or l"
        raise ConfigError(
            f"training.compile = true: torch could not compile the encoder's blocks: {reason} {missing or 'L'}eave "
            "training.compile out; the same command with --allow_changes training.compile then goes on from what was "
            "saved, if anything was."
        ) from error
