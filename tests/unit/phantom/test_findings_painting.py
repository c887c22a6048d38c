"""Every finding is in the voxels: in its lesion mask, told from healthy anatomy by its HU, visible after halving."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.catalogue import KINDS, paint_findings
from vlm3d_ct.phantom.findings.finding import Finding, Kind, Situation
from vlm3d_ct.phantom.region_ids import LOBES
from vlm3d_ct.phantom.scan import SCOUT_SHAPE, Subject, draw_subject, grid_over, paint_healthy, paint_scan
from vlm3d_ct.phantom.thorax import find_lungs
from vlm3d_ct.seeding import random_stream

SMALL_MM, FULL_MM = 18.0, 6.0
PATIENTS = 6
WINDOWS_HU = ((-160.0, 400.0), (-1350.0, 1500.0))
"""Low end and width of the plan's window and of the lung window."""
VISIBLE = 0.06
"""Change of the windowed intensity (0..1) that counts as visible."""
CHANGED_HU = 10.0

Scene = tuple[Subject, Canvas, Canvas]
"""Subject, scout, healthy canvas."""
Rule = Callable[[np.ndarray], float]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    made = []
    for index in range(PATIENTS):
        subject = draw_subject("painting", index, smallest_mm=SMALL_MM, count=0)
        scout = Canvas(grid_over(subject.patient, SCOUT_SHAPE))
        find_lungs(scout, subject.patient)
        made.append((subject, scout, paint_healthy(grid_over(subject.patient, (32, 96, 96)), subject)))
    return made


def placed(kind: Kind, scene: Scene, smallest_mm: float, *coordinates: int | str) -> list[Finding]:
    subject, scout, _ = scene
    rng, patient, tree = random_stream("situation", *coordinates), subject.patient, subject.tree
    found = kind.place(Situation(rng=rng, patient=patient, scout=scout, smallest_mm=smallest_mm, tree=tree))
    return [finding for finding in found if finding.abnormality == kind.abnormality]


def painted(scene: Scene, finding: Finding) -> tuple[np.ndarray, np.ndarray]:
    """Intensities with the finding and its lesion mask; the scene's canvas is left as it was."""
    subject, _, canvas = scene
    before, labels, lobes = canvas.hu.copy(), canvas.labels.copy(), canvas.lobes.copy()
    canvas.lesions[:] = 0
    paint_findings(canvas, subject.patient, (finding,))
    np.testing.assert_array_equal(canvas.labels, labels)
    after, canvas.hu, canvas.lobes = canvas.hu, before, lobes
    return after, canvas.lesions == 1


def lung_level(scene: Scene) -> float:
    """Of the healthy patient: trapped air is dark beside it, and lungs differ by the breath that was held."""
    return float(np.median(scene[2].hu[scene[2].lobes > 0]))


def share_between(low: float, high: float) -> Rule:
    return lambda hu: float(((hu >= low) & (hu <= high)).mean())


