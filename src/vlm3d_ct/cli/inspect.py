"""``vlm3d-ct inspect``: what a file is, in a few lines."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import yaml

from vlm3d_ct.checkpoint import load_checkpoint
from vlm3d_ct.cli.arguments import Commands, add_command
from vlm3d_ct.config import config_to_mapping, load_config
from vlm3d_ct.data.cache import SUFFIX
from vlm3d_ct.data.entry import read_header
from vlm3d_ct.errors import ConfigError
from vlm3d_ct.inference import read_text_side
from vlm3d_ct.log import say
from vlm3d_ct.volumes.companding import describe_error
from vlm3d_ct.volumes.nifti import read_volume


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "inspect",
        "Say what a checkpoint, configuration, cache entry or volume is.",
        "vlm3d-ct inspect exp_log/pretrain/checkpoint_best.pth",
    )
    parser.add_argument("file", metavar="FILE")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    path = Path(parsed.file)
    if not path.is_file():
        raise ConfigError(f"{path}: is not a file. Give a checkpoint, configuration, cache entry or volume.")
    kinds = {
        ".pth": _checkpoint,
        ".yaml": _config,
        ".yml": _config,
        SUFFIX: _cache_entry,
        ".gz": _volume,
    }
    describe = kinds.get(path.suffix)
    if describe is None:
        raise ConfigError(f"{path}: a file ending in {path.suffix!r} is not known; known are {', '.join(kinds)}.")
    for line in describe(path):
        say(line)
    return 0


def _checkpoint(path: Path) -> Iterator[str]:
    content = load_checkpoint(path)
    read_text_side(content, path)  # refuses what no training run wrote
    size = sum(tensor.numel() for tensor in content["model"].values())
    yield f"{path}: checkpoint, checksum good, {size / 1e6:.2f} M numbers in {len(content['model'])} tensors"
    optimizer = "with" if "optimizer" in content else "without"
    yield f"format_version: {content['format_version']}, {path.stat().st_size:,} bytes, {optimizer} optimiser state"
    yield "written by: " + ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    for name in ("stage", "step", "step_batch", "fingerprint", "cohort_identity"):
        yield f"{name}: {content[name]}"
    yield f"trained on {len(content['training_patients'])} patients, validated on {len(content['validation_patients'])}"
    scores = [f"step {entry['step']}: {entry['score']}" for entry in content["kept"]]
    yield f"checkpoints kept beside it, with their scores: {'; '.join(scores)}"
    yield yaml.safe_dump(content["config"], sort_keys=False, default_flow_style=None).rstrip()


def _config(path: Path) -> Iterator[str]:
    yield f"{path}: configuration, complete with its defaults:"
    yield yaml.safe_dump(config_to_mapping(load_config(path)), sort_keys=False, default_flow_style=None).rstrip()


def _cache_entry(path: Path) -> Iterator[str]:
    header, _ = read_header(path)
    yield f"{path}: prepared case"
    yield from (f"{name}: {value}" for name, value in asdict(header).items())
    if header.kind == "volume" and header.precision == "uint8":
        yield f"HU in 8 bits, off by at most {describe_error()}"


def _volume(path: Path) -> Iterator[str]:
    volume = read_volume(path)
    z, y, x = volume.voxels_hu.shape
    low, high = (int(value) for value in np.percentile(volume.voxels_hu, (1, 99)))
    yield f"{path}: volume, {z} x {y} x {x} voxels (z, y, x), as read in canonical axes (LPS)"
    yield "spacing_mm: " + " x ".join(f"{mm:.3f}" for mm in volume.spacing_mm)
    yield f"HU: {volume.voxels_hu.min()} to {volume.voxels_hu.max()}, 1st to 99th percentile {low} to {high}"
    yield f"how it was read: {volume.scale}"
