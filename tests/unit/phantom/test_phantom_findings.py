"""Findings are placed where the truth says: prevalence, companions, lobes, sides and sizes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.catalogue import COUNT_SHARES, KINDS, draw_findings
from vlm3d_ct.phantom.findings.finding import Finding, Kind, Situation, severity_of, side_of
from vlm3d_ct.phantom.region_ids import LOBES
from vlm3d_ct.phantom.scan import SCOUT_SHAPE, Subject, draw_subject, grid_over
from vlm3d_ct.phantom.thorax import find_lungs
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.text.findings import ABNORMALITIES

SMALL_MM, FULL_MM = 18.0, 6.0
LEAST_PREVALENCE = 0.04
DRAWS = 300
SPREAD_OVER_LOBES = {
    "Mosaic attenuation pattern",
    "Peribronchial thickening",
    "Interlobular septal thickening",
    "Pulmonary fibrotic sequela",
    "Bronchiectasis",
    "Emphysema",
}

Scene = tuple[Subject, Canvas]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    made = []
    for index in range(5):
        subject = draw_subject("findings", index, smallest_mm=SMALL_MM, count=0)
        scout = Canvas(grid_over(subject.patient, SCOUT_SHAPE))
        find_lungs(scout, subject.patient)
        made.append((subject, scout))
    return made


def situation(scene: Scene, smallest_mm: float, *coordinates: int | str) -> Situation:
    subject, scout = scene
    rng = random_stream("situation", *coordinates)
    return Situation(rng=rng, patient=subject.patient, scout=scout, smallest_mm=smallest_mm, tree=subject.tree)


@pytest.fixture(scope="module")
def drawn(scenes: list[Scene]) -> list[tuple[Finding, ...]]:
    """The findings of many patients, of small scans."""
    return [draw_findings(situation(scenes[i % len(scenes)], SMALL_MM, "many", i)) for i in range(DRAWS)]


def test_kinds_are_the_abnormalities_of_ct_rate() -> None:
    assert sorted(kind.abnormality for kind in KINDS) == sorted(ABNORMALITIES)


LEAST_MM = {"Pericardial effusion": 9.0, "Atelectasis": 12.0, "Bronchiectasis": 14.0, "Pleural effusion": 16.0,
            "Arterial wall calcification": 16.0}  # fmt: skip
"""Layers, lumina and rows of plaques extend beyond their size and are seen though that is less than a nodule's."""


def test_every_abnormality_is_common_enough_and_some_patients_are_normal(drawn: list[tuple[Finding, ...]]) -> None:
    present = Counter(name for findings in drawn for name in {finding.abnormality for finding in findings})
    assert min(present[name] for name in ABNORMALITIES) / DRAWS > LEAST_PREVALENCE
    normal = sum(not findings for findings in drawn) / DRAWS
    assert normal == pytest.approx(COUNT_SHARES[0], abs=0.07)


def test_findings_are_in_painting_order(drawn: list[tuple[Finding, ...]]) -> None:
    order = [kind.abnormality for kind in KINDS]
    for findings in drawn:
        places = [order.index(finding.abnormality) for finding in findings]
        assert places == sorted(places)


def test_lesions_of_one_lobe_are_one_kind_and_its_companions(drawn: list[tuple[Finding, ...]]) -> None:
    for findings in drawn:
        own = [finding for finding in findings if not finding.companion and finding.regions[0] in LOBES]
        lobes = [region for finding in own for region in finding.regions]
        assert len(lobes) == len(set(lobes)), findings


def test_companions_come_with_what_they_accompany(drawn: list[tuple[Finding, ...]]) -> None:
    hosts = {
        "Atelectasis": {"Pleural effusion"},
        "Bronchiectasis": {"Pulmonary fibrotic sequela"},
        "Pleural effusion": {"Cardiomegaly", "Consolidation"},
        "Interlobular septal thickening": {"Cardiomegaly"},
        "Arterial wall calcification": {"Coronary artery wall calcification"},
    }
    seen: Counter[str] = Counter()
    for findings in drawn:
        for finding in findings:
            if finding.companion:
                seen[finding.abnormality] += 1
                assert hosts[finding.abnormality] & {other.abnormality for other in findings}
            if finding.host is not None:
                assert finding.host in findings
                assert finding.side == finding.host.side
    assert seen["Atelectasis"] > 0.05 * DRAWS
    assert seen.keys() == hosts.keys()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.abnormality)
@pytest.mark.parametrize("smallest_mm", [SMALL_MM, FULL_MM], ids=["small", "full"])
def test_place_side_and_size_agree(kind: Kind, smallest_mm: float, scenes: list[Scene]) -> None:
    forms = set()
    for number in range(12):
        scene = scenes[number % len(scenes)]
        for finding in kind.place(situation(scene, smallest_mm, kind.abnormality, number)):
            forms.add(finding.form)
            lobes = [region for region in finding.regions if region in LOBES]
            if lobes:
                assert finding.side == side_of(*lobes)
                assert len(lobes) == 1 or finding.abnormality in SPREAD_OVER_LOBES
                nearby = scene[1].lobes[scene[1].grid.box_around(finding.centre_mm, (12, 12, 12))]
                assert set(lobes) & set(np.unique(nearby).tolist()), finding
            assert all(abs(value) < 400 for value in finding.centre_mm)
            if smallest_mm == SMALL_MM:
                assert finding.size_mm >= LEAST_MM.get(finding.abnormality, SMALL_MM), finding
    assert forms


def test_lesions_are_placed_beside_what_pushes_the_lung_aside(scenes: list[Scene]) -> None:
    kinds = {kind.abnormality: kind for kind in KINDS}
    for number, scene in enumerate(scenes):
        place = situation(scene, SMALL_MM, "room", number)
        for name in ("Cardiomegaly", "Pleural effusion", "Lung nodule"):
            placed = kinds[name].place(place)
        room = place.room
        assert room[scene[1].lobes != room].sum() == 0
        assert (room != scene[1].lobes).any()
        for finding in placed:
            assert room[scene[1].grid.voxel(finding.centre_mm)] == finding.regions[0]


def test_findings_are_a_function_of_the_coordinates() -> None:
    first, second = (draw_subject(3, 5, smallest_mm=SMALL_MM, count=3) for _ in range(2))
    assert first.findings == second.findings
    assert first.findings != draw_subject(3, 6, smallest_mm=SMALL_MM, count=3).findings


def test_the_healthy_patient_does_not_depend_on_the_findings() -> None:
    healthy, ill = (draw_subject(4, 2, smallest_mm=SMALL_MM, count=count) for count in (0, 5))
    assert not healthy.findings
    assert ill.findings
    assert healthy.patient == ill.patient


@pytest.mark.parametrize(
    ("size_mm", "severity"), [(10.0, "mild"), (19.0, "mild"), (21.0, "moderate"), (31.0, "severe"), (40.0, "severe")]
)
def test_severity_is_the_third_of_the_range(size_mm: float, severity: str) -> None:
    assert severity_of(size_mm, (10.0, 40.0)) == severity


def test_sides_of_lobes() -> None:
    assert [side_of(1), side_of(2, 3), side_of(4, 5), side_of(3, 5)] == ["right", "right", "left", "none"]
