"""Mirrored texts are true of mirrored scans."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm3d_ct.text.mentions import find_mentions
from vlm3d_ct.text.mirror import can_mirror, mirror_text
from vlm3d_ct.text.regions import load_region_table

KNOWN = [
    ("Nodule in the right upper lobe.", "Nodule in the left upper lobe."),
    ("Left-sided effusion, LEFT lung, Left kidney.", "Right-sided effusion, RIGHT lung, Right kidney."),
    ("RUL and LLL consolidation.", "LUL and RLL consolidation."),
    ("Mediastinum shifted leftward.", "Mediastinum shifted rightward."),
    ("Rt. lower lobe, lt lung.", "Lt. lower lobe, rt lung."),
    ("Both lungs are clear.", "Both lungs are clear."),
    ("A bright area upright.", "A bright area upright."),
]
REFUSED = [
    "Consolidation in the right middle lobe.",
    "Atelectasis in the middle lobe.",
    "RML nodule.",
    "Consolidation of the right upper and middle lobes.",
    "Consolidation of the right upper, middle and lower lobes.",
    "Lingular atelectasis.",
    "Opacity in the left mid lung zone.",
    "Thickening of the minor fissure.",
    "The left ventricle is dilated.",
    "Calcification of the LAD.",
    "Cyst in the right lobe of the liver.",
    "Dextroscoliosis.",
    "R lung is clear.",
    "rIGHT upper lobe nodule.",
]
VOCABULARY = """right left Right LEFT both upper lower lobe lobes lung lungs of the and RUL LLL Rt. right-sided leftward
nodule no effusion pleural heart kidney . , 12 mm rIGHT bright"""
WORDS = st.sampled_from([*VOCABULARY.split(), "\n"])


@pytest.mark.parametrize(("text", "mirrored"), KNOWN)
def test_sides_are_swapped_and_case_is_kept(text: str, mirrored: str):
    assert mirror_text(text) == mirrored
    assert can_mirror(text, load_region_table())


@pytest.mark.parametrize("text", REFUSED)
def test_texts_about_what_one_side_has_are_not_mirrored(text: str):
    assert not can_mirror(text, load_region_table())


@given(st.lists(WORDS, max_size=14).map(" ".join))
def test_mirroring_twice_gives_the_text_back(text: str):
    assert mirror_text(mirror_text(text)) == text


@given(st.lists(WORDS, max_size=14).map(" ".join))
def test_a_mirrored_text_mentions_the_mirror_regions(text: str):
    table = load_region_table()
    if not can_mirror(text, table):
        return
    lookup = table.mirror_lookup()
    assert can_mirror(mirror_text(text), table)
    for before, after in zip(find_mentions(text, table), find_mentions(mirror_text(text), table), strict=True):
        assert {int(lookup[number]) for number in before.regions - {2}} == after.regions - {2}
        assert before.normal == after.normal


def test_both_lungs_and_one_lung_can_be_mirrored():
    table = load_region_table()
    assert can_mirror("Emphysema in the right lung. Lungs are otherwise clear. 1.5 L were drained.", table)
