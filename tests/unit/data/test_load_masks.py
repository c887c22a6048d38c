"""Cases with masks of every form, from files to region ids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm3d_ct.data.case import Case, MaskLabels
from vlm3d_ct.data.load import load_case
from vlm3d_ct.errors import DataError
from vlm3d_ct.text.regions import load_region_table, totalsegmentator_classes
from vlm3d_ct.volumes.nifti import write_nifti
from vlm3d_ct.volumes.slices import SliceStack
from vlm3d_ct.volumes.volume import RegionMask, Volume

SHAPE, SPACING_MM = (24, 30, 40), (4.0, 8.0, 8.0)
TABLE = load_region_table()
RIGHT, LEFT = (slice(6, 18), slice(5, 25), slice(4, 16)), (slice(6, 18), slice(5, 25), slice(24, 36))
HEART = (slice(6, 12), slice(8, 18), slice(17, 23))


def chest_hu() -> np.ndarray:
    """A block of tissue in air, with two lungs."""
    hu = np.full(SHAPE, -1000, np.int16)
    hu[:, 2:28, 2:38] = 40
    hu[RIGHT] = hu[LEFT] = -850
    return hu


def structures() -> dict[str, np.ndarray]:
    boxes = {"lung_upper_lobe_right": RIGHT, "lung_upper_lobe_left": LEFT, "heart_myocardium": HEART}
    masks = {name: np.zeros(SHAPE, np.uint8) for name in boxes}
    for name, box in boxes.items():
        masks[name][box] = 1
    return masks


def make_case(folder: Path, labels: MaskLabels, *masks: tuple[str, np.ndarray]) -> Case:
    write_nifti(folder / "volume.nii.gz", chest_hu(), SPACING_MM, np.int16)
    paths = []
    for name, array in masks:
        paths.append(folder / f"{name}.nii.gz")
        write_nifti(paths[-1], array, SPACING_MM, np.uint8)
    return Case(
        case_id="train_1_a_1",
        patient_id="train_1",
        kind="volume",
        image_paths=(folder / "volume.nii.gz",),
        mask_paths=tuple(paths),
        mask_labels=labels,
        reports=(),
    )


def ids(version: int) -> np.ndarray:
    """The structures as ids of TotalSegmentator; version 2 has one heart, version 1 its chambers."""
    classes = totalsegmentator_classes(1 if version == 1 else 2)
    labels = np.zeros(SHAPE, np.uint8)
    for name, mask in structures().items():
        labels[mask > 0] = 1 + classes.index("heart" if version == 2 and "heart" in name else name)
    return labels


def load_mask(case: Case) -> RegionMask:
    volume, mask = load_case(case)
    assert isinstance(volume, Volume)
    assert mask is not None
    return mask


def code_of(case: Case) -> tuple[str, str]:
    with pytest.raises(DataError) as caught:
        load_case(case)
    (problem,) = caught.value.problems
    return problem.code, problem.remedy


def test_the_same_anatomy_gives_the_same_regions_from_every_source(tmp_path: Path):
    folders = [tmp_path / name for name in ("one", "two", "files")]
    for folder in folders:
        folder.mkdir()
    sources = [
        load_mask(make_case(folders[0], "totalsegmentator_v1", ("ids", ids(1)))),
        load_mask(make_case(folders[1], "totalsegmentator", ("ids", ids(2)))),
        load_mask(make_case(folders[2], "structures", *structures().items())),
    ]
    assert {mask.present for mask in sources} == {(1, 4, 7, 8, 9, 12, 17)}
    for mask in sources[1:]:
        np.testing.assert_array_equal(mask.labels, sources[0].labels)


def test_region_ids_are_left_as_they_are(tmp_path: Path):
    labels = np.zeros(SHAPE, np.uint8)
    labels[RIGHT], labels[LEFT], labels[HEART] = 1, 4, 8
    np.testing.assert_array_equal(load_mask(make_case(tmp_path, "regions", ("m", labels))).labels, labels)


def test_a_case_without_a_mask_has_none(tmp_path: Path):
    for labels in ("regions", "totalsegmentator", "totalsegmentator_v1", "structures"):
        assert load_case(make_case(tmp_path, labels))[1] is None


def test_what_the_mask_came_to_is_told(tmp_path: Path):
    case = make_case(tmp_path, "structures", *structures().items(), ("lesion 3", np.ones(SHAPE, np.uint8)))
    mask = load_mask(case)
    assert mask.unknown == ("lesion 3",)
    assert mask.source == tmp_path


@pytest.mark.parametrize(
    ("labels", "value", "remedy"),
    [
        ("totalsegmentator_v1", 105, "set data.mask_labels to totalsegmentator."),
        ("totalsegmentator", 118, "set data.mask_labels to totalsegmentator_v1."),
        ("regions", 21, "region ids"),
    ],
)
def test_ids_beyond_the_version_suggest_the_other(tmp_path: Path, labels: MaskLabels, value: int, remedy: str):
    mask = np.zeros(SHAPE, np.uint8)
    mask[0, 0, 0] = value - 1
    assert load_mask(make_case(tmp_path, labels, ("m", mask))).labels.shape == SHAPE
    mask[0, 0, 0] = value
    code, said = code_of(make_case(tmp_path, labels, ("m", mask)))
    assert code == "label-range"
    assert remedy in said


def lobes(version: int) -> np.ndarray:
    classes = totalsegmentator_classes(1 if version == 1 else 2)
    labels = np.zeros(SHAPE, np.uint8)
    for side, box in (("right", RIGHT), ("left", LEFT)):
        middle = (box[0].start + box[0].stop) // 2
        for lobe, part in (("lower", slice(box[0].start, middle)), ("upper", slice(middle, box[0].stop))):
            labels[part, box[1], box[2]] = 1 + classes.index(f"lung_{lobe}_lobe_{side}")
    return labels


@pytest.mark.parametrize(("version", "wrong"), [(1, "totalsegmentator"), (2, "totalsegmentator_v1")])
def test_a_mask_read_as_the_other_version_is_refused(tmp_path: Path, version: int, wrong: MaskLabels):
    right: MaskLabels = "totalsegmentator_v1" if version == 1 else "totalsegmentator"
    case = make_case(tmp_path, right, ("m", lobes(version)))
    assert {1, 3, 4, 5} <= set(load_mask(case).present)
    code, remedy = code_of(replace(case, mask_labels=wrong))
    assert (code, remedy) == ("mask-version", f"Set data.mask_labels to {right}.")


def test_problems_of_volume_and_structures_come_together(tmp_path: Path):
    case = make_case(tmp_path, "structures", *structures().items())
    for path in (case.image_paths[0], *case.mask_paths[:2]):
        path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load_case(case)
    assert [problem.code for problem in caught.value.problems] == ["not-gzip"] * 3


@settings(max_examples=80)
@given(
    values=st.one_of(
        st.lists(st.integers(0, 130), min_size=1, max_size=4),
        st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=4),
    ),
    shape=st.sampled_from([SHAPE, SHAPE, (24, 30, 41), (2, 2, 2)]),
    labels=st.sampled_from(["regions", "totalsegmentator", "totalsegmentator_v1", "structures"]),
    spacing_z=st.sampled_from([4.0, 4.01, 5.0]),
)
def test_any_mask_file_is_region_ids_on_the_grid_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[float],
    shape: tuple[int, int, int],
    labels: MaskLabels,
    spacing_z: float,
):
    folder = tmp_path_factory.mktemp("fuzz")
    case = replace(make_case(folder, labels), mask_paths=(folder / "heart.nii.gz",))
    stored = np.resize(np.array(values, np.float32), shape)
    write_nifti(case.mask_paths[0], stored, (spacing_z, *SPACING_MM[1:]), np.float32)
    on_grid = shape == SHAPE and spacing_z != 5.0
    whole = all(value >= 0 and value == int(value) for value in values)
    largest = {"regions": 20, "totalsegmentator": 117, "totalsegmentator_v1": 104, "structures": 1}[labels]
    mask, codes = None, set[str]()
    try:
        mask = load_mask(case)
    except DataError as error:
        codes = {problem.code for problem in error.problems}
    if mask is None:
        assert not (on_grid and whole and max(values) <= largest) or codes == {"mask-version"}
        return
    assert on_grid
    assert whole
    assert max(values) <= largest or (labels == "structures" and set(values) <= {0, 255})
    assert mask.labels.shape == SHAPE
    assert mask.labels.max() <= TABLE.num_regions


def test_a_slice_may_have_several_lesion_masks(tmp_path: Path):
    picture = np.arange(64, dtype=np.uint8).reshape(8, 8)
    paths = [tmp_path / f"{name}.png" for name in ("0", "a", "b")]
    lesions = np.zeros((2, 8, 8), np.uint8)
    lesions[0, 1:3, 1:3], lesions[1, 5:7, 4:8] = 255, 255
    for path, grey in zip(paths, (picture, *lesions), strict=True):
        Image.fromarray(grey).save(path)
    case = Case(
        case_id="1",
        patient_id="1",
        kind="slice",
        image_paths=(paths[0],) * 4,
        mask_paths=tuple(paths[1:]),
        mask_labels="lesion",
        reports=(),
    )
    stack, mask = load_case(case)
    assert isinstance(stack, SliceStack)
    assert mask is None
    np.testing.assert_array_equal(stack.lesion, lesions.max(0) // 255)


REAL_DATA = Path(__file__).parents[4] / "shared" / "realdata"


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real scans are not beside the repository")
@pytest.mark.parametrize(
    ("scan", "ids_file", "derived"),
    [
        ("thorax_cta", "thorax_cta_totalsegmentator_ids", {9}),  # neither lungs nor abdomen are labelled
        ("abdomen_small_ct", "abdomen_small_totalsegmentator_ids", {7, 12, 17}),  # no heart in view
    ],
)
def test_real_masks_get_the_regions_that_their_labels_allow(scan: str, ids_file: str, derived: set[int]):
    case = Case(
        case_id=scan,
        patient_id=scan,
        kind="volume",
        image_paths=(REAL_DATA / f"{scan}.nii.gz",),
        mask_paths=(REAL_DATA / f"{ids_file}.nii.gz",),
        mask_labels="totalsegmentator",
        reports=(),
    )
    volume, _ = load_case(case)
    assert isinstance(volume, Volume)
    mask = load_mask(case)
    assert set(mask.present) & {7, 9, 12, 17} == derived
    litres = {region: np.count_nonzero(mask.labels == region) * np.prod(volume.spacing_mm) / 1e6 for region in derived}
    assert all(0.005 < litre < 3 for litre in litres.values()), litres
    if 17 in derived:
        assert np.median(volume.voxels_hu[mask.labels == 17]) > -150  # fat and muscle, no air
    code, _ = code_of(replace(case, mask_labels="regions"))
    assert code == "label-range"
