"""Sentences that state only normality, and sentences that do not."""

from __future__ import annotations

import pytest

from vlm3d_ct.text.findings import ABNORMALITIES
from vlm3d_ct.text.normality import states_only_normality

NORMAL = [
    "No pleural effusion.",
    "No pleural effusion, pneumothorax, or consolidation.",
    "No consolidation, effusion or pneumothorax is seen.",
    "No pleural effusion, and the heart is normal.",
    "The heart is unremarkable",
    "Lungs are clear",
    "Cardiac size is within normal limits.",
    "Lungs are without evidence of consolidation.",
    "There is no evidence of pulmonary embolism.",
    "Pericardial, pleural effusion was not detected.",
    "Pericardial and pleural effusion was not detected.",
    "Trachea, both main bronchi are open.",
    "Vertebral corpus heights are preserved.",
    "Mediastinal main vascular structures, heart contour, size are normal.",
    "Pleural effusion is absent.",
    "The lungs are free of nodules.",
    "The aorta is not dilated.",
    "Normal heart size without pericardial effusion.",
    "A pneumothorax is no longer seen.",
    "Lung nodule is not present.",
    "The thyroid is normal and no nodule is seen.",
    "Bone structures in the study area are natural.",
    "No enlarged lymph nodes in pathological dimensions were detected.",
    "NO PLEURAL EFFUSION",
    "The bronchial anatomy is normal.",
    "Both pleural cavities are clear.",
]
NOT_NORMAL = [
    "Cardiomegaly.",
    "Small right pleural effusion.",
    "Nodule in the right upper lobe.",
    "No pleural effusion, but the heart is enlarged.",
    "No pleural effusion; cardiomegaly.",
    "No pleural effusion, the heart is enlarged.",
    "No pleural effusion, mild cardiomegaly.",
    "The heart is normal in size, and there is a small pericardial effusion.",
    "Normal heart size with coronary calcifications.",
    "Lungs are clear except for a nodule in the right upper lobe.",
    "Mild cardiomegaly without pericardial effusion.",
    "The heart is enlarged and pericardial effusion was not detected.",
    "No significant change in the right upper lobe nodule.",
    "Malignancy cannot be excluded.",
    "The heart is not normal.",
    "Abnormal opacity in the left lower lobe.",
    "Lung nodule is present.",
    "The examination was performed with contrast.",
    "The examination was performed without intravenous contrast.",
    "Right pleural effusion, no left pleural effusion.",
    "Scattered lucencies without walls in both upper lobes.",
    "A cavity with thick walls.",
]


@pytest.mark.parametrize("sentence", NORMAL)
def test_absence_and_normality_are_normal(sentence: str):
    assert states_only_normality(sentence)


@pytest.mark.parametrize("sentence", NOT_NORMAL)
def test_findings_and_mixtures_are_not_normal(sentence: str):
    assert not states_only_normality(sentence)


@pytest.mark.parametrize("name", ABNORMALITIES)
def test_every_abnormality_is_abnormal_unless_negated(name: str):
    assert not states_only_normality(f"{name} is present.")
    assert not states_only_normality(f"Normal apart from {name.lower()}.")
    assert states_only_normality(f"{name} is not present.")
    assert states_only_normality(f"No {name.lower()}.")
