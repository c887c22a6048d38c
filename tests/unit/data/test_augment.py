"""Augmentation: known geometry in millimetres, known intensities, and draws that depend on their coordinates only."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from vlm3d_ct.config import AugmentConfig
from vlm3d_ct.data.augment import draw_change, rotation_matrix_xyz, to_intensities
from vlm3d_ct.data.batch import Batch, Change, Sample, collate
from vlm3d_ct.data.case import Case, Plane
from vlm3d_ct.phantom.planes import PLANES, as_pictures
from vlm3d_ct.text.regions import load_region_table
from vlm3d_ct.text.tokenize import ReportTokenizer, train_small_tokenizer
from vlm3d_ct.volumes.preprocess import Prepared

PLAN = ((40.0, 400.0),)
WIDE = ((0.0, 4096.0),)
"""HU -2048..2048: nothing that a scan holds is clipped."""
CASE = Case(
    case_id="case",
    patient_id="case",
    kind="volume",
    image_paths=(),
    mask_paths=(),
    mask_labels="regions",
    reports=(),
)
TOKENIZER = ReportTokenizer(train_small_tokenizer(["the lung is clear"], 60), 16)


def make_batch(
    *voxels: np.ndarray,
    labels: np.ndarray | None = None,
    changes: tuple[Change, ...] = (),
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Batch:
    """A batch of volumes (int16) or slices (uint8); all with the same labels."""
    kind = "slice" if voxels[0].dtype == np.uint8 else "volume"
    report = TOKENIZER.encode_text("the lung is clear", load_region_table())
    samples = [
        Sample(f"case_{i}", Prepared(voxels_hu=v, labels=labels, spacing_mm=spacing_mm, kind=kind), report, change)  # type: ignore[arg-type]
        for i, (v, change) in enumerate(zip(voxels, changes or (Change(),) * len(voxels), strict=True))
    ]
    return collate(samples, TOKENIZER.pad_id)


def intensities(batch: Batch, windows: tuple[tuple[float, float], ...] = WIDE) -> np.ndarray:
    return to_intensities(batch, windows, load_region_table())[0].numpy()


def noisy_volume(shape: tuple[int, int, int] = (4, 6, 8), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1000, shape, dtype=np.int16)


def test_known_hu_become_known_intensities():
    hu = np.array([-1024, -161, -160, -60, 40, 140, 240, 241, 3071], np.int16).reshape(1, 1, 9)
    expected = [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    np.testing.assert_allclose(intensities(make_batch(hu), PLAN).ravel(), expected, atol=1e-6)
    lung_and_bone = intensities(make_batch(hu), ((-600.0, 1500.0), (400.0, 1800.0)))
    assert lung_and_bone.shape == (1, 2, 1, 1, 9)
    np.testing.assert_allclose(lung_and_bone[0, :, 0, 0, 4], [(40 + 1350) / 1500, (40 + 500) / 1800], rtol=1e-6)


def test_grey_slices_pass_every_window():
    grey = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    out = intensities(make_batch(grey), ((40.0, 400.0), (-600.0, 1500.0)))
    for channel in range(2):
        np.testing.assert_allclose(out[0, channel].ravel(), np.arange(256) / 255, rtol=1e-6)
    assert to_intensities(make_batch(grey), PLAN, load_region_table())[1] is None


def test_without_a_change_nothing_changes():
    hu = noisy_volume()
    labels = np.random.default_rng(1).integers(0, 21, hu.shape, dtype=np.uint8)
    out, mask = to_intensities(make_batch(hu, labels=labels), WIDE, load_region_table())
    np.testing.assert_allclose(out[0, 0].numpy(), (hu + 2048) / 4096, atol=1e-6)
    assert mask is not None
    np.testing.assert_array_equal(mask[0, 0].numpy(), labels)


def test_a_flip_mirrors_voxels_and_labels_and_swaps_the_sides_of_the_ids():
    hu = noisy_volume()
    labels = np.tile(np.array([0, 1, 2, 3, 4, 5, 8, 20], np.uint8), (4, 6, 1))
    batch = make_batch(hu, hu, labels=labels, changes=(Change(flip=True), Change()))
    before = batch.voxels.clone()
    out, mask = to_intensities(batch, WIDE, load_region_table())
    np.testing.assert_allclose(out[0, 0].numpy(), (hu[:, :, ::-1] + 2048) / 4096, atol=1e-6)
    np.testing.assert_allclose(out[1, 0].numpy(), (hu + 2048) / 4096, atol=1e-6)
    assert mask is not None
    assert mask[0, 0, 0, 0].tolist() == [20, 8, 3, 1, 5, 4, 4, 0]  # the right middle lobe becomes left upper
    np.testing.assert_array_equal(mask[1, 0].numpy(), labels)
    assert torch.equal(batch.voxels, before)


def test_a_flip_of_the_scan_alone_keeps_the_ids():
    hu = noisy_volume()
    labels = np.tile(np.array([0, 1, 2, 3, 4, 5, 8, 20], np.uint8), (4, 6, 1))
    batch = make_batch(hu, labels=labels, changes=(Change(flip=True, mirror_words=False),))
    out, mask = to_intensities(batch, WIDE, load_region_table())
    np.testing.assert_allclose(out[0, 0].numpy(), (hu[:, :, ::-1] + 2048) / 4096, atol=1e-6)
    assert mask is not None
    assert mask[0, 0, 0, 0].tolist() == [20, 8, 5, 4, 3, 2, 1, 0]


def centre_of_mass_mm(weights: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Centre (x, y, z) of what is bright, in mm from the centre of the volume."""
    grids = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(weights.shape, spacing_mm, strict=True)), indexing="ij"
    )
    return np.array([(grid * weights).sum() / weights.sum() for grid in reversed(grids)])


