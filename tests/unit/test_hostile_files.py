"""A pickle in place of, or inside, any file that is loaded: refused with a typed error, and never executed (S1)."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vlm3d_ct.checkpoint import FORMAT_VERSION, load_checkpoint, save_checkpoint
from vlm3d_ct.config import load_config
from vlm3d_ct.data.entry import read_header
from vlm3d_ct.data.labels import read_labels
from vlm3d_ct.data.records import read_records
from vlm3d_ct.embeddings import EmbeddingSet
from vlm3d_ct.errors import UserError
from vlm3d_ct.evaluation.prompts import read_prompts
from vlm3d_ct.evaluation.tuned import load_thresholds
from vlm3d_ct.inference import load_encoder
from vlm3d_ct.volumes.nifti import read_mask, read_volume
from vlm3d_ct.volumes.slices import read_slices


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.canary,)


def plain(payload: Touch) -> bytes:
    return pickle.dumps(payload)


def torch_file(payload: Touch) -> bytes:
    file = io.BytesIO()
    torch.save({"model": payload, "format_version": FORMAT_VERSION}, file)
    return file.getvalue()


def old_torch_file(payload: Touch) -> bytes:
    file = io.BytesIO()
    torch.save({"model": payload}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def npz(payload: Touch) -> bytes:
    file = io.BytesIO()
    np.savez(file, header=np.array([payload], dtype=object), sha256=np.zeros(32, np.uint8))
    return file.getvalue()


def npy(payload: Touch) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([payload], dtype=object), allow_pickle=True)
    return file.getvalue()


def gzipped(payload: Touch) -> bytes:
    return gzip.compress(pickle.dumps(payload) + bytes(1000))


def zipped(payload: Touch) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(payload))
        archive.writestr("header.npy", npy(payload))
    return file.getvalue()


def json_text(payload: Touch) -> bytes:
    return b'{"py/reduce": [{"py/function": "os.system"}, ["touch ' + str(payload.canary).encode() + b'"]]}'


def yaml_text(payload: Touch) -> bytes:
    return f"!!python/object/apply:os.system ['touch {payload.canary}']\n".encode()


PAYLOADS = (plain, torch_file, old_torch_file, npz, npy, gzipped, zipped, json_text, yaml_text)
LOADERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "checkpoint": ("c.pth", load_checkpoint),
    "encoder": ("c.pth", load_encoder),
    "embeddings": ("e.npz", EmbeddingSet.load),
    "cache entry": ("c.ct", read_header),
    "thresholds": ("t.json", load_thresholds),
    "labels": ("l.csv", read_labels),
    "prompts": ("p.csv", read_prompts),
    "volume": ("v.nii.gz", read_volume),
    "mask": ("m.nii.gz", read_mask),
    "slice": ("s.jpg", lambda path: read_slices([path])),
    "configuration": ("c.yaml", load_config),
}


@pytest.mark.parametrize("make", PAYLOADS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("loader", LOADERS)
def test_a_hostile_file_is_refused_and_not_run(tmp_path: Path, loader: str, make: Callable[[Touch], bytes]) -> None:
    name, load = LOADERS[loader]
    path, canary = tmp_path / name, tmp_path / "canary"
    path.write_bytes(make(Touch(canary)))
    with pytest.raises(UserError):
        load(path)
    assert not canary.exists()


@pytest.mark.parametrize("make", PAYLOADS, ids=lambda make: make.__name__)
def test_a_hostile_text_file_is_a_problem_and_not_run(tmp_path: Path, make: Callable[[Touch], bytes]) -> None:
    path, canary = tmp_path / "t.json", tmp_path / "canary"
    path.write_bytes(make(Touch(canary)))
    read_records([path])  # a JSON object is only data; what it says is judged later
    assert not canary.exists()


def test_a_checkpoint_with_a_right_checksum_and_a_hostile_object_is_refused(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    save_checkpoint(tmp_path / "c.pth", {"model": Touch(canary)})
    canary.unlink(missing_ok=True)
    for load in (load_checkpoint, load_encoder):
        with pytest.raises(UserError):
            load(tmp_path / "c.pth")
    assert not canary.exists()


def test_the_canary_would_sing(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickle.loads(plain(Touch(canary)))  # noqa: S301 - the one pickle that is meant to run
    assert canary.exists()
