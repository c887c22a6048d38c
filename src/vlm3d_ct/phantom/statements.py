"""What reports say besides findings: what is normal or absent, how the patient is built, how the scan was done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vlm3d_ct.phantom.draw import Draw
from vlm3d_ct.phantom.findings.finding import Finding
from vlm3d_ct.phantom.patient import Patient
from vlm3d_ct.phantom.spine import osteophytes

THICK_FAT_MM, THIN_FAT_MM = 18.0, 9.0
HIGH_DIAPHRAGM_MM, LOW_DIAPHRAGM_MM = -61.0, -79.0
BRITTLE_HU, DENSE_HU = 115.0, 215.0
"""Intensity of the vertebrae's spongy bone below which it is osteopenic and above which it is that of the young."""
SHALLOW, DEEP = 0.55, 0.7
"""Inspiration."""
HYPOSTATIC, FATTY_LIVER_HU, SPURS = 0.35, 40.0, 6
"""From these on hypostasis, a fatty liver (plain: Kodama et al., 2007) and spurs of the spine are mentioned."""
OLD_YEARS, YOUNG_YEARS = 60.0, 40.0
CALCIFIED_CARTILAGE = 0.4


@dataclass(frozen=True)
class Statement:
    """A sentence of a report.

    Attributes:
        section: the part of the report in which it stands.
        text: the sentence.
        findings: the findings that it states, by their number; empty for everything else.
    """

    section: str
    text: str
    findings: tuple[int, ...] = ()

    @property
    def words(self) -> int:
        """Number of its words."""
        return len(self.text.split())


def normal_statements(draw: Draw, patient: Patient, findings: tuple[Finding, ...]) -> Iterator[Statement]:
    """All that is normal or absent, in random order, no subject twice."""
    present = {finding.abnormality for finding in findings} | set(_traits(patient))
    allowed = [entry for entry in draw.book.normal if not present & entry.absent]
    told: set[str] = set()
    for index in draw.rng.permutation(len(allowed)):
        entry = allowed[int(index)]
        if told & entry.about:
            continue
        told |= entry.about
        said = draw.variant(entry.said)
        if entry.negated:
            said = draw.variant(draw.book.negatives).replace("{thing}", said)
        yield Statement(entry.section, draw.sentence(said, {}))


def clear_statement(draw: Draw) -> str:
    """A sentence that stands for a scan without any finding."""
    return draw.sentence(draw.variant(draw.book.clear), {})


def trait_statements(draw: Draw, patient: Patient) -> list[Statement]:
    """All statements on the patient's build and the scan that are true."""
    found = []
    for name in _traits(patient):
        section, said = draw.book.traits[name]
        found.append(Statement(section, draw.sentence(draw.variant(said), {})))
    return found


def _traits(patient: Patient) -> Iterator[str]:
    yield patient.phase
    if patient.habitus != "average":
        yield patient.habitus
    elif patient.fat > THICK_FAT_MM:
        yield "thick_fat"
    elif patient.fat < THIN_FAT_MM:
        yield "thin_fat"
    if patient.diaphragm_z > HIGH_DIAPHRAGM_MM and patient.inspiration < SHALLOW:
        yield "high_diaphragm"
    elif patient.diaphragm_z < LOW_DIAPHRAGM_MM and patient.inspiration > DEEP:
        yield "low_diaphragm"
    if patient.sex == "female":
        yield "breasts"
    if patient.age_years > OLD_YEARS and patient.sponge_hu < BRITTLE_HU:
        yield "old_bone"
    elif patient.age_years < YOUNG_YEARS and patient.sponge_hu > DENSE_HU:
        yield "young_bone"
    if patient.cartilage_calcium > CALCIFIED_CARTILAGE:
        yield "old_cartilage"
    if patient.hypostasis > HYPOSTATIC:
        yield "hypostasis"
    if patient.liver_hu < FATTY_LIVER_HU:
        yield "fatty_liver"
    if len(osteophytes(patient)) >= SPURS:
        yield "spurs"
