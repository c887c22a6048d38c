"""Sentence boundaries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm3d_ct.text.sentences import split_sentences

CASES: list[tuple[str, list[str]]] = [
    ("Lungs are clear. No effusion.", ["Lungs are clear.", "No effusion."]),
    ("A 1.2 cm nodule. Another of 0.8cm.", ["A 1.2 cm nodule.", "Another of 0.8cm."]),
    ("Nodule, approx. 5 mm. Stable.", ["Nodule, approx. 5 mm.", "Stable."]),
    ("See e.g. the aorta. Normal.", ["See e.g. the aorta.", "Normal."]),
    ("Reported by Dr. Smith. Normal.", ["Reported by Dr. Smith.", "Normal."]),
    ("Rt. lung is clear. Lt. lung, too.", ["Rt. lung is clear.", "Lt. lung, too."]),
    ("R. lung is clear.", ["R. lung is clear."]),
    ("Is it new? Yes! Compare.", ["Is it new?", "Yes!", "Compare."]),
    ("No effusion.The heart is normal.", ["No effusion.", "The heart is normal."]),
    ("The nodule measures 5. The heart is normal.", ["The nodule measures 5.", "The heart is normal."]),
    ("the heart is normal. the aorta is normal.", ["the heart is normal.", "the aorta is normal."]),
    ("Findings:\nLungs clear\nHeart normal", ["Findings:", "Lungs clear", "Heart normal"]),
    ("A nodule in the\nright upper lobe.", ["A nodule in the\nright upper lobe."]),
    ("no effusion\n\nno nodule", ["no effusion", "no nodule"]),
    ("- no effusion\n- nodule\n* cyst", ["- no effusion", "- nodule", "* cyst"]),
    ("1. Nodule in RUL. Stable.\n2. Effusion.", ["1. Nodule in RUL.", "Stable.", "2. Effusion."]),
    ("1) nodule\r\n2) effusion", ["1) nodule", "2) effusion"]),
    ("Growth (see above.) Stable.", ["Growth (see above.)", "Stable."]),
    ("Unclear... Follow up.", ["Unclear...", "Follow up."]),
    ("No stop at the end", ["No stop at the end"]),
    ("  \n\t ", []),
    ("", []),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_sentences_are_split_where_a_reader_splits_them(text: str, expected: list[str]):
    assert [text[start:end] for start, end in split_sentences(text)] == expected


@given(st.text(alphabet=st.sampled_from("ab A1.?!\n\r\t-*),e.g"), max_size=80))
def test_spans_are_ordered_trimmed_and_cover_everything_but_white_space(text: str):
    spans = split_sentences(text)
    covered = [False] * len(text)
    previous = 0
    for start, end in spans:
        assert previous <= start < end <= len(text)
        assert text[start:end] == text[start:end].strip()
        covered[start:end] = [True] * (end - start)
        previous = end
    assert all(text[index].isspace() for index, inside in enumerate(covered) if not inside)
