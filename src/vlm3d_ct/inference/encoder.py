"""From a checkpoint to a ready encoder: of scans and texts one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from vlm3d_ct.checkpoint import load_checkpoint
from vlm3d_ct.config import Config, config_from_mapping
from vlm3d_ct.data.batch import Change, Sample, collate
from vlm3d_ct.distributed import pick_device
from vlm3d_ct.errors import CheckpointError
from vlm3d_ct.inference.device import autocast_for_inference, model_input, one_thread_each, to_numpy
from vlm3d_ct.models import VisionLanguageModel, rebuild
from vlm3d_ct.objectives import ContrastiveObjective
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.text.tokenize import ReportTokenizer, collate_reports
from vlm3d_ct.volumes.nifti import read_mask, read_volume
from vlm3d_ct.volumes.preprocess import Prepared, Preprocess

TEXT_BATCH = 64
"""Texts that are embedded at once."""


@dataclass(frozen=True, eq=False)
class ScanEmbedding:
    """What the encoder makes of a scan; all vectors have length 1.

    Attributes:
        volume: of the whole scan, to be compared with `Encoder.embed_text`.
        regions: of the regions in the order of the region table (id 1 first), for `Encoder.embed_text_for_regions`.
        present: which regions the scan shows, by the given mask or the predicted one; vectors of others mean nothing.
    """

    volume: Float32[np.ndarray, " d"]
    regions: Float32[np.ndarray, "r d"]
    present: Bool[np.ndarray, " r"]


@dataclass(frozen=True)
class Encoder:
    """A trained dual encoder, ready to use; made by `load_encoder`.

    Attributes:
        config: of the training stage that made it; reading, windows and sizes follow from it.
        model: in evaluation mode, on `device`.
        tokenizer: of its text encoder.
        training_patients: hashes of the patients that it was trained on.
        validation_patients: hashes of those by which its run chose the best checkpoint.
        logit_scale: learned inverse temperature, at most 100: cosines times it are the logits of a softmax.
        provenance: checkpoint file, its SHA-256, stage, step, preprocessing fingerprint and versions, for reports.
    """

    config: Config
    model: VisionLanguageModel
    tokenizer: ReportTokenizer
    device: torch.device
    training_patients: frozenset[str]
    validation_patients: frozenset[str]
    logit_scale: float
    provenance: dict[str, str]

    def embed_volume(self, path: str | Path, mask_path: str | Path | None = None) -> Float32[np.ndarray, " d"]:
        """The unit embedding of a whole scan; see `embed_scan`."""
        return self.embed_scan(path, mask_path).volume

    def embed_scan(self, path: str | Path, mask_path: str | Path | None = None) -> ScanEmbedding:
        """The embeddings of a scan and of its regions, read, oriented, resized and windowed as in training.

        Args:
            path: the scan, ``.nii.gz`` in HU.
            mask_path: its region ids; without them the encoder predicts the regions itself.

        Raises:
            DataError: a file is missing, damaged, or not a CT in HU.
        """
        volume = read_volume(Path(path))
        mask = None
        if mask_path is not None:
            mask = read_mask(Path(mask_path), like=volume, max_label=self.config.model.num_regions)
        return self.embed_prepared(Preprocess.from_config(self.config.preprocess)(volume, mask))

    def embed_prepared(self, prepared: Prepared) -> ScanEmbedding:
        """The embeddings of a volume that the preprocessing of `config` has made."""
        table = load_region_table()
        sample = Sample("scan", prepared, self.tokenizer.encode_text("", table), Change())
        batch = collate([sample], self.tokenizer.pad_id).to(self.device)
        inputs = model_input(batch, self.config, table)
        vision = self.model.vision_encoder
        with torch.inference_mode(), autocast_for_inference(self.config, self.device):
            seen = self.model.see(inputs)
            volume, regions = vision.global_proj(seen.global_features), vision.region_proj(seen.region_features)
        return ScanEmbedding(
            volume=to_numpy(volume)[0], regions=to_numpy(regions)[0], present=seen.region_present[0].cpu().numpy()
        )

    def embed_text(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        """The unit embeddings of texts.

        Raises:
            TypeError: ``texts`` is one string, whose letters would be taken for texts.
        """
        return self._embed_in_parts(
            texts, lambda part: self.model.text_encoder.projection(self._read(part)[0].pooler_output)
        )

    def embed_text_for_regions(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        """The unit embeddings of texts in the space of regions.

        Raises:
            TypeError: as `embed_text`.
        """
        return self._embed_in_parts(texts, self.region_features)

    def region_features(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Texts (at least one) as the region level has them: the mean of their tokens, special ones left out."""
        read, mask = self._read(texts)
        words = mask.bool()
        words[:, 0] = False  # [CLS]
        words[torch.arange(len(words)), mask.sum(1) - 1] = False  # [SEP]
        features: Tensor = self.model.text_encoder.region_features(read.last_hidden_state, words[:, None])[:, 0]
        return features

    def _read(self, texts: Sequence[str]) -> tuple[Any, Int64[Tensor, "n t"]]:
        """The text encoder's output, see `TextEncoder.forward`, and the attention mask."""
        tokens = collate_reports([self.tokenizer.encode_text(text) for text in texts], self.tokenizer.pad_id)
        ids, mask, types, steps = (
            torch.from_numpy(part).to(self.device)
            for part in (tokens.input_ids, tokens.attention_mask, tokens.token_type_ids, tokens.token_steps)
        )
        return self.model.text_encoder(ids, mask, types, steps), mask

    def _embed_in_parts(
        self, texts: Sequence[str], embed: Callable[[Sequence[str]], Float[Tensor, "m d"]]
    ) -> Float32[np.ndarray, "n d"]:
        if isinstance(texts, str):
            raise TypeError(f"texts = {texts[:40]!r}: give a list of texts, [{texts[:20]!r}, ...].")
        parts = [np.zeros((0, self.config.model.embed_dim), np.float32)]
        for start in range(0, len(texts), TEXT_BATCH):
            with (
                torch.inference_mode(),
                one_thread_each(self.device),
                autocast_for_inference(self.config, self.device),
            ):
                parts.append(to_numpy(embed(texts[start : start + TEXT_BATCH])))
        return np.concatenate(parts)


