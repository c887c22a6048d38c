"""``vlm3d-ct evaluate``: one module for each kind of evaluation, and what they share."""

from __future__ import annotations

import argparse

from vlm3d_ct.cli.arguments import Commands, add_command
from vlm3d_ct.cli.evaluate import compare, probe, regions, retrieval, zero_shot

KINDS = (retrieval, zero_shot, regions, probe, compare)
"""Modules with an ``add_kind(kinds)`` that registers a kind."""


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Register the command and its kinds."""
    parser = add_command(
        commands,
        "evaluate",
        "Measure a trained encoder on cases that it has not seen.",
        "vlm3d-ct evaluate retrieval --help",
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for module in KINDS:
        module.add_kind(kinds)
