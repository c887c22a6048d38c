"""Errors that a user can cause: each names what, the value, where, and what to do.

Exit codes of every command: 0 done, 2 usage or configuration, 3 data or checkpoint invalid, 4 stopped but
resumable, 1 anything unexpected (with its traceback).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass


class UserError(Exception):
    """Base of all errors that are printed as a message, without a traceback."""

    exit_code = 1


class ConfigError(UserError):
    """The command line or a configuration is wrong."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One fault in the data.

    Attributes:
        code: short stable name of the kind of fault, e.g. ``mask-shape``; problems are grouped by it.
        file: the file (or folder) at fault, as the user knows it.
        field: the part of the file: a header field, a column, a JSON key, ``voxels``.
        value: what was found there, shortened.
        message: one sentence that says what is wrong.
        remedy: one sentence that says what to do.
    """

    code: str
    file: str
    field: str
    value: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {self.field} = {self.value}: {self.message} {self.remedy} [{self.code}]"

    def as_dict(self) -> dict[str, str]:
        """The same fields for JSON."""
        return asdict(self)


class DataError(UserError):
    """Data on disk cannot be used. Carries every problem that was found."""

    exit_code = 3

    def __init__(self, problems: Problem | Sequence[Problem]):
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        shown = [str(problem) for problem in self.problems[:20]]
        if len(self.problems) > len(shown):
            shown.append(f"... and {len(self.problems) - len(shown)} more; `vlm3d-ct verify` lists all of them.")
        super().__init__("\n".join(shown))

    def __reduce__(self) -> tuple[type[DataError], tuple[tuple[Problem, ...]]]:
        return (type(self), (self.problems,))  # survives the trip out of a worker process


class CheckpointError(UserError):
    """A checkpoint is damaged, of another model, or of another preprocessing."""

    exit_code = 3


class Stopped(UserError):  # noqa: N818 - not a fault: the run was asked to stop and can go on
    """The run was asked to stop, wrote its checkpoint, and can be continued."""

    exit_code = 4
