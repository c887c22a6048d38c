"""The CT-RATE abnormalities."""

from __future__ import annotations

from vlm3d_ct.text.findings import ABNORMALITIES


def test_order_and_spelling_are_those_of_the_label_columns():
    assert ",".join(ABNORMALITIES) == (
        "Medical material,Arterial wall calcification,Cardiomegaly,Pericardial effusion,"
        "Coronary artery wall calcification,Hiatal hernia,Lymphadenopathy,Emphysema,Atelectasis,Lung nodule,"
        "Lung opacity,Pulmonary fibrotic sequela,Pleural effusion,Mosaic attenuation pattern,Peribronchial thickening,"
        "Consolidation,Bronchiectasis,Interlobular septal thickening"
    )
