"""Where numbers come from: checkpoint, configuration, preprocessing, data, settings, versions. No time, no path."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from vlm3d_ct.config import config_to_mapping
from vlm3d_ct.data.case import Case
from vlm3d_ct.inference import Encoder

PACKAGES = ("vlm3d-ct", "torch", "numpy", "scikit-learn")
HASH_DIGITS = 16


def describe_run(encoder: Encoder, cases: Sequence[Case], settings: Mapping[str, object]) -> dict[str, str]:
    """What made the numbers of an evaluation.

    Args:
        encoder: of the checkpoint; its own provenance comes first.
        cases: all that were embedded; their ids and texts are hashed, so that two machines with the same data agree.
        settings: the choices of this evaluation (pool, seed, ...), as they are to be shown.

    Returns:
        ``checkpoint`` (file name), ``checkpoint_weights_sha256``, ``stage``, ``step``, ``preprocessing_fingerprint``,
        ``written_by``, ``config_sha256``, ``data_list_sha256``, ``data_cases``, ``evaluated_by``, and the settings.
    """
    listed = sorted([case.kind, case.case_id, [[r.question, r.answer] for r in case.reports[:1]]] for case in cases)
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return {
        **encoder.provenance,
        "config_sha256": hash_json(config_to_mapping(encoder.config)),
        "data_list_sha256": hash_json(listed),
        "data_cases": str(len(cases)),
        "evaluated_by": f"{versions}, python {platform.python_version()}, on {encoder.device.type}",
        **{name: str(value) for name, value in settings.items()},
    }


def hash_json(value: object) -> str:
    """The first 16 digits of the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]
