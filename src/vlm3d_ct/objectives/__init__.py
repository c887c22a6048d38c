"""What training minimises: pure losses over the representations of the whole step."""

from vlm3d_ct.objectives.contrastive import global_loss
from vlm3d_ct.objectives.objective import ContrastiveObjective, Losses, Targets
from vlm3d_ct.objectives.reasoning import reasoning_loss
from vlm3d_ct.objectives.region import region_loss
from vlm3d_ct.objectives.sentence import sentence_loss, sentence_region_loss

__all__ = [
    "ContrastiveObjective",
    "Losses",
    "Targets",
    "global_loss",
    "reasoning_loss",
    "region_loss",
    "sentence_loss",
    "sentence_region_loss",
]
