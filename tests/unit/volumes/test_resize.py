"""Resizing against naive averaging and interpolation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm3d_ct.seeding import random_stream
from vlm3d_ct.volumes.resize import (
    resample_average,
    resample_nearest,
    resample_weights,
    resize_average,
    resize_nearest,
    resize_weights,
)

SIDES = st.integers(1, 12)
SIZES = st.tuples(SIDES, SIDES, SIDES)


def _volume(shape: tuple[int, ...]) -> np.ndarray:
    return random_stream(0, "resize").integers(-1024, 3072, shape, dtype=np.int16)


def _naive_average(volume: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Each new voxel as the mean over its extent, by cutting every old voxel into as many pieces as needed."""
    for axis, new in enumerate(size):
        pieces = np.repeat(volume.astype(np.float64), new, axis=axis)
        groups = np.moveaxis(pieces, axis, 0).reshape(new, volume.shape[axis], *np.delete(pieces.shape, axis))
        volume = np.moveaxis(groups.mean(axis=1), 0, axis)
    return volume


@given(shape=SIZES, size=SIZES)
@settings(max_examples=60, deadline=None)
def test_shrinking_is_the_mean_over_the_extent(shape: tuple[int, int, int], size: tuple[int, int, int]) -> None:
    size = tuple(min(pair) for pair in zip(shape, size, strict=True))  # type: ignore[assignment]
    volume = _volume(shape)
    np.testing.assert_allclose(resize_average(volume, size), _naive_average(volume, size), atol=0.51)


@given(shape=SIZES, size=SIZES, value=st.integers(-1024, 3071))
@settings(max_examples=100, deadline=None)
def test_constant_volumes_stay_constant(shape: tuple[int, int, int], size: tuple[int, int, int], value: int) -> None:
    assert (resize_average(np.full(shape, value, np.int16), size) == value).all()


@given(shape=SIZES, size=SIZES)
@settings(max_examples=60, deadline=None)
def test_resizing_commutes_with_mirroring(shape: tuple[int, int, int], size: tuple[int, int, int]) -> None:
    volume = _volume(shape)
    mirrored = resize_average(volume[:, :, ::-1], size)[:, :, ::-1]
    np.testing.assert_allclose(resize_average(volume, size), mirrored, atol=1)


def test_growing_is_linear_between_the_centres() -> None:
    np.testing.assert_allclose(resize_weights(2, 4), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]], atol=1e-6)
    ramp = np.arange(0, 80, 10, dtype=np.int16).reshape(1, 1, 8)
    assert resize_average(ramp, (1, 1, 16))[0, 0, 1:-1].tolist() == pytest.approx(
        [2.5 + 5 * i for i in range(14)], abs=0.51
    )


@given(old=st.integers(1, 400), new=st.integers(1, 400))
@settings(max_examples=100, deadline=None)
def test_weights_are_shares(old: int, new: int) -> None:
    weights = resize_weights(old, new)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    if new <= old:  # every old voxel counts, and all count the same
        np.testing.assert_allclose(weights.sum(axis=0), new / old, atol=1e-5)


def test_the_same_size_changes_nothing_and_no_slice_is_skipped() -> None:
    volume = _volume((30, 8, 8))
    np.testing.assert_array_equal(resize_average(volume, volume.shape), volume)  # type: ignore[arg-type]
    for z in range(30):
        lit = np.zeros((30, 1, 1), np.int16)
        lit[z] = 3000
        assert resize_average(lit, (4, 1, 1)).sum() == pytest.approx(400, abs=1)


def test_bounds_limit_the_values_before_they_are_averaged() -> None:
    volume = np.array([-8192, 1000], np.int16).reshape(2, 1, 1)
    assert resize_average(volume, (1, 1, 1), bounds=(-1024, 3071)).item() == -12


