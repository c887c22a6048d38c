"""Findings of every abnormality and form, drawn without painting anything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vlm3d_ct.phantom.findings.finding import SEVERITIES, Finding, Side

LOBE_FORMS = {
    "Lung nodule": ("solid", "calcified"),
    "Consolidation": ("",),
    "Lung opacity": ("ground glass", "patchy"),
    "Atelectasis": ("plate-like", "collapse", "passive"),
    "Pulmonary fibrotic sequela": ("bands", "reticular"),
    "Emphysema": ("bullous", "centrilobular", "paraseptal"),
    "Mosaic attenuation pattern": ("",),
    "Peribronchial thickening": ("",),
    "Bronchiectasis": ("cylindrical", "varicose", "cystic", "traction"),
    "Interlobular septal thickening": ("smooth", "nodular"),
}
"""What lies in lobes."""
SPREAD = ("Mosaic attenuation pattern", "Peribronchial thickening", "Interlobular septal thickening")
"""What may lie in several lobes at once."""
PLACES: dict[tuple[str, str], tuple[int, Side]] = {
    ("Pericardial effusion", ""): (9, "none"),
    ("Cardiomegaly", ""): (8, "none"),
    ("Hiatal hernia", ""): (13, "none"),
    ("Lymphadenopathy", "right paratracheal"): (12, "right"),
    ("Lymphadenopathy", "prevascular"): (12, "none"),
    ("Lymphadenopathy", "left hilar"): (12, "left"),
    ("Lymphadenopathy", "right cardiophrenic"): (12, "right"),
    ("Lymphadenopathy", "subcarinal"): (12, "none"),
    ("Arterial wall calcification", "ascending aorta"): (10, "none"),
    ("Arterial wall calcification", "aortic arch"): (10, "none"),
    ("Arterial wall calcification", "descending aorta"): (10, "none"),
    ("Coronary artery wall calcification", "left anterior descending"): (8, "left"),
    ("Coronary artery wall calcification", "left circumflex"): (8, "left"),
    ("Coronary artery wall calcification", "right"): (8, "right"),
    ("Medical material", "sternal wires"): (16, "none"),
    ("Medical material", "prosthetic heart valve"): (8, "none"),
}
SIDED = {("Pleural effusion", ""): 7, ("Medical material", "pacemaker"): 17, ("Medical material", "port catheter"): 17}
MIRRORED_LOBES = {1: 4, 3: 5, 4: 1, 5: 3}
OTHER_SIDE: dict[str, Side] = {"left": "right", "right": "left", "none": "none"}


def all_forms() -> list[tuple[str, str]]:
    """Every abnormality with each of its forms."""
    lobar = [(name, form) for name, forms in LOBE_FORMS.items() for form in forms]
    return [*lobar, *PLACES, *SIDED]


def some_finding(rng: np.random.Generator, abnormality: str, form: str, lobes: tuple[int, ...] = ()) -> Finding:
    """A finding of this form at a random place, or in these lobes."""
    side: Side = ("left", "right")[rng.integers(2)]
    if abnormality in LOBE_FORMS:
        count = int(rng.integers(1, 6)) if abnormality in SPREAD else 1
        regions = lobes or tuple(sorted(int(lobe) for lobe in rng.permutation(5)[:count] + 1))
        sides = {"right" if lobe <= 3 else "left" for lobe in regions}
        side = "none" if len(sides) == 2 else "right" if "right" in sides else "left"
    elif (abnormality, form) in SIDED:
        regions = (SIDED[abnormality, form],)
    else:
        region, side = PLACES[abnormality, form]
        regions = (region,)
    return Finding(
        abnormality=abnormality,
        form=form,
        side=side,
        regions=regions,
        centre_mm=(0.0, 0.0, 0.0),
        size_mm=float(rng.uniform(4, 60)),
        severity=SEVERITIES[rng.integers(3)],
        seed=0,
    )


def some_findings(rng: np.random.Generator) -> tuple[Finding, ...]:
    """The findings of a patient: none to six, at most two of an abnormality, each in its own place."""
    kinds = [all_forms()[i] for i in rng.permutation(len(all_forms()))[: rng.integers(0, 6)]]
    found: list[Finding] = []
    for abnormality, form in kinds:
        for _ in range(2 if rng.random() < 0.25 else 1):
            finding = some_finding(rng, abnormality, form)
            taken = {(f.regions, f.side) for f in found if f.abnormality == abnormality}
            if (finding.regions, finding.side) not in taken:
                found.append(finding)
    return tuple(found)


def mirrored(finding: Finding) -> Finding:
    """The finding in the left-right mirrored patient; the middle lobe has no mirror image."""
    regions = tuple(MIRRORED_LOBES.get(region, region) for region in finding.regions)
    form = finding.form.replace(finding.side, OTHER_SIDE[finding.side]) if finding.side != "none" else finding.form
    return replace(finding, regions=regions, side=OTHER_SIDE[finding.side], form=form)
