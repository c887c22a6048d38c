"""What the text side of a step takes when its BERT learns, when it is frozen, and when its readings are kept."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from made_up import made_up_pairs
from torch import Tensor

from speed.clock import lap, median_laps
from speed.measure import DTYPES
from vlm3d_ct.config import Config, config_from_mapping, config_to_mapping
from vlm3d_ct.models import rebuild
from vlm3d_ct.models.readings import Readings

WAYS = ("learns", "frozen", "frozen, readings kept")


def text_seconds(config: Config, bert_json: str, batch: int, device_name: str, repetitions: int) -> dict[str, float]:
    """Of a micro-batch's texts, forward and backward pass; medians. Kept readings are there already."""
    with TemporaryDirectory() as folder:
        return {way: _seconds(way, config, bert_json, batch, device_name, repetitions, Path(folder)) for way in WAYS}


def _seconds(
    way: str, config: Config, bert_json: str, batch: int, device_name: str, repetitions: int, folder: Path
) -> float:
    device, dtype = torch.device(device_name), DTYPES[config.training.precision]
    frozen = f"text.frozen={str(way != 'learns').lower()}"
    torch.manual_seed(0)
    now = config_from_mapping(config_to_mapping(config), source=way, overrides=[frozen])
    encoder = rebuild(now, bert_json).text_encoder.to(device).train()
    if way == "frozen, readings kept":
        encoder.readings = Readings(folder, encoder.bert, config.training.precision, 10**10)
    inputs = made_up_pairs(config, batch, device).model_input
    kept: list[Tensor] = []

    def forward() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            read = encoder(inputs.input_ids, inputs.attention_mask, inputs.token_type_ids, inputs.token_steps)
            regions = encoder.region_features(read.last_hidden_state, inputs.region_tokens)
            kept[:] = [encoder.projection(read.pooler_output).sum() + regions.sum()]

    return sum(median_laps([lap(device, [forward, lambda: kept[0].backward()]) for _ in range(repetitions + 1)][1:]))
