"""A reasoning-aligned 3D vision-language encoder for chest CT."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm3d_ct.config import Config, load_config
    from vlm3d_ct.inference import Encoder, load_encoder
    from vlm3d_ct.models import build_model, build_vision_encoder

__version__ = version("vlm3d-ct")

__all__ = ["Config", "Encoder", "build_model", "build_vision_encoder", "load_config", "load_encoder"]

_HOMES = {
    "Config": "vlm3d_ct.config",
    "Encoder": "vlm3d_ct.inference",
    "build_model": "vlm3d_ct.models",
    "build_vision_encoder": "vlm3d_ct.models",
    "load_config": "vlm3d_ct.config",
    "load_encoder": "vlm3d_ct.inference",
}


def __getattr__(name: str) -> Any:
    """Load the front door's parts when they are asked for: commands that need no torch start without it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vlm3d_ct' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
