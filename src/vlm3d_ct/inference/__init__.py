"""From a checkpoint to embeddings: of scans and texts one by one, and of whole pools."""

from vlm3d_ct.inference.device import autocast_for_inference, model_input, one_thread_each, to_numpy
from vlm3d_ct.inference.encoder import Encoder, ScanEmbedding, load_encoder, load_weights, read_text_side, rebuild_from
from vlm3d_ct.inference.pool import MaskUse, embed_cases, embed_once, embedding_key, guided
from vlm3d_ct.inference.scans import embed_scans, save_scans

__all__ = [
    "Encoder",
    "MaskUse",
    "ScanEmbedding",
    "autocast_for_inference",
    "embed_cases",
    "embed_once",
    "embed_scans",
    "embedding_key",
    "guided",
    "load_encoder",
    "load_weights",
    "model_input",
    "one_thread_each",
    "read_text_side",
    "rebuild_from",
    "save_scans",
    "to_numpy",
]