def load_encoder(path: str | Path) -> Encoder:
    """A ready encoder from a checkpoint, on the GPU where there is one.

    Raises:
        CheckpointError: missing, damaged, or of another model.
    """
    path = Path(path)
    content = load_checkpoint(path)
    config, model, tokenizer = rebuild_from(content, path)
    device = pick_device()
    versions = content["versions"]
    return Encoder(
        config=config,
        model=model.to(device).eval(),
        tokenizer=tokenizer,
        device=device,
        training_patients=frozenset(content["training_patients"]),
        validation_patients=frozenset(content["validation_patients"]),
        logit_scale=_logit_scale(content, config),
        provenance={
            "checkpoint": path.resolve().name,
            "checkpoint_weights_sha256": _hash_weights(content["model"]),
            "stage": config.stage,
            "step": str(content["step"]),
            "preprocessing_fingerprint": content["fingerprint"],
            "written_by": ", ".join(f"{name} {version}" for name, version in versions.items()),
        },
    )


def rebuild_from(content: dict[str, Any], source: Path) -> tuple[Config, VisionLanguageModel, ReportTokenizer]:
    """Configuration, model with weights, and tokenizer of a checkpoint's content.

    Raises:
        CheckpointError: the content is of another model, or was prepared in another way than this release does.
    """
    bert_json, tokenizer_json = read_text_side(content, source)
    config = config_from_mapping(content["config"], source=str(source))
    model = rebuild(config, bert_json)
    tokenizer = ReportTokenizer(tokenizer_json, config.text.max_len)
    fingerprint = content["fingerprint"]
    if fingerprint != Preprocess.from_config(config.preprocess).fingerprint:
        raise CheckpointError(
            f"{source}: was trained on preprocessing {fingerprint}, this release makes "
            f"{Preprocess.from_config(config.preprocess).fingerprint}: scores would be wrong. "
            "Use the release that wrote it."
        )
    load_weights(model, content["model"], source)
    return config, model, tokenizer


def read_text_side(content: dict[str, Any], source: Path) -> tuple[str, str]:
    """BERT configuration and tokenizer of a checkpoint's content, both as JSON.

    Raises:
        CheckpointError: it is no checkpoint of a training run.
    """
    missing = {
        "config",
        "model",
        "bert_json",
        "tokenizer_json",
        "fingerprint",
        "step",
        "training_patients",
        "validation_patients",
    } - content.keys()
    if missing:
        raise CheckpointError(f"{source}: has no {', '.join(sorted(missing))}: not a checkpoint of a training run.")
    return content["bert_json"], content["tokenizer_json"]


def load_weights(model: torch.nn.Module, weights: dict[str, Tensor], source: Path) -> None:
    """Load weights that must fit exactly.

    Raises:
        CheckpointError: names or shapes differ; the first few are listed.
    """
    expected = model.state_dict()
    differing = [
        f"{name}: {tuple(weights[name].shape) if name in weights else 'absent'} in the checkpoint, "
        f"{tuple(expected[name].shape) if name in expected else 'absent'} in the model"
        for name in sorted(expected.keys() | weights.keys())
        if name not in weights or name not in expected or weights[name].shape != expected[name].shape
    ]
    if differing:
        shown = "\n  ".join(differing[:5])
        raise CheckpointError(
            f"{source}: is a checkpoint of another model; {len(differing)} tensors differ:\n  {shown}\n"
            "Use the model settings that it was trained with (`vlm3d-ct inspect` shows them)."
        )
    model.load_state_dict(weights)


def _logit_scale(content: dict[str, Any], config: Config) -> float:
    """The learned scale; that of the configuration in a checkpoint without an objective."""
    objective = ContrastiveObjective(config.objective)
    if "objective" in content:
        objective.load_state_dict(content["objective"])
    return float(objective.scale.detach().item())


def _hash_weights(weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
