"""The embeddings of a pool of cases: what every evaluation reads, a file of its own, and whether it is still good."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.volumes.atomic import write_atomically

FORMAT = "vlm3d-ct embeddings 2"
NORM_TOLERANCE = 1e-3
KEY_PREFIX = "embedded_"
NO_TEXT_GROUP = -1
"""Text group of a case without a text; groups of texts are positive."""
ARRAY_FIELDS = {
    "volume": (np.float32, 2),
    "text": (np.float32, 2),
    "text_groups": (np.int64, 1),
    "region_volume": (np.float32, 3),
    "region_text": (np.float32, 3),
    "region_mentions": (np.bool_, 2),
    "region_groups": (np.int64, 2),
}
"""Name, element type and number of axes of every array in the file."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddingSet:
    """Embeddings of n cases; index i of every field belongs to the same case.

    Attributes:
        case_ids: unique, without line breaks.
        patient_ids: the patient of each case.
        volume: global embeddings of the scans, each of length 1.
        text: global embeddings of the reports, each of length 1; arbitrary for a case without a text.
        text_groups: equal ids mark identical texts; `NO_TEXT_GROUP` marks a case without a text.
        region_volume: embedding of each region of each scan; its length carries no meaning.
        region_text: embedding of what the report says of each region; arbitrary where it says nothing.
        region_mentions: whether the report speaks of the region.
        region_groups: equal ids mark regions whose texts are not to be told apart.
        provenance: where the embeddings come from (checkpoint, data, preprocessing), as words for a reader.

    Raises:
        ValueError: shapes or element types do not fit together, a number is not finite, an embedding is not normalised.
    """

    case_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    volume: Float32[np.ndarray, "n d"]
    text: Float32[np.ndarray, "n d"]
    text_groups: Int64[np.ndarray, " n"]
    region_volume: Float32[np.ndarray, "n r d"]
    region_text: Float32[np.ndarray, "n r d"]
    region_mentions: Bool[np.ndarray, "n r"]
    region_groups: Int64[np.ndarray, "n r"]
    provenance: Mapping[str, str]

    def __post_init__(self) -> None:
        _check_ids(self.case_ids, self.patient_ids)
        arrays = {name: getattr(self, name) for name in ARRAY_FIELDS}
        _check_shapes(arrays, num_cases=len(self.case_ids))
        for name in ("volume", "text"):
            lengths = np.linalg.norm(arrays[name], axis=1)
            off = np.flatnonzero(np.abs(lengths - 1.0) > NORM_TOLERANCE)
            if off.size:
                case = self.case_ids[off[0]]
                raise ValueError(f"{name} embedding of {case} has length {lengths[off[0]]:.6g}, it must be 1")

    def __len__(self) -> int:
        return len(self.case_ids)

    @property
    def has_text(self) -> Bool[np.ndarray, " n"]:
        """Which cases have a text."""
        present: Bool[np.ndarray, " n"] = self.text_groups != NO_TEXT_GROUP
        return present

    def select(self, indices: Int64[np.ndarray, " m"]) -> EmbeddingSet:
        """The cases at these indices, in this order."""
        arrays = {name: getattr(self, name)[indices] for name in ARRAY_FIELDS}
        return EmbeddingSet(
            case_ids=tuple(self.case_ids[i] for i in indices),
            patient_ids=tuple(self.patient_ids[i] for i in indices),
            provenance=self.provenance,
            **arrays,
        )

    def save(self, path: Path) -> None:
        """Write to ``path`` (.npz) with a SHA-256 of the content; a file of that name is replaced in one step."""
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in ARRAY_FIELDS}
        header = {
            "format": FORMAT,
            "case_ids": self.case_ids,
            "patient_ids": self.patient_ids,
            "provenance": dict(self.provenance),
        }
        arrays["header"] = np.frombuffer(json.dumps(header, sort_keys=True).encode(), dtype=np.uint8)
        arrays["sha256"] = _digest(arrays)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **arrays)
        write_atomically(path, [file.getvalue()])

    @classmethod
    def load(cls, path: Path) -> EmbeddingSet:
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing, damaged, or not of this format.
        """
        try:
            arrays = _read_arrays(path)
            header = json.loads(arrays["header"].tobytes())
            return cls(
                case_ids=tuple(header["case_ids"]),
                patient_ids=tuple(header["patient_ids"]),
                provenance=header["provenance"],
                **{name: arrays[name] for name in ARRAY_FIELDS},
            )
        except FileNotFoundError:
            fault = "The file does not exist."
        # What zipfile, numpy and json raise on damaged bytes, whichever of their headers is hit.
        except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
            fault = f"The file is damaged or not of this format ({error})."
        raise DataError(
            Problem(
                code="embeddings-file",
                file=str(path),
                field="file",
                value=path.name,
                message=fault,
                remedy="Compute the embeddings again.",
            )
        )


@dataclass(frozen=True, kw_only=True)
class EmbeddingKey:
    """What embeddings depend on, each as a hash or a word; equal keys promise equal embeddings on the same machine.

    Attributes:
        weights: of the checkpoint.
        settings: the checkpoint's configuration of model, text and preprocessing.
        preprocessing: its fingerprint.
        cases: the list of case ids.
        texts: the first report of every case, and the regions that are found in it.
        sources: names, sizes and times of change of the files of every case.
        masks: how region masks are used.
    """

    weights: str
    settings: str
    preprocessing: str
    cases: str
    texts: str
    sources: str
    masks: str

    def as_provenance(self) -> dict[str, str]:
        """The parts as entries of a provenance."""
        return {f"{KEY_PREFIX}{name}": value for name, value in asdict(self).items()}

    def differences(self, provenance: Mapping[str, str]) -> list[str]:
        """Names of the parts in which a provenance differs from this key; all of them where it has none."""
        return [name for name, value in asdict(self).items() if provenance.get(f"{KEY_PREFIX}{name}") != value]


@dataclass(frozen=True)
class EmbeddingStore:
    """The embeddings of an evaluation on disk: reused while they are good, never when they are stale.

    Attributes:
        path: of the file (.npz).
        named: whether the user named the file: then a stale one is an error, else it is made again.
    """

    path: Path
    named: bool

    def read(self, key: EmbeddingKey) -> tuple[EmbeddingSet | None, str]:
        """The stored embeddings if they have this key, else None; and a line that says which it was.

        Raises:
            DataError: the user named the file, it exists, and it is damaged or has another key.
        """
        if not self.path.exists():
            return None, f"embeddings: none in {self.path} yet"
        try:
            found = EmbeddingSet.load(self.path)
        except DataError:
            if self.named:
                raise
            return None, f"embeddings: {self.path} is damaged and is made again"
        differing = key.differences(found.provenance)
        if not differing:
            return found, f"embeddings: {len(found)} read from {self.path}"
        if self.named:
            raise DataError(
                Problem(
                    code="stale-embeddings",
                    file=str(self.path),
                    field="key",
                    value=f"other {', '.join(differing)}",
                    message="The embeddings come from another checkpoint, other cases or other settings.",
                    remedy="Give another file, or overwrite this one with --recompute.",
                )
            )
        return None, f"embeddings: {self.path} is of other {', '.join(differing)} and is made again"

    def write(self, embeddings: EmbeddingSet) -> None:
        """Replace what is stored."""
        embeddings.save(self.path)


def _check_ids(case_ids: tuple[str, ...], patient_ids: tuple[str, ...]) -> None:
    if len(patient_ids) != len(case_ids):
        raise ValueError(f"{len(case_ids)} case ids but {len(patient_ids)} patient ids")
    if len(set(case_ids)) != len(case_ids):
        raise ValueError("case ids are not unique")
    for case_id in case_ids:
        if not case_id or case_id.splitlines() != [case_id]:
            raise ValueError(f"case id {case_id!r} is empty or has a line break")


def _check_shapes(arrays: Mapping[str, np.ndarray], num_cases: int) -> None:
    for name, (dtype, num_axes) in ARRAY_FIELDS.items():
        array = arrays[name]
        if array.dtype != dtype or array.ndim != num_axes:
            raise ValueError(
                f"{name} is {array.dtype} with {array.ndim} axes, it must be {np.dtype(dtype)}, {num_axes}"
            )
        if array.shape[0] != num_cases:
            raise ValueError(f"{name} has {array.shape[0]} rows for {num_cases} cases")
        if dtype is np.float32 and not np.isfinite(array).all():
            raise ValueError(f"{name} has numbers that are not finite")
    for first, second in (
        ("volume", "text"),
        ("region_volume", "region_text"),
        ("region_mentions", "region_groups"),
    ):
        if arrays[first].shape != arrays[second].shape:
            raise ValueError(f"{first} is {arrays[first].shape} but {second} is {arrays[second].shape}")
    if arrays["region_mentions"].shape[1] != arrays["region_volume"].shape[1]:
        raise ValueError("region_mentions and region_volume differ in the number of regions")
    if arrays["region_volume"].shape[2] != arrays["volume"].shape[1]:
        raise ValueError("region_volume and volume differ in width")


def _digest(arrays: Mapping[str, np.ndarray]) -> UInt8[np.ndarray, "32"]:
    """SHA-256 over name, type, shape and bytes of every array but the digest itself."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        if name != "sha256":
            array = arrays[name]
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return np.frombuffer(digest.digest(), dtype=np.uint8)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the file, checked against its digest; ValueError and others as in `EmbeddingSet.load`."""
    expected = {*ARRAY_FIELDS, "header", "sha256"}
    with zipfile.ZipFile(path) as archive:
        # Stored members only: nothing in the file can grow while it is read. Their CRCs come before
        # numpy reads a shape from them and asks for memory.
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("compressed members")
        if (broken := archive.testzip()) is not None:
            raise ValueError(f"checksum of {broken}")
    with np.load(path, allow_pickle=False) as members:
        if set(members.files) != expected:
            raise ValueError(f"members {sorted(members.files)}")
        arrays = {name: members[name] for name in expected}
    if not np.array_equal(arrays["sha256"], _digest(arrays)):
        raise ValueError("SHA-256 of the content")
    header = json.loads(arrays["header"].tobytes())
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError("format")
    return arrays
