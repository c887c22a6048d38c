"""Flags that several commands share, and how they become a configuration."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from vlm3d_ct.config import Config, load_config
from vlm3d_ct.errors import ConfigError

Commands = argparse._SubParsersAction


def add_command(
    commands: Commands[argparse.ArgumentParser], name: str, summary: str, example: str
) -> argparse.ArgumentParser:
    """A command whose ``--help`` ends with an example."""
    return commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """``--config`` and ``--set``."""
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file, see configs/")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override a setting; may be repeated",
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    """``--workers``."""
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: cores)"
    )


def read_config(parsed: argparse.Namespace, *shortcuts: tuple[str, object]) -> Config:
    """The configuration with ``--set`` and then the short flags applied (None: not given)."""
    overrides = [*parsed.overrides, *(f"{key}={value}" for key, value in shortcuts if value is not None)]
    return load_config(parsed.config, overrides)


def existing_directory(flag: str, path: str) -> Path:
    """The path, if it is a folder.

    Raises:
        ConfigError: it is not.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise ConfigError(f"{flag} {path}: is not a folder. Give the folder that holds the cases.")
    return directory
