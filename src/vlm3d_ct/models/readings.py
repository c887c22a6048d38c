"""What a frozen BERT makes of texts, kept on disk: a text that was read once is not read again."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float16, Integer
from torch import Tensor

from vlm3d_ct.errors import ConfigError
from vlm3d_ct.log import warn
from vlm3d_ct.volumes.atomic import remove_stray_files, write_atomically

if TYPE_CHECKING:
    from transformers import BertModel

SUFFIX = ".reading"
READ_BY = ("num_attention_heads", "hidden_act", "layer_norm_eps", "position_embedding_type")
"""What a BERT's weights do not say of how it reads."""
_PREFIX = struct.Struct("<8sII")
_MAGIC = b"VLM3DTX\x01"
_CRC = struct.Struct("<I")
Features = Float16[np.ndarray, "rows width"]
"""Of a text's tokens, a row each, and, in the last row, of the whole text."""


class Readings:
    """A folder of readings by one BERT.

    A text is read by itself, without its batch's padding, and what was read is rounded to fp16 (a relative error of
    at most 0.0005) also where it was read just now: what a step gets does not depend on what was read before. A file
    that is damaged is replaced.

    Args:
        root: for the folders of all BERTs.
        bert: the text model, with its weights.
        kind: what else the readings depend on, such as the precision; part of a folder's name.
        most_bytes: that this process may add.

    Raises:
        ConfigError: the folder cannot be made.
    """

    def __init__(self, root: Path, bert: BertModel, kind: str, most_bytes: int):
        self.root, self.folder = root, root / f"{_fingerprint(bert)}-{kind}"
        self._width, self._free_bytes, self._is_full = int(bert.config.hidden_size), most_bytes, False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_stray_files(self.folder)
        except OSError as error:
            raise ConfigError(
                f"text.cache_dir = {root}: {self.folder} cannot be used: {error.strerror}. Give a folder on another "
                "disk."
            ) from None

    def read(
        self,
        bert: Callable[..., Any],
        input_ids: Integer[Tensor, "b t"],
        attention_mask: Integer[Tensor, "b t"],
        token_type_ids: Integer[Tensor, "b t"] | None,
        token_steps: Integer[Tensor, "b t"] | None,
    ) -> Any:
        """What ``bert`` makes of a batch of texts, see `TextEncoder.forward`; 0 for what fills up."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling  # slow import

        lengths = attention_mask.sum(1).tolist()
        given = (input_ids, attention_mask, token_type_ids, token_steps)
        on_cpu = [None if part is None else part.cpu().numpy() for part in given]
        found: list[Features | None] = []
        for i, length in enumerate(lengths):
            if length == 0:
                found.append(None)
                continue
            key = _key([None if part is None else part[i, :length] for part in on_cpu])
            features = self.find(key)
            if features is None:
                alone = bert(*(None if part is None else part[i : i + 1, :length] for part in given))
                both = torch.cat((alone.last_hidden_state[0].float(), alone.pooler_output.float()))
                features = both.half().cpu().numpy()
                self.keep(key, features)
            found.append(features)
        tokens = torch.zeros(*input_ids.shape, self._width)
        pooled = torch.zeros(len(input_ids), self._width)
        for i, features in enumerate(found):
            if features is not None:
                tokens[i, : len(features) - 1] = torch.from_numpy(features[:-1])
                pooled[i] = torch.from_numpy(features[-1])
        device = input_ids.device
        return BaseModelOutputWithPooling(last_hidden_state=tokens.to(device), pooler_output=pooled.to(device))

    def find(self, key: str) -> Features | None:
        """What was kept of a text; None for nothing, or nothing that could be read."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            warn(f"{path}: cannot be read ({error.strerror}); the text is read anew.")
            return None
        if (features := _decode(content)) is None:
            warn(f"{path}: is damaged; the text is read anew.")
        return features

    def keep(self, key: str, features: Features) -> None:
        """Keep what was read of a text, if it is finite and there is room; a disk that refuses ends the keeping."""
        prefix, body = _PREFIX.pack(_MAGIC, *features.shape), features.tobytes()
        size = _PREFIX.size + len(body) + _CRC.size
        if not np.isfinite(features).all() or self._is_full:
            return
        if size > self._free_bytes:
            self._is_full = True
            warn(
                f"text.cache_dir = {self.root}: holds as much as text.cache_gb allows; texts that are not there are "
                "read anew, one by one."
            )
            return
        path = self._path(key)
        try:
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, [prefix, body, _CRC.pack(zlib.crc32(body, zlib.crc32(prefix)))], sync=False)
            self._free_bytes -= size
        except OSError as error:
            self._is_full = True
            warn(f"{path}: cannot be written ({error.strerror}); no further readings of texts are kept.")

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key[2:]}{SUFFIX}"


def kept_bytes(root: Path) -> tuple[int, int]:
    """How many readings a folder holds, of whatever BERT, and their bytes."""
    sizes = []
    for path in root.glob(f"*/??/*{SUFFIX}"):
        with suppress(OSError):  # another run has just replaced it
            sizes.append(path.stat().st_size)
    return len(sizes), sum(sizes)


def _decode(content: bytes) -> Features | None:
    if len(content) < _PREFIX.size + _CRC.size:
        return None
    magic, rows, width = _PREFIX.unpack_from(content)
    if magic != _MAGIC or len(content) != _PREFIX.size + 2 * rows * width + _CRC.size:
        return None
    if zlib.crc32(content[: -_CRC.size]) != _CRC.unpack(content[-_CRC.size :])[0]:
        return None
    return np.frombuffer(content, np.float16, rows * width, _PREFIX.size).reshape(rows, width).copy()


def _key(parts: list[Integer[np.ndarray, " t"] | None]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(b"none" if part is None else part.astype("<i8").tobytes())
        digest.update(b"|")
    return digest.hexdigest()


def _fingerprint(bert: BertModel) -> str:
    digest = hashlib.blake2b(digest_size=8)
    config = bert.config.to_dict()
    digest.update(json.dumps([config.get(name) for name in READ_BY], default=str).encode())
    for name, weight in sorted(bert.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.contiguous().flatten().view(torch.uint8).cpu().numpy().data)
    return digest.hexdigest()
