"""``vlm3d-ct verify``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Literal

from vlm3d_ct.audit.page import audit_page
from vlm3d_ct.audit.verify import verify_directory
from vlm3d_ct.cli.arguments import Commands, add_command, add_workers
from vlm3d_ct.config import load_config
from vlm3d_ct.data.case import MaskLabels
from vlm3d_ct.errors import ConfigError, DataError
from vlm3d_ct.log import say
from vlm3d_ct.volumes.atomic import write_atomically


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "verify",
        "Read everything in a data folder as training would, and list every fault with its remedy.",
        "vlm3d-ct verify data/ctrate --json faults.json --html audit.html",
    )
    parser.add_argument("path", metavar="PATH", help="a data folder, or a configuration (all its data folders)")
    parser.add_argument("--json", metavar="FILE", help="write everything found to a file")
    parser.add_argument("--html", metavar="FILE", help="write a page with histograms and the oddest cases; names cases")
    add_workers(parser)
    parser.set_defaults(run=_verify)


def _verify(parsed: argparse.Namespace) -> int:
    for name in (parsed.json, parsed.html):
        if name is not None and not Path(name).resolve().parent.is_dir():
            raise ConfigError(f"{name}: cannot write it: there is no such folder. Give a file in a folder that exists.")
    folders, labels = _folders(Path(parsed.path))
    reports = [verify_directory(folder, workers=parsed.workers, mask_labels=labels) for folder in folders]
    for report in reports:
        for line in report.render():
            say(line)
    if parsed.json is not None:
        _write(Path(parsed.json), json.dumps([report.as_dict() for report in reports], indent=1))
    if parsed.html is not None:
        _write(Path(parsed.html), audit_page(reports))
    return DataError.exit_code if any(report.problems for report in reports) else 0


def _folders(path: Path) -> tuple[list[Path], MaskLabels | Literal["auto"]]:
    """The folders to be audited and what the ids in their masks mean."""
    if path.is_dir() or not (path.exists() or path.suffix in (".yaml", ".yml")):
        return [path], "auto"
    data = load_config(path).data
    folders = [Path(folder) for folder in (data.ctrate_dir, data.omniabnorm_dir) if folder is not None]
    if not folders:
        raise ConfigError(f"{path}: data.ctrate_dir and data.omniabnorm_dir are not set: nothing to verify.")
    return folders, data.mask_labels


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, [text.encode()])
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{path}: cannot write it: {reason}. Give a file in a folder that exists.") from error
    say(f"written: {path}")
