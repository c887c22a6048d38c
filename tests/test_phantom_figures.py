"""The measurements of `docs/phantom.md` find what is there to be found, at sizes that take no time."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from vlm3d_ct.seeding import random_stream

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))  # where Python puts it when a script is run

import phantom_figures
import windows
from phantom import cases, lesions, shortcuts, speed, texts, tissues

LABELS = random_stream("labels").random(300) < 0.3


def test_a_leak_is_found_and_noise_is_not():
    noise = random_stream("noise").normal(size=(300, 4))
    assert abs(shortcuts.guess(noise, LABELS) - 0.5) < 0.12
    assert shortcuts.guess(np.ones((300, 3)), LABELS) == 0.5
    leak = noise.copy()
    leak[:, 2] += 3.0 * LABELS
    assert shortcuts.guess(leak, LABELS) > 0.9
    bent = noise.copy()
    bent[:, 1] = np.where(LABELS, 0.1, 2.0) * noise[:, 1]  # told by its size only: not by a linear model
    assert shortcuts.guess(bent, LABELS) > 0.8


def test_shortcuts_and_rules_read_a_case():
    case = next(c for i in range(1, 20) if len((c := cases.draw_case(3, i, "small")).subject.findings) > 2)
    seen = shortcuts.features(case)
    assert seen.labels == case.labels
    assert np.expm1(seen.rows["global histogram"]).sum() == pytest.approx(case.scan.voxels_hu.size)
    volumes = seen.rows["region masks"][::10]
    assert len(volumes) == shortcuts.NUM_REGIONS
    assert volumes[7] == (case.scan.labels == 8).sum()
    assert all(np.isfinite(row).all() for row in seen.rows.values())
    readings = lesions.readings(case)
    assert [name for name, _, _ in readings] == [finding.abnormality for finding in case.subject.findings]


def test_the_healthy_twin_is_the_same_patient_without_lesions():
    case = cases.draw_case(3, 2, "small")
    twin = cases.healthy_scan(case)
    assert not twin.lesions.any()
    np.testing.assert_array_equal(twin.labels, case.scan.labels)


def test_levels_leave_out_the_rim_and_small_pieces():
    voxels = np.zeros((12, 12, 12), dtype=np.int16)
    inside = np.zeros(voxels.shape, dtype=bool)
    inside[1:11, 1:11, 1:11] = True
    voxels[inside] = 500
    voxels[2:10, 2:10, 2:10] = 40
    found = tissues.level(voxels, inside)
    assert found == tissues.Level(40.0, 0.0, 40.0)
    assert tissues.level(voxels, inside, edge=3) is None


def test_hearts_are_compared_where_the_blood_is_as_bright():
    def case(aorta: float, heart: float) -> dict[str, tissues.Level | None]:
        return {"aorta": tissues.Level(aorta, 1, aorta), "heart": tissues.Level(heart, 2, heart)}

    drawn = [case(40, 50)] * 20 + [case(480, 400)] * tissues.NEAREST
    found = tissues.compare("heart", [case(490, 420), {"fat": None}], drawn)
    assert (found.scans, found.phantoms) == (1, tissues.NEAREST)
    assert (found.difference_hu, found.spread_factor) == (-20.0, 1.0)


def test_texts_and_bytes_are_measured():
    assert texts.distinct_share(1, 12) == 1.0
    assert speed.digest(1, 2, 1, 1) == speed.digest(1, 2, 1, 2) != speed.digest(2, 2, 1, 1)


def test_the_page_marks_what_is_above_the_limit():
    assert phantom_figures._shortcut_cell("file size", "Emphysema", 0.651) == "**0.65**"
    assert phantom_figures._shortcut_cell("file size", "Emphysema", 0.649) == "0.65"
    assert phantom_figures._shortcut_cell("global histogram", "Emphysema", 0.8) == "0.80 (n)"


def test_a_window_shows_nothing_of_what_it_clips():
    lung, emphysema = (np.full(9, hu, dtype=np.int16) + np.arange(9, dtype=np.int16) for hu in (-860, -960))
    assert windows.area(emphysema, lung, ("plan",)) == 0.5
    assert windows.area(emphysema, lung, ("lung",)) == windows.area(lung, emphysema, windows.WINDOWS) == 1.0
    assert windows.clipped_share(emphysema, ("plan",)) == 1.0
    assert windows.clipped_share(emphysema, windows.WINDOWS) == 0.0


def test_the_windows_page_has_a_row_for_every_finding():
    size = (32, 96, 96)
    rows = [row for index in range(1, 4) for row in windows.readings(size, cases.draw_case(3, index, "small"))]
    assert rows
    assert all(0.5 <= value <= row.areas[-1] + 0.05 for row in rows for value in row.areas if row.areas[-1] > 0.9)
    assert "\n".join(windows.page(rows, 3, "small", size)).count("\n| ") == 1 + len(windows.ABNORMALITIES)
