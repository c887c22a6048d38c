"""Phrases whose place is known: sentences that state a lesion, with the lesion's voxels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from scipy import ndimage

from vlm3d_ct.data.cache import Cache
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.names import NIFTI_SUFFIX, volume_stem
from vlm3d_ct.volumes.faults import fault
from vlm3d_ct.volumes.nifti import read_mask, read_volume
from vlm3d_ct.volumes.preprocess import Prepared
from vlm3d_ct.volumes.resize import resize_nearest

TRUTH_FILE, LESION_FOLDER = "truth.json", "lesions"
BODY_ABOVE_HU, BODY_ABOVE_GREY = -300, 30
BODY_GRID = 128
"""Voxels along y and x, at most, of the grid that the body is found on."""


@dataclass(frozen=True, kw_only=True)
class LesionPhrase:
    """A text that states a finding of a case whose lesion mask exists.

    Attributes:
        case_id: of the volume or slice.
        patient_id: for intervals over patients.
        finding: class of the finding, for figures by finding.
        text: the phrase.
        lesion_ids: labels of the lesion in its mask; several where one sentence states several lesions.
    """

    case_id: str
    patient_id: str
    finding: str
    text: str
    lesion_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class LesionScene:
    """What the phrases of one case are scored against.

    Attributes:
        lesions: labels of the lesions on the grid of their mask (for a slice one plane, 1 where the lesion is).
        body: the voxels of the body and of every lesion; scores count these alone.
        prepared: the case as the encoder takes it.
    """

    lesions: UInt8[np.ndarray, "z y x"]
    body: Bool[np.ndarray, "z y x"]
    prepared: Prepared


class _Finding(BaseModel):
    model_config = ConfigDict(extra="ignore")
    abnormality: Annotated[str, Field(min_length=1)]
    lesion: Annotated[int, Field(ge=1, le=255)]
    sentence: str | None


class _Truth(BaseModel):
    model_config = ConfigDict(extra="ignore")
    findings: list[_Finding]


def find_lesion_phrases(directory: Path, cases: Sequence[Case]) -> tuple[list[LesionPhrase], dict[str, int]]:
    """The phrases of the cases whose lesion is known, and how many were left out, by reason.

    Volumes: the sentences of ``truth.json`` (in the folder or in a folder of it), one phrase for each sentence and
    abnormality. Slices: the whole reasoning of a slice that has a lesion mask, filed under its category.

    Raises:
        DataError: ``truth.json`` is not what the phantoms write.
    """
    left_out = {
        "findings that no sentence states": 0,
        "volumes without lesion mask": 0,
        "slices without lesion mask": 0,
    }
    truths = _read_truths(directory)
    phrases: list[LesionPhrase] = []
    for case in cases:
        if case.kind == "slice":
            found = _slice_phrases(case)
            left_out["slices without lesion mask"] += not found
        elif case.case_id.casefold() in truths and lesion_path(case).is_file():
            found, silent = _volume_phrases(case, truths[case.case_id.casefold()])
            left_out["findings that no sentence states"] += silent
        else:
            found = []
            left_out["volumes without lesion mask"] += 1
        phrases += found
    return phrases, {reason: count for reason, count in left_out.items() if count}


def lesion_path(case: Case) -> Path:
    """Where the lesion mask of a volume lies in the plan's layout: ``lesions/NAME.nii.gz`` beside ``volumes/``."""
    return case.image_paths[0].parent.parent / LESION_FOLDER / f"{case.case_id}{NIFTI_SUFFIX}"


def read_scene(case: Case, cache: Cache) -> LesionScene:
    """The lesions and the body of a case that `find_lesion_phrases` has found.

    The body is what stands out from air, with what it encloses, found on a coarse grid of the prepared case: good
    enough to keep the air around the patient out of the scores.

    Raises:
        DataError: the lesion mask is damaged or of another grid than the volume.
    """
    prepared = cache.read(case)
    if case.kind == "slice":
        if prepared.labels is None:
            raise ValueError(f"{case.case_id} has no lesion mask")
        lesions = prepared.labels[:1]
        body = find_body(prepared.voxels_hu[1:2] if len(prepared.voxels_hu) > 1 else prepared.voxels_hu)
    else:
        lesions = read_mask(lesion_path(case), like=read_volume(case.image_paths[0]), max_label=255).labels
        body = find_body(prepared.voxels_hu)
    size = (lesions.shape[0], lesions.shape[1], lesions.shape[2])
    on_grid = resize_nearest(body.astype(np.uint8), size).astype(bool)
    return LesionScene(lesions=lesions, body=on_grid | (lesions > 0), prepared=prepared)


def find_body(voxels: Shaped[np.ndarray, "z y x"]) -> Bool[np.ndarray, "z2 y2 x2"]:
    """Where the body is, lungs included, on a grid thinned to 128 voxels along y and x.

    Per axial section: above -300 HU (grey 30 of 255 where voxels are uint8), holes filled. A section without any is
    taken as body whole, so that no section is without a voxel to score.
    """
    thinned = voxels[:, :: -(-voxels.shape[1] // BODY_GRID), :: -(-voxels.shape[2] // BODY_GRID)]
    dense = thinned > (BODY_ABOVE_GREY if voxels.dtype == np.uint8 else BODY_ABOVE_HU)
    body = np.stack([ndimage.binary_fill_holes(section) for section in dense])
    body[~body.any(axis=(1, 2))] = True
    return body


def _read_truths(directory: Path) -> dict[str, _Truth]:
    """What is true of each volume, by its casefolded name, from every ``truth.json``."""
    truths: dict[str, _Truth] = {}
    for path in (directory / TRUTH_FILE, *sorted(directory.glob(f"*/{TRUTH_FILE}"))):
        if not path.is_file():
            continue
        remedy = "Write the phantoms again, or move the file away."
        try:
            content: Any = json.loads(path.read_text(encoding="utf-8"))
            found: Mapping[str, _Truth] = TypeAdapter(dict[str, _Truth]).validate_python(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise fault("truth", path, where or "content", first["input"], first["msg"] + ".", remedy) from None
        except (OSError, ValueError) as error:
            raise fault("truth", path, "content", str(error), "The file cannot be read as JSON.", remedy) from None
        truths |= {volume_stem(name).casefold(): truth for name, truth in found.items()}
    return truths


def _volume_phrases(case: Case, truth: _Truth) -> tuple[list[LesionPhrase], int]:
    """One phrase for each sentence and abnormality; and how many findings have no sentence."""
    lesions: dict[tuple[str, str], list[int]] = {}
    for finding in truth.findings:
        if finding.sentence:
            lesions.setdefault((finding.sentence, finding.abnormality), []).append(finding.lesion)
    phrases = [
        LesionPhrase(
            case_id=case.case_id,
            patient_id=case.patient_id,
            finding=abnormality,
            text=sentence,
            lesion_ids=tuple(sorted(set(ids))),
        )
        for (sentence, abnormality), ids in lesions.items()
    ]
    return phrases, sum(not finding.sentence for finding in truth.findings)


def _slice_phrases(case: Case) -> list[LesionPhrase]:
    if not case.mask_paths or not case.reports:
        return []
    return [
        LesionPhrase(
            case_id=case.case_id,
            patient_id=case.patient_id,
            finding=case.category or "not named",
            text=case.reports[0].answer,
            lesion_ids=(1,),
        )
    ]
