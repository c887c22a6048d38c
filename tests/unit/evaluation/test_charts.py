"""Charts show what they are given, are the same twice, and survive what cannot be measured."""

from __future__ import annotations

import base64
import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vlm3d_ct.evaluation.charts import (
    health_picture,
    interval_bars,
    interval_curves,
    matrix_picture,
    rank_histogram,
    reliability_diagram,
)
from vlm3d_ct.pages.page import Picture

NAN = math.nan


def _estimate(value, low, high):
    return SimpleNamespace(estimate=value, low=low, high=high)


def _pixels(uri):
    Picture(data_uri=uri, alt="")  # fit for a page
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def _blue(pixels):
    return (pixels[..., 2] - pixels[..., 0] > 50).sum()


def _bars(**kinds):
    return interval_bars(kinds, label="AUROC", chance=0.5)


def test_an_interval_is_drawn_and_a_wider_one_takes_more_ink():
    narrow, wide = (_blue(_pixels(_bars(a=_estimate(0.7, 0.7 - w, 0.7 + w)))) for w in (0.05, 0.25))
    assert 0 < narrow < wide


def test_what_is_undefined_keeps_its_row_and_has_no_mark():
    assert _blue(_pixels(_bars(a=_estimate(NAN, NAN, NAN)))) == 0
    assert _blue(_pixels(_bars(a=_estimate(0.5, NAN, NAN)))) > 0
    _pixels(interval_bars({}, label="AUROC", chance={}))


def test_names_with_dollar_signs_are_names_not_formulas():
    _pixels(interval_bars({"$x^{ \n $": _estimate(0.5, 0.4, 0.6)}, label="AUROC", chance={"$x^{ \n $": 0.3}))


@pytest.mark.parametrize("points", [[], [(0.1, _estimate(NAN, NAN, NAN))], [(0.01, _estimate(0.5, 0.4, 0.6))]])
def test_curves_of_any_number_of_points_are_drawn(points):
    _pixels(interval_curves({"linear": points}, x_label="share", y_label="AUROC", log_x=True))


def test_empty_bins_of_a_reliability_diagram_are_left_out():
    edges = np.linspace(0.05, 0.95, 10)
    full = reliability_diagram(edges, edges, np.full(10, 4, np.int64))
    holes = reliability_diagram(np.full(10, NAN), np.full(10, NAN), np.zeros(10, np.int64))
    assert _blue(_pixels(full)) > 0
    assert _blue(_pixels(holes)) == 0


def test_a_cell_that_counts_nothing_stays_white_and_a_full_one_is_dark():
    shares = np.array([[1.0, NAN], [0.0, 0.5]])
    names = ["one", "two"]
    ink = _blue(_pixels(matrix_picture(shares, names, names, row_label="true", column_label="found")))
    none = _blue(_pixels(matrix_picture(shares * NAN, names, names, row_label="true", column_label="found")))
    assert ink > 500 > none


@pytest.mark.parametrize("n", [0, 1, 2, 3, 50])
def test_health_is_drawn_for_any_number_of_cases(n):
    random = np.random.default_rng(0)
    _pixels(health_picture(random.normal(size=(n, 8)), random.normal(size=(n, 8))))


def test_health_of_a_collapsed_space_is_drawn():
    _pixels(health_picture(np.ones((5, 4)), np.zeros((5, 4))))
    _pixels(health_picture(np.ones((5, 1)), np.ones((5, 1))))


def test_the_same_numbers_give_the_same_picture():
    random = np.random.default_rng(1)
    volume, text = random.normal(size=(2, 30, 8))
    assert health_picture(volume, text) == health_picture(volume.copy(), text.copy())


@pytest.mark.parametrize("n", [1, 2, 1000])
def test_ranks_of_any_pool_are_drawn(n):
    ranks = np.arange(1, n + 1)
    _pixels(rank_histogram(ranks, ranks[::-1].copy()))
    _pixels(rank_histogram(ranks, ranks, one_right_item=False))
