"""Reports of phantom scans: the truth in a radiologist's words, with variety and with normal statements between."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from vlm3d_ct.phantom.findings.finding import LOBE_NAMES, Finding
from vlm3d_ct.phantom.patient import Patient

TRAIT_SHARE = 0.8
"""Share of the reports that mention a given trait of the patient where it holds."""
THICK_FAT_MM, THIN_FAT_MM = 18.0, 9.0
HIGH_DIAPHRAGM_MM, LOW_DIAPHRAGM_MM = -64.0, -77.0
MOST_FINDINGS_WITH_TRAITS = 4
NORMAL_FINDINGS = 4
"""With so many findings or more a report has only two normal statements."""


@cache
def phrases() -> dict[str, Any]:
    """The sentences and words of ``phrases.yaml``."""
    text = files("vlm3d_ct.phantom").joinpath("phrases.yaml").read_text("utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def question(rng: np.random.Generator) -> str:
    """A random question about a chest CT."""
    return _one(rng, phrases()["questions"])


def report(rng: np.random.Generator, patient: Patient, findings: tuple[Finding, ...]) -> str:
    """The findings, a few normal statements and traits of the patient, one sentence each, in random order."""
    sentences = [sentence(rng, finding) for finding in findings]
    sentences += normal_statements(rng, findings)
    if len(findings) <= MOST_FINDINGS_WITH_TRAITS:
        sentences += [text for text in trait_statements(rng, patient) if rng.random() < TRAIT_SHARE]
    rng.shuffle(sentences)
    return " ".join(sentences)


def sentence(rng: np.random.Generator, finding: Finding) -> str:
    """One sentence that states a finding with its place."""
    template = _one(rng, templates(finding))
    words = phrases()["words"]
    slots = {name: _one(rng, choices[finding.severity]) for name, choices in words.items()}
    lobes = [LOBE_NAMES[region] for region in finding.regions if region in LOBE_NAMES]
    filled = template.format(
        size=_size(rng, finding.size_mm), lobe=" and ".join(lobes), side=finding.side, form=finding.form, **slots
    )
    return _polish(filled)


def templates(finding: Finding) -> list[str]:
    """The sentences for a finding of this form."""
    by_form: dict[str, list[str]] = phrases()["findings"][finding.abnormality]
    return by_form[finding.form] if finding.form in by_form else by_form[""]


def normal_statements(rng: np.random.Generator, findings: tuple[Finding, ...]) -> list[str]:
    """Two to five true statements of normality, on different subjects; more where there is less to report."""
    present = {finding.abnormality for finding in findings}
    allowed = [entry for entry in phrases()["normal"] if not present & set(entry["absent"])]
    wanted = 2 if len(findings) >= NORMAL_FINDINGS else int(rng.integers(2, 4)) + (2 if not findings else 0)
    chosen: list[str] = []
    subjects: set[str] = set()
    for index in rng.permutation(len(allowed)):
        entry = allowed[index]
        if len(chosen) == wanted:
            break
        if not subjects & set(entry["absent"]):
            chosen.append(entry["text"])
            subjects.update(entry["absent"])
    return chosen


def trait_statements(rng: np.random.Generator, patient: Patient) -> list[str]:
    """All statements on the patient's build and the scan that are true."""
    names = ["enhanced" if patient.enhanced else "unenhanced"]
    if patient.fat > THICK_FAT_MM:
        names.append("thick_fat")
    if patient.fat < THIN_FAT_MM:
        names.append("thin_fat")
    if patient.diaphragm_z > HIGH_DIAPHRAGM_MM:
        names.append("high_diaphragm")
    if patient.diaphragm_z < LOW_DIAPHRAGM_MM:
        names.append("low_diaphragm")
    if patient.sex == "female":
        names.append("breasts")
    return [_one(rng, phrases()["traits"][name]) for name in names]


def _size(rng: np.random.Generator, size_mm: float) -> str:
    whole = round(size_mm)
    return f"{whole} mm" if rng.random() < 0.5 else f"{whole / 10:.1f} cm"


def _one(rng: np.random.Generator, choices: list[str]) -> str:
    return choices[rng.integers(len(choices))]


def _polish(text: str) -> str:
    text = re.sub(r"\b([Aa]) (?=[aeiou]|8|11 |18 )", r"\1n ", text)
    return text[0].upper() + text[1:]
