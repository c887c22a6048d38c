"""YAML and overrides in, a checked `Config` out; every problem is reported at once, with its path."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import TypeAdapter, ValidationError

from vlm3d_ct.config.schema import Config
from vlm3d_ct.errors import ConfigError

_ADAPTER = TypeAdapter(Config)
_LARGEST_FILE_BYTES = 1 << 20
LEAST_DEPTH = 4
"""Blocks of a vision encoder that makes use of the regions (see `models.encoder.UNGUIDED_BLOCKS`)."""
MOST_BIASED_PATCHES = 4096
"""The bias of all their pairs takes 0.8 GB in each biased block of 12 heads."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file of deltas over the defaults.

    Args:
        path: the YAML file.
        overrides: ``section.key=value`` texts that win over the file; values are read as YAML.

    Raises:
        ConfigError: the file is missing or no YAML mapping, a key is unknown, a value does not fit; all at once.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise ConfigError(f"{path}: larger than 1 MiB; a configuration is a short YAML file.")
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}). Give the path of a YAML configuration."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid YAML: {error}") from None
    return config_from_mapping(settings if settings is not None else {}, source=str(path), overrides=overrides)


def config_from_mapping(settings: object, *, source: str, overrides: Sequence[str] = ()) -> Config:
    """A checked `Config` from nested mappings; ``source`` names their origin in messages.

    Raises:
        ConfigError: as `load_config`.
    """
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{source}: must be a mapping of sections, is a {type(settings).__name__}.")
    merged = _plain_copy(settings)
    for override in overrides:
        _apply_override(merged, override)
    try:
        config = _ADAPTER.validate_python(merged)
    except ValidationError as error:
        lines = [_describe(source, dict(problem)) for problem in error.errors()]
        raise ConfigError("\n".join(lines)) from None
    if problems := list(_contradictions(config)):
        raise ConfigError("\n".join(f"{source}: {problem}" for problem in problems))
    return config


def config_to_mapping(config: Config) -> dict[str, Any]:
    """The complete configuration as plain nested mappings (what a checkpoint carries)."""
    return cast("dict[str, Any]", _ADAPTER.dump_python(config, mode="json"))


def _plain_copy(settings: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(k): _plain_copy(v) if isinstance(v, Mapping) else v for k, v in settings.items()}


def _apply_override(settings: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise ConfigError(f"--set {override}: write it as section.key=value, e.g. --set training.lr=1e-4.")
    for key in keys[:-1]:
        settings = settings.setdefault(key, {})
        if not isinstance(settings, dict):
            raise ConfigError(f"--set {override}: {key!r} is a value, not a section.")
    try:
        settings[keys[-1]] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML: {error}") from None


def _describe(source: str, problem: dict[str, Any]) -> str:
    location = [str(part) for part in problem["loc"]]
    path = ".".join(location)
    if problem["type"] == "unexpected_keyword_argument":
        known = _known_keys(location[:-1])
        close = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(known)}."
        return f"{source}: {path}: unknown setting; {hint}"
    return f"{source}: {path} = {problem['input']!r}: {problem['msg']}."


def _known_keys(section: Sequence[str]) -> list[str]:
    kind: Any = Config
    for key in section:
        field = next((f for f in dataclasses.fields(kind) if f.name == key), None)
        kind = type(getattr(Config(), key)) if field is not None else Config
    return [field.name for field in dataclasses.fields(kind)]


