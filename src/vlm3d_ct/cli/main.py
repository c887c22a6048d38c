"""Entry points: parse, run, and turn a user's mistake into a message and an exit code."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence

from vlm3d_ct.cli import evaluate, inspect, phantom, predict, prepare, train, verify
from vlm3d_ct.data.stopping import SIGNALS
from vlm3d_ct.errors import Stopped, UserError
from vlm3d_ct.log import is_main_rank

EXIT_CODES = """exit codes: 0 done; 2 usage or configuration; 3 data or checkpoint invalid; 4 stopped, can be continued;
1 anything unexpected, with its traceback"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``vlm3d-ct`` with all its commands."""
    parser = argparse.ArgumentParser(
        prog="vlm3d-ct",
        description="Train, evaluate and apply a 3D vision-language encoder for chest CT.",
        epilog=EXIT_CODES,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (phantom, verify, prepare, train, evaluate, predict, inspect):
        module.add_commands(commands)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code."""
    parsed = build_parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.run
    try:
        return command(parsed)
    except UserError as error:
        if is_main_rank() or not isinstance(error, Stopped):
            kind = {2: "configuration", 3: "data", 4: "stopped"}.get(error.exit_code, "error")
            where = "" if is_main_rank() else f"rank {os.environ['RANK']}: "
            print(f"{where}{kind}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except BrokenPipeError:
        # the reader of our output has gone (`| head`): nothing is wrong with the work done so far
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def entry(command: Sequence[str] = ()) -> None:
    """Console script; the plan's scripts put their ``command`` before the arguments."""
    try:
        code = run([*command, *sys.argv[1:]])
    finally:
        # Loader workers ignore the SIGTERM with which Python would end them: after an unexpected error, whose traceback
        # still holds the loader, it would wait for them for ever.
        for child in multiprocessing.active_children():
            child.kill()
    if code == Stopped.exit_code:
        for number in SIGNALS:  # a launcher repeats its signal; the code must not become that of the signal
            signal.signal(number, signal.SIG_IGN)
    sys.exit(code)