SHAPE, SPACING_MM = (24, 60, 40), (4.0, 1.5, 2.5)  # 96 x 90 x 100 mm


def blob(centre_xyz_mm: tuple[float, float, float], radius_mm: float = 9.0) -> np.ndarray:
    """True within a ball."""
    z, y, x = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(SHAPE, SPACING_MM, strict=True)), indexing="ij"
    )
    cx, cy, cz = centre_xyz_mm
    return (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < radius_mm**2


def rotated(
    centre_xyz_mm: tuple[float, float, float], angles_rad: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """A bright ball in air and its label, rotated: intensities above air, and the labels."""
    ball = blob(centre_xyz_mm)
    hu = np.where(ball, 976, -1024).astype(np.int16)
    change = Change(angles_rad=angles_rad)
    batch = make_batch(hu, labels=ball.astype(np.uint8) * 8, changes=(change,), spacing_mm=SPACING_MM)
    out, mask = to_intensities(batch, WIDE, load_region_table())
    assert mask is not None
    return out[0, 0].numpy() - 0.25, mask[0, 0].numpy()


QUARTER = math.pi / 2


@pytest.mark.parametrize(
    ("angles_zyx", "start_xyz", "end_xyz"),
    [
        ((QUARTER, 0.0, 0.0), (30, 0, 12), (0, -30, 12)),
        ((QUARTER, 0.0, 0.0), (0, 25, 0), (25, 0, 0)),
        ((0.0, QUARTER, 0.0), (30, 0, 0), (0, 0, 30)),
        ((0.0, 0.0, QUARTER), (0, 30, 0), (0, 0, -30)),
        ((0.0, 0.0, QUARTER), (20, 0, 28), (20, 28, 0)),
    ],
)
def test_a_quarter_turn_moves_a_ball_where_it_belongs_in_millimetres(
    angles_zyx: tuple[float, float, float], start_xyz: tuple[int, int, int], end_xyz: tuple[int, int, int]
):
    # voxels of 4 x 1.5 x 2.5 mm: a rotation of indices would carry it elsewhere
    bright, labels = rotated(start_xyz, angles_zyx)
    np.testing.assert_allclose(centre_of_mass_mm(bright, SPACING_MM), end_xyz, atol=0.8)
    np.testing.assert_allclose(centre_of_mass_mm((labels == 8).astype(float), SPACING_MM), end_xyz, atol=1.5)


@pytest.mark.parametrize("angles", [(0.17, 0.0, 0.0), (0.1, -0.15, 0.12), (-0.05, 0.17, -0.17)])
def test_small_rotations_keep_volumes_and_distances(angles: tuple[float, float, float]):
    start = (20.0, -15.0, 18.0)
    bright, labels = rotated(start, angles)
    (matrix,) = rotation_matrix_xyz(torch.tensor([angles], dtype=torch.float64)).numpy()
    end = matrix.T @ np.array(start)  # the result at p shows the scan at R p
    np.testing.assert_allclose(centre_of_mass_mm(bright, SPACING_MM), end, atol=0.5)
    np.testing.assert_allclose(centre_of_mass_mm((labels == 8).astype(float), SPACING_MM), end, atol=0.8)
    assert bright.sum() == pytest.approx(blob(start).sum() * 2000 / 4096, rel=0.05)
    assert set(np.unique(labels)) == {0, 8}


def test_rotation_matrices_are_rotations():
    random = torch.Generator().manual_seed(0)
    matrices = rotation_matrix_xyz(torch.rand((20, 3), generator=random, dtype=torch.float64) - 0.5)
    torch.testing.assert_close(matrices @ matrices.transpose(1, 2), torch.eye(3, dtype=torch.float64).expand(20, 3, 3))
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(20, dtype=torch.float64))


def test_what_turns_in_from_outside_is_air_without_a_region():
    hu, labels = np.full((4, 16, 16), 500, np.int16), np.full((4, 16, 16), 5, np.uint8)
    out, mask = to_intensities(
        make_batch(hu, labels=labels, changes=(Change(angles_rad=(math.pi / 4, 0.0, 0.0)),)), WIDE, load_region_table()
    )
    assert out[0, 0, :, 0, 0].tolist() == pytest.approx([0.25] * 4)  # -1024 HU
    assert mask is not None
    assert not mask[0, 0, :, 0, 0].any()
    assert (mask[0, 0, :, 8, 8] == 5).all()


def test_a_shift_is_added_to_the_windowed_intensity_and_clipped():
    hu = np.array([-160, 40, 220], np.int16).reshape(1, 1, 3)
    up, down = (intensities(make_batch(hu, changes=(Change(shift=s),)), PLAN).ravel() for s in (0.1, -0.1))
    np.testing.assert_allclose(up, [0.1, 0.6, 1.0], atol=1e-6)
    np.testing.assert_allclose(down, [0.0, 0.4, 0.85], atol=1e-6)


def test_noise_belongs_to_the_case_and_not_to_its_place_in_the_batch():
    hu = np.zeros((8, 32, 32), np.int16)
    noisy = Change(noise_sigma=0.01, noise_seed=3)
    first = intensities(make_batch(hu, hu, changes=(noisy, Change())))
    second = intensities(make_batch(hu, hu, changes=(Change(), noisy)))
    np.testing.assert_array_equal(first[0], second[1])
    np.testing.assert_array_equal(first[1], second[0])
    noise = first[0] - 0.5
    assert noise.std() == pytest.approx(0.01, rel=0.05)
    assert abs(noise.mean()) < 5 * 0.01 / math.sqrt(noise.size)
    other = intensities(make_batch(hu, changes=(replace(noisy, noise_seed=4),)))
    assert not np.array_equal(other[0], first[0])
    grey = np.full((1, 16, 16), 128, np.uint8)
    assert intensities(make_batch(grey, changes=(noisy,))).std() == pytest.approx(0.01, rel=0.2)


def draw(epoch: int = 0, case: str = "case", config: AugmentConfig | None = None, **changes: object) -> Change:
    of_case = {key: changes.pop(key) for key in ("kind", "plane") if key in changes}
    drawn_for = replace(CASE, case_id=case, **of_case)  # type: ignore[arg-type]
    arguments = {"can_flip": True, "seed": 0, "epoch": epoch} | changes
    return draw_change(config or AugmentConfig(), drawn_for, **arguments)  # type: ignore[arg-type]


def test_a_draw_depends_on_its_coordinates_only():
    assert draw() == draw()
    always = AugmentConfig(flip_probability=1, rotation_probability=1, intensity_probability=1, noise_probability=1)
    drawn = {
        draw(config=always),
        draw(1, config=always),
        draw(0, "other", config=always),
        draw(config=always, seed=1),
        draw(config=always, kind="slice"),
    }
    assert len(drawn) == 5


def test_one_setting_does_not_move_another():
    plain = draw(3)
    for field, value in (("flip_probability", 1.0), ("rotation_probability", 1.0), ("noise_probability", 1.0)):
        changed = draw(3, config=replace(AugmentConfig(), **{field: value}))
        kept = {"flip": "flip", "rotation": "angles_rad", "noise": "noise_sigma"}
        touched = kept[field.split("_")[0]]
        assert {k: v for k, v in vars(changed).items() if k != touched} == {
            k: v for k, v in vars(plain).items() if k != touched
        }


def test_changes_happen_as_often_and_as_strongly_as_planned():
    drawn = [draw(0, f"case {i}") for i in range(4000)]

    def share(happened: list[bool]) -> float:
        return sum(happened) / len(happened)

    tolerance = 4 * math.sqrt(0.25 / len(drawn))
    assert share([d.flip for d in drawn]) == pytest.approx(0.5, abs=tolerance)
    assert share([any(d.angles_rad) for d in drawn]) == pytest.approx(0.3, abs=tolerance)
    assert share([d.shift != 0 for d in drawn]) == pytest.approx(0.3, abs=tolerance)
    assert share([d.noise_sigma > 0 for d in drawn]) == pytest.approx(0.2, abs=tolerance)
    angles = np.degrees(np.array([d.angles_rad for d in drawn if any(d.angles_rad)]))
    assert 9.5 < np.abs(angles).max() <= 10.0
    assert np.abs(angles.mean(0)).max() < 1.0
    shifts = np.array([d.shift for d in drawn if d.shift])
    assert 0.095 < np.abs(shifts).max() <= 0.1


def test_a_report_that_cannot_be_mirrored_forbids_the_flip_and_nothing_else():
    always = AugmentConfig(flip_probability=1.0)
    free, bound = draw(config=always), draw(config=always, can_flip=False)
    assert free.flip
    assert not bound.flip
    assert replace(free, flip=False) == bound
    careless = draw(config=replace(always, mirror_words=False), can_flip=False)
    assert replace(careless, mirror_words=True) == free


def test_slices_turn_in_their_plane_only():
    config = AugmentConfig(rotation_probability=1.0)
    for i in range(20):
        about_z, *others = draw(0, str(i), config, kind="slice").angles_rad
        assert about_z != 0.0
        assert others == [0.0, 0.0]


@pytest.mark.parametrize("plane", PLANES)
def test_a_flipped_slice_is_the_slice_of_the_mirrored_patient(plane: Plane):
    """Cut as the phantom cuts its slices; a sagittal picture of the mirrored patient is another slice, so no flip."""
    always = AugmentConfig(flip_probability=1.0)
    change = draw(config=always, kind="slice", plane=plane)
    assert replace(change, flip=True) == draw(config=always, kind="slice")  # nothing else depends on the plane
    patient = np.random.default_rng(1).integers(0, 256, (4, 4, 4), dtype=np.uint8)
    pictures, mirrored = (np.ascontiguousarray(as_pictures(plane, p)) for p in (patient, patient[:, :, ::-1]))
    flipped = intensities(make_batch(pictures, changes=(Change(flip=change.flip),)))
    assert change.flip == (plane != "sagittal")
    np.testing.assert_allclose(flipped[0, 0] * 255, mirrored if change.flip else pictures, rtol=1e-6)
    if plane == "sagittal":
        np.testing.assert_array_equal(mirrored, pictures[::-1])  # sides are the order of the stack, not the columns
