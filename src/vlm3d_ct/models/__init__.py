"""The encoders."""

from vlm3d_ct.models.build import Built, build, build_model, build_vision_encoder, rebuild
from vlm3d_ct.models.dual import ModelInput, Representations, VisionLanguageModel
from vlm3d_ct.models.encoder import EncoderOutput, VisionEncoder
from vlm3d_ct.models.text_encoder import TextEncoder

__all__ = [
    "Built",
    "EncoderOutput",
    "ModelInput",
    "Representations",
    "TextEncoder",
    "VisionEncoder",
    "VisionLanguageModel",
    "build",
    "build_model",
    "build_vision_encoder",
    "rebuild",
]