RULES: dict[str, Rule] = {
    "Medical material": np.mean,
    "Arterial wall calcification": np.mean,
    "Cardiomegaly": lambda hu: float(np.percentile(hu, 20)),
    "Pericardial effusion": share_between(-15, 30),
    "Coronary artery wall calcification": np.mean,
    "Hiatal hernia": lambda hu: share_between(10, 36)(hu) + share_between(-950, -880)(hu),
    "Lymphadenopathy": share_between(20, 160),
    "Emphysema": share_between(-1100, -925),
    "Atelectasis": np.mean,
    "Lung nodule": np.mean,
    "Lung opacity": np.mean,
    "Pulmonary fibrotic sequela": np.mean,
    "Pleural effusion": share_between(-15, 30),
    "Mosaic attenuation pattern": lambda hu: float(-hu.mean()),
    "Peribronchial thickening": np.mean,
    "Consolidation": np.mean,
    "Bronchiectasis": lambda hu: min(share_between(-1100, -945)(hu), share_between(-400, 250)(hu)),
    "Interlobular septal thickening": np.mean,
}
"""What is read from the HU in the true lesion mask; larger with the finding."""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.abnormality)
def test_hu_in_the_lesion_mask_tells_patients_from_healthy_ones(kind: Kind, scenes: list[Scene]) -> None:
    rule, ill, healthy = RULES[kind.abnormality], [], []
    for number, scene in enumerate(scenes):
        for finding in placed(kind, scene, SMALL_MM, kind.abnormality, number):
            after, lesion = painted(scene, finding)
            level = lung_level(scene) if finding.abnormality == "Mosaic attenuation pattern" else 0.0
            ill.append(rule(after[lesion] - level))
            healthy.append(rule(scene[2].hu[lesion] - level))
    above = np.array(ill)[:, None] > np.array(healthy)
    assert above.mean() >= 0.95


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.abnormality)
def test_a_finding_is_seen_under_one_of_the_demos_windows_after_halving(kind: Kind, scenes: list[Scene]) -> None:
    def windowed(hu: np.ndarray) -> np.ndarray:
        halves = hu.reshape(16, 2, 48, 2, 48, 2).mean((1, 3, 5))
        return np.stack([np.clip((halves - low) / width, 0, 1) for low, width in WINDOWS_HU])

    for number, scene in enumerate(scenes):
        for finding in placed(kind, scene, SMALL_MM, "seen", kind.abnormality, number):
            after, lesion = painted(scene, finding)
            inside = lesion.reshape(16, 2, 48, 2, 48, 2).mean((1, 3, 5)) > 0.25
            change = np.abs(windowed(after) - windowed(scene[2].hu)).max(0)
            assert change[inside].max() > VISIBLE, finding


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.abnormality)
def test_the_lesion_mask_is_where_the_finding_is(kind: Kind, scenes: list[Scene]) -> None:
    for number, scene in enumerate(scenes):
        canvas = scene[2]
        for finding in placed(kind, scene, SMALL_MM, "where", kind.abnormality, number):
            after, lesion = painted(scene, finding)
            changed = np.abs(after - canvas.hu) > CHANGED_HU
            strongly = np.abs(after - canvas.hu) > 0.9 * np.abs(after - canvas.hu).max()
            assert lesion[strongly].mean() > 0.9, finding
            if finding.abnormality != "Cardiomegaly":  # most of an enlarged heart is heart as before
                assert changed[lesion].mean() > 0.5, finding
            voxels = np.argwhere(lesion)
            if finding.regions[0] in LOBES:
                assert set(np.unique(canvas.lobes[lesion])) <= {0, *finding.regions}
                assert np.isin(canvas.lobes[lesion], finding.regions).mean() > 0.9
            if finding.side != "none":
                left = (canvas.grid.x[0, 0, voxels[:, 2]] > 0).mean()
                assert left > 0.5 if finding.side == "left" else left < 0.5
            away = np.linalg.norm((voxels - canvas.grid.voxel(finding.centre_mm)) * canvas.grid.spacing_mm, axis=1)
            reach = scene[0].patient.heart.reach_mm + 20 if finding.abnormality == "Pericardial effusion" else 22.0
            assert away.min() < reach, finding


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.abnormality)
def test_slabs_of_a_fine_grid_join_without_a_seam(kind: Kind, scenes: list[Scene]) -> None:
    scene = scenes[1]
    finding = next(
        found for trial in range(9) for found in placed(kind, scene, FULL_MM, "slab", kind.abnormality, trial)
    )
    whole = grid_over(scene[0].patient, (150, 180, 180))
    middle = min(max(whole.voxel(finding.centre_mm)[0], 3), 146)
    grid = whole.crop((slice(middle - 2, middle + 2), slice(0, 180), slice(0, 180)))
    assert not Canvas(grid).coarse

    def scan(rows: slice) -> Canvas:
        canvas = paint_healthy(grid.crop((rows, slice(0, 180), slice(0, 180))), scene[0])
        paint_findings(canvas, scene[0].patient, (finding,))
        return canvas

    together, parts = scan(slice(0, 4)), [scan(slice(0, 2)), scan(slice(2, 4))]
    np.testing.assert_allclose(np.concatenate([part.hu for part in parts]), together.hu, atol=1.0)
    assert (np.concatenate([part.lesions for part in parts]) != together.lesions).mean() < 1e-4
    assert together.lesions.any(), finding


def test_lung_lesions_stay_off_the_enlarged_heart(scenes: list[Scene]) -> None:
    scene = scenes[2]
    first, second = (
        next(kind for kind in KINDS if kind.abnormality == name)
        for name in ("Cardiomegaly", "Interlobular septal thickening")
    )
    heart = placed(first, scene, SMALL_MM, "heart")[0]
    septa = placed(second, scene, SMALL_MM, "septa")[0]
    _, enlarged = painted(scene, heart)
    canvas = paint_healthy(scene[2].grid, scene[0])
    paint_findings(canvas, scene[0].patient, (heart, septa))
    assert (canvas.lesions == 2).any()
    assert (canvas.lesions[enlarged] == 2).mean() < 0.01


def test_no_finding_of_a_patient_is_covered_by_the_others() -> None:
    for index in range(12):
        subject = draw_subject("covered", index, smallest_mm=SMALL_MM, count=4)
        canvas = paint_scan(grid_over(subject.patient, (32, 96, 96)), subject)
        voxels = np.bincount(canvas.lesions.ravel(), minlength=len(subject.findings) + 1)[1:]
        assert (voxels > 10).all(), subject.findings


def test_lesions_carry_the_number_of_their_finding(scenes: list[Scene]) -> None:
    scene = scenes[1]
    wanted = ("Pericardial effusion", "Lung nodule", "Medical material")
    findings = [placed(kind, scene, SMALL_MM, "number")[0] for kind in KINDS if kind.abnormality in wanted]
    canvas = paint_healthy(scene[2].grid, scene[0])
    paint_findings(canvas, scene[0].patient, tuple(findings))
    for number, finding in enumerate(findings, start=1):
        _, alone = painted(scene, finding)
        assert (canvas.lesions[alone] == number).mean() > 0.9
    assert canvas.lesion == 0
