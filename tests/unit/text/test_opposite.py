"""A sentence's opposite: literal ones, and how many of the hand-written sentences turn from finding to absence."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm3d_ct.evaluation.prompts import shipped_prompts
from vlm3d_ct.text.normality import states_only_normality
from vlm3d_ct.text.opposite import opposite

OPPOSITES = {
    "No pleural effusion is seen.": "Pleural effusion is seen.",
    "There is no evidence of pulmonary embolism.": "There is evidence of pulmonary embolism.",
    "There is a small pericardial effusion, 9 mm thick.": "There is no small pericardial effusion, 9 mm thick.",
    "The heart is enlarged.": "The heart is not enlarged.",
    "The aorta is not dilated.": "The aorta is dilated.",
    "A nodule cannot be seen.": "A nodule can be seen.",
    "The right upper lobe shows ground-glass opacities.": "The right upper lobe shows no ground-glass opacities.",
    "The sternum has a fracture.": "The sternum has no fracture.",
    "Pleural fluid has increased since.": "Pleural fluid has not increased since.",
    "Pleural effusion is absent.": "Pleural effusion is present.",
    "The thyroid is unremarkable.": "The thyroid is remarkable.",
    "The study is negative for mediastinal mass.": "The study is positive for mediastinal mass.",
    "Both pleural cavities are free of fluid.": "Both pleural cavities are with fluid.",
    "The lungs are clear, without any nodule.": "The lungs are clear, with nodule.",
    "Small right pleural effusion.": "No small right pleural effusion.",
    "A 4.3 cm bulla in the left apex": "No 4.3 cm bulla in the left apex",
    "LLL nodule.": "No LLL nodule.",
    "In the right upper lobe, a consolidation is present.": "In the right upper lobe, a consolidation is not present.",
    "In summary, mosaic perfusion in both lower lobes.": "In summary, No mosaic perfusion in both lower lobes.",
    "Findings: no nodule.": "Findings: Nodule.",
    "When examined in the lung window; no nodule is detected.": "When examined in the lung window; Nodule is detected.",
    "Heart and mediastinum: Normal.": "Heart and mediastinum: Not normal.",
    "None of the nodules is calcified.": "Some of the nodules is calcified.",
    "Pneumothorax: none.": "Pneumothorax: Present.",
    "Absence of pleural effusion.": "Presence of pleural effusion.",
    "A nodule can't be seen.": "A nodule can be seen.",
    "The nodule is no longer seen.": "The nodule is still seen.",
    "The aorta is not dilated nor thrombosed.": "The aorta is dilated or thrombosed.",
    "Without contrast, the lungs are clear.": "Without contrast, the lungs are not clear.",
    "The lung shows increased density.": "The lung shows no increased density.",
    "The vertebra has lost height.": "The vertebra has not lost height.",
    "There is also a nodule.": "There is no nodule.",
    "No mass, no consolidation and no nodule.": "Mass, consolidation and nodule.",
    "There is no pleural effusion and no pericardial effusion.": "There is pleural effusion and pericardial effusion.",
    "Nothing suspicious in the upper abdomen.": "Something suspicious in the upper abdomen.",
    "1. Pulmonary nodule.": "1. No pulmonary nodule.",
    "2) No nodule.": "2) Nodule.",
    "Liver and spleen appear normal.": "Liver and spleen appear not normal.",
    "Heart size within normal limits.": "Heart size not within normal limits.",
    "Trachea midline.": "Trachea not midline.",
    "Neither a nodule nor a mass is seen.": "Either a nodule or a mass is seen.",
}
NONE = [
    *("", " ", ".", "Findings:"),
    "Hydrothorax on the left; sequela changes in the right upper lobe.",
    "No pleural effusion, but the heart is enlarged.",
    "Lungs are clear except for a nodule.",
    *("It measures 12 mm.", "There may be a nodule.", "No. 5 rib fracture."),
    *("The nodule measures no more than 4 mm.", "Pulmonary embolism is excluded.", "Rule out malignancy."),
    *("Evaluation of the bases is limited by motion.", "The hila cannot be evaluated.", "Status post lobectomy."),
    "Nodule " * 80,
]


@pytest.mark.parametrize(("sentence", "expected"), OPPOSITES.items())
def test_literal_opposites(sentence: str, expected: str):
    assert opposite(sentence) == expected


@pytest.mark.parametrize("sentence", NONE)
def test_what_is_no_single_statement_has_none(sentence: str):
    assert opposite(sentence) is None


def test_what_is_seen_is_denied_in_both_ways_and_always_in_the_same():
    sentences = [f"{size} mm nodules are seen." for size in (7, 12)]
    assert [opposite(s) for s in sentences] == ["7 mm nodules are not seen.", "No 12 mm nodules are seen."]


WORDS = (
    "no not none without neither nor free of absent there is are has shows contains nodule effusion the a seen clear, :"
)


@given(st.lists(st.sampled_from(WORDS.split(" ")), min_size=1, max_size=8))
def test_every_opposite_differs_and_is_the_same_again(words: list[str]):
    sentence = " ".join(words) + "."
    found = opposite(sentence)
    assert found is None or found.casefold() != sentence.casefold()
    assert opposite(sentence) == found


def test_hand_written_findings_become_absent_and_absences_findings():
    # the table of the mention finder; rules for "neither" and "has increased" were added after a look at it
    lines = Path(__file__).with_name("mentions.tsv").read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader((line for line in lines if line and not line.startswith("#")), delimiter="\t")
    sentences = [row["sentence"] for row in rows]
    assert len(sentences) > 500
    turned = {sentence: opposite(sentence) for sentence in sentences}
    normal = [s for s in sentences if states_only_normality(s)]
    still = [s for s in normal if (other := turned[s]) is not None and states_only_normality(other)]
    assert len(normal) > 100
    assert len(still) <= 0.03 * len(normal)
    assert sum(other is None for other in turned.values()) <= 0.07 * len(sentences)


def test_the_shipped_prompts_are_opposites_in_its_sense():
    prompts = [wording for found in shipped_prompts("ct_rate").wordings.values() for wording in found]
    for wording in prompts:
        for text in (wording.positive, wording.negative):
            assert (opposite(text) is None) == (";" in text)
    for wording in (wording for wording in prompts if wording.name == "ct_clip"):
        lower = wording.positive[0].lower() + wording.positive[1:]
        assert opposite(wording.negative) == wording.positive
        assert opposite(wording.positive) in (wording.negative, f"No {lower}")
