"""Configuration: one place for all defaults, YAML for deltas."""

from vlm3d_ct.config.load import config_from_mapping, config_to_mapping, load_config
from vlm3d_ct.config.schema import (
    AugmentConfig,
    Config,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    PreprocessConfig,
    TextConfig,
    TrainingConfig,
)

__all__ = [
    "AugmentConfig",
    "Config",
    "DataConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "PreprocessConfig",
    "TextConfig",
    "TrainingConfig",
    "config_from_mapping",
    "config_to_mapping",
    "load_config",
]
