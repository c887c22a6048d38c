"""Every finding is where the truth says, is visible after halving, and leaves the region ids alone."""

from __future__ import annotations

import numpy as np
import pytest

from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.catalogue import COUNT_SHARES, KINDS, draw_findings, paint_findings
from vlm3d_ct.phantom.findings.finding import Finding, Kind, Situation, side_of
from vlm3d_ct.phantom.grid import Grid
from vlm3d_ct.phantom.scan import SCOUT_SHAPE, Subject, draw_subject, grid_over, paint_healthy, voxel_of
from vlm3d_ct.phantom.thorax import find_lungs
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.text.findings import ABNORMALITIES

SMALLEST_MM = 18.0
PATIENTS = range(8)
LOBES = range(1, 6)
WINDOW_LOW_HU, WINDOW_WIDTH_HU = -160.0, 400.0
VISIBLE = 0.15
"""Change of the windowed intensity (0..1) that counts as visible."""

Scene = tuple[Subject, Canvas, Grid, Canvas]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    made = []
    for index in PATIENTS:
        subject = draw_subject("findings", index, smallest_mm=SMALLEST_MM, count=0)
        scout = Canvas(grid_over(subject.patient, SCOUT_SHAPE))
        find_lungs(scout, subject.patient)
        grid = grid_over(subject.patient, (32, 96, 96))
        made.append((subject, scout, grid, paint_healthy(grid, subject)))
    return made


def situation(scene: Scene, *coordinates: int | str) -> Situation:
    subject, scout, _, _ = scene
    rng = random_stream("situation", *coordinates)
    return Situation(rng=rng, patient=subject.patient, scout=scout, smallest_mm=SMALLEST_MM)


def with_finding(scene: Scene, finding: Finding) -> np.ndarray:
    """Intensities with the finding; the scene's canvas is left as it was."""
    subject, _, _, canvas = scene
    before, labels = canvas.hu.copy(), canvas.labels.copy()
    paint_findings(canvas, subject.patient, (finding,))
    np.testing.assert_array_equal(canvas.labels, labels)
    after, canvas.hu = canvas.hu, before
    return after


def windowed_halves(hu: np.ndarray) -> np.ndarray:
    halves = hu.reshape(16, 2, 48, 2, 48, 2).mean((1, 3, 5))
    return np.clip((halves - WINDOW_LOW_HU) / WINDOW_WIDTH_HU, 0, 1)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.abnormality)
def test_finding_is_seen_under_the_plans_window_on_a_halved_grid(kind: Kind, scenes: list[Scene]) -> None:
    for number, scene in enumerate(scenes):
        for finding in kind.place(situation(scene, number)):
            after = with_finding(scene, finding)
            change = np.abs(windowed_halves(after) - windowed_halves(scene[3].hu))
            assert change.max() > VISIBLE, finding


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.abnormality)
def test_finding_changes_intensities_at_its_place(kind: Kind, scenes: list[Scene]) -> None:
    for number, scene in enumerate(scenes):
        grid, canvas = scene[2], scene[3]
        for finding in kind.place(situation(scene, number)):
            changed = np.argwhere(np.abs(with_finding(scene, finding) - canvas.hu) > 40)
            away = (changed - voxel_of(grid, finding.centre_mm)) * grid.spacing_mm
            around_heart = finding.abnormality in ("Cardiomegaly", "Pericardial effusion")
            reach = scene[0].patient.heart.reach_mm if around_heart else max(20.0, 0.6 * finding.size_mm)
            assert np.linalg.norm(away, axis=1).min() < reach, finding
            if finding.regions[0] in LOBES:
                assert set(np.unique(canvas.lobes[tuple(changed.T)])) == set(finding.regions)
                assert finding.side == side_of(finding.regions[0])
            elif finding.side != "none":
                left = (changed[:, 2] * grid.spacing_mm[2] + grid.origin_mm[2] > 0).mean()
                assert left > 0.5 if finding.side == "left" else left < 0.5


RULES = {
    "Lung nodule": (0.0, 700.0),
    "Consolidation": (-50.0, 120.0),
    "Lung opacity": (-500.0, 100.0),
    "Pleural effusion": (-10.0, 30.0),
    "Medical material": (1000.0, 3000.0),
}
"""Intensities that the voxel at the finding's centre must have, and healthy anatomy must not have there."""


@pytest.mark.parametrize("abnormality", RULES)
def test_intensity_at_the_true_place_tells_patients_from_healthy(abnormality: str, scenes: list[Scene]) -> None:
    low, high = RULES[abnormality]
    kind = next(kind for kind in KINDS if kind.abnormality == abnormality)
    right, total = 0, 0
    for number, scene in enumerate(scenes):
        for finding in kind.place(situation(scene, number)):
            if finding.form == "prosthetic heart valve":
                continue  # a ring: its centre is blood
            z, y, x = voxel_of(scene[2], finding.centre_mm)
            spot = (slice(z, z + 1), slice(y - 1, y + 2), slice(x - 1, x + 2))
            total += 2
            right += int(low <= np.median(with_finding(scene, finding)[spot]) <= high)
            right += int(not low <= np.median(scene[3].hu[spot]) <= high)
    assert right / total >= 0.9


def test_a_patients_lung_lesions_lie_in_different_lobes(scenes: list[Scene]) -> None:
    for trial in range(60):
        findings = draw_findings(situation(scenes[trial % len(scenes)], "many", trial), 5)
        lobes = [region for finding in findings for region in finding.regions if region in LOBES]
        assert len(lobes) == len(set(lobes))


def test_findings_are_a_function_of_the_coordinates() -> None:
    first, second = (draw_subject(3, 5, smallest_mm=SMALLEST_MM) for _ in range(2))
    assert first == second
    assert first.findings != draw_subject(3, 6, smallest_mm=SMALLEST_MM).findings


def test_counts_follow_their_shares(scenes: list[Scene]) -> None:
    counts = np.zeros(len(COUNT_SHARES))
    for trial in range(400):
        findings = draw_findings(situation(scenes[0], "counts", trial))
        counts[len({finding.abnormality for finding in findings})] += 1
    np.testing.assert_allclose(counts / 400, COUNT_SHARES, atol=0.08)


def test_kinds_are_abnormalities_of_ct_rate() -> None:
    names = [kind.abnormality for kind in KINDS]
    assert len(names) == len(set(names)) >= 12
    assert set(names) <= set(ABNORMALITIES)