def test_nearest_takes_the_label_at_the_centre() -> None:
    labels = np.arange(6, dtype=np.uint8).reshape(6, 1, 1)
    assert resize_nearest(labels, (2, 1, 1)).ravel().tolist() == [1, 4]
    assert resize_nearest(labels, (12, 1, 1)).ravel().tolist() == [i // 2 for i in range(12)]


@given(shape=SIZES, size=SIZES)
@settings(max_examples=60, deadline=None)
def test_nearest_is_plain_indexing(shape: tuple[int, int, int], size: tuple[int, int, int]) -> None:
    labels = random_stream(1, "labels").integers(0, 21, shape, dtype=np.uint8)
    index = [np.floor((np.arange(n) + 0.5) * (o / n) + 1e-9).astype(int) for o, n in zip(shape, size, strict=True)]
    np.testing.assert_array_equal(resize_nearest(labels, size), labels[np.ix_(*index)])


def _naive_resample(volume: np.ndarray, size: tuple[int, ...], ratios: tuple[float, ...], outside: float) -> np.ndarray:
    """Each new voxel as the mean of many points in its extent, each of which lies in one old voxel or outside."""
    points = 60
    for axis, (new, ratio) in enumerate(zip(size, ratios, strict=True)):
        old = volume.shape[axis]
        start = old / 2 + (np.arange(new) - new / 2) * ratio
        where = np.floor(start[:, None] + (np.arange(points) + 0.5) * ratio / points).astype(int)
        taken = np.take(volume.astype(np.float64), np.clip(where, 0, old - 1), axis=axis)
        inside = ((where >= 0) & (where < old)).reshape([-1 if i == axis else 1 for i in range(axis)] + [new, points])
        inside = inside.reshape(inside.shape + (1,) * (volume.ndim - axis - 1))
        volume = np.where(inside, taken, outside).mean(axis=axis + 1)
    return volume


@given(shape=SIZES, size=SIZES, ratios=st.tuples(*[st.sampled_from([1.0, 1.25, 1.5, 2.0, 3.0])] * 3))
@settings(max_examples=60, deadline=None)
def test_resampling_is_the_mean_over_the_extent_and_air_beyond(
    shape: tuple[int, int, int], size: tuple[int, int, int], ratios: tuple[float, float, float]
) -> None:
    volume = _volume(shape)
    found = resample_average(volume, size, ratios, outside=-1024)
    expected = _naive_resample(volume, size, ratios, -1024)
    # 60 points an axis: an edge of an old voxel may fall between two of them, 4096 HU / 60 on each of three axes
    np.testing.assert_allclose(found, expected, atol=3 * 4096 / 60 + 0.5)


@given(shape=SIZES, size=SIZES)
@settings(max_examples=40, deadline=None)
def test_resampling_to_the_same_spacing_crops_and_pads_about_the_centre(
    shape: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    shape = tuple(old + (old + new) % 2 for old, new in zip(shape, size, strict=True))  # type: ignore[assignment]
    volume, labels = _volume(shape), (_volume(shape) % 7).astype(np.uint8)
    pairs = list(zip(shape, size, strict=True))
    kept = [min(pair) for pair in pairs]
    source = tuple(slice((old - n) // 2, (old + n) // 2) for (old, _), n in zip(pairs, kept, strict=True))
    target = tuple(slice((new - n) // 2, (new + n) // 2) for (_, new), n in zip(pairs, kept, strict=True))
    for array, outside in ((volume, -1024), (labels, 0)):
        expected = np.full(size, outside, array.dtype)
        expected[target] = array[source]
        if outside:
            found = resample_average(array, size, (1.0, 1.0, 1.0), outside=outside)
        else:
            found = resample_nearest(array, size, (1.0, 1.0, 1.0))
        np.testing.assert_array_equal(found, expected)


@given(old=st.integers(1, 30), new=st.integers(1, 30), ratio=st.floats(0.2, 4.0))
@settings(max_examples=100, deadline=None)
def test_resampling_within_the_volume_keeps_constants_and_mirrors(old: int, new: int, ratio: float) -> None:
    weights = resample_weights(old, new, ratio)
    edges = old / 2 + (np.arange(new + 1) - new / 2) * ratio
    within = (edges[:-1] >= 0) & (edges[1:] <= old)
    np.testing.assert_allclose(weights[within].sum(axis=1), 1, atol=1e-5)
    assert (weights.sum(axis=1) < 1 + 1e-5).all()
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=2e-6 * 30)


def test_growing_by_a_spacing_is_linear_between_the_centres() -> None:
    np.testing.assert_allclose(resample_weights(2, 4, 0.5), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]], atol=1e-6)
    np.testing.assert_allclose(resample_weights(2, 6, 0.5)[[0, 5]], 0)