def _contradictions(config: Config) -> Iterator[str]:
    """Rules that hold between settings."""
    model, training = config.model, config.training
    if model.embed_dim % model.num_heads:
        yield f"model.num_heads = {model.num_heads}: must divide model.embed_dim = {model.embed_dim}."
    if model.depth < LEAST_DEPTH:
        yield f"model.depth = {model.depth}: must be at least {LEAST_DEPTH}; the regions come in after the third block."
    patches = prod(side // part for side, part in zip(config.preprocess.size, model.patch_size, strict=True))
    if model.attention == "dense_z_bias" and patches > MOST_BIASED_PATCHES:
        yield (
            f"model.attention = dense_z_bias: keeps a number for every pair of {patches:,} patches and every head in "
            f"memory, and is for at most {MOST_BIASED_PATCHES:,}; use dense, or a smaller preprocess.size."
        )
    if training.checkpointed_blocks is not None and training.checkpointed_blocks > model.depth:
        yield f"training.checkpointed_blocks = {training.checkpointed_blocks}: there are only {model.depth} blocks."
    if model.sub_patch_size is not None:
        for axis, length, part in zip("zyx", model.patch_size, model.sub_patch_size, strict=True):
            if length % part:
                yield (
                    f"model.sub_patch_size = {list(model.sub_patch_size)}: {part} does not divide the patch's {length} "
                    f"voxels along {axis} (model.patch_size)."
                )
    for name, size in (("size", config.preprocess.size), ("slice_size", config.preprocess.slice_size)):
        for axis, length, patch in zip("zyx", size, model.patch_size, strict=True):
            if length % patch:
                yield f"preprocess.{name}: {length} voxels along {axis} are not a multiple of the patch size {patch}."
    if config.text.attention == "sentence" and config.text.pooling == "cls":
        yield (
            "text.attention = sentence: cannot be combined with text.pooling = cls, whose first token would see no "
            "sentence at all; use text.pooling=mean."
        )
    for name in ("sentence_weight", "sentence_region_weight"):
        weight = getattr(config.objective, name)
        if weight > 0 and config.text.attention == "text":
            yield (
                f"objective.{name} = {weight}: cannot be combined with text.attention = text, where every sentence "
                "knows the rest of its report; use text.attention=sentence text.pooling=mean."
            )
    yield from _contradictions_of_frozen_text(config)
    yield from _contradictions_of_compiling(config)
    if config.text.source == "small" and config.text.small_width % config.text.small_heads:
        yield f"text.small_heads = {config.text.small_heads}: must divide text.small_width = {config.text.small_width}."
    if training.strategy == "fsdp" and training.precision == "fp16":
        yield (
            "training.strategy = fsdp: cannot be combined with training.precision = fp16, whose gradient scaler takes "
            "no sharded gradients; use --bf16."
        )
    if training.strategy == "fsdp" and training.optimizer == "muon":
        yield (
            "training.strategy = fsdp: cannot be combined with training.optimizer = muon, which needs whole matrices; "
            "use ddp, or adamw."
        )
    if training.min_lr > training.lr:
        yield f"training.min_lr = {training.min_lr}: must not exceed training.lr = {training.lr}."


def _contradictions_of_frozen_text(config: Config) -> Iterator[str]:
    text = config.text
    if text.frozen and text.gradient_checkpointing:
        yield "text.gradient_checkpointing = true: a frozen BERT (text.frozen) keeps nothing to recompute."
    if text.cache_dir is not None and not text.frozen:
        yield (
            f"text.cache_dir = {text.cache_dir}: what a BERT that learns makes of a text changes with every step; set "
            "text.frozen=true, or leave it out."
        )
    if text.cache_dir is not None and config.training.strategy == "fsdp":
        yield (
            f"text.cache_dir = {text.cache_dir}: cannot be combined with training.strategy = fsdp, where all ranks "
            "read together or not at all; use ddp, or leave it out."
        )


def _contradictions_of_compiling(config: Config) -> Iterator[str]:
    training = config.training
    if training.compile and training.gradient_checkpointing == "cheap":
        yield (
            "training.compile = true: cannot be combined with training.gradient_checkpointing = cheap; what compiled "
            "blocks keep is theirs to decide. Use false, or true."
        )
    if training.compile and training.strategy == "fsdp":
        yield "training.compile = true: cannot be combined with training.strategy = fsdp; use ddp, or leave it out."
