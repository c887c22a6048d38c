"""Which regions a sentence mentions: a table of hand-written sentences, and the laws of the spans."""

from __future__ import annotations

import re

import pytest

from vlm3d_ct.text.mentions import find_mentions
from vlm3d_ct.text.mirror import can_mirror
from vlm3d_ct.text.regions import load_region_table

LUNGS = {1, 2, 3, 4, 5}

SENTENCES: list[tuple[str, set[int]]] = [
    # lobes by name, abbreviation, list and laterality
    ("There is a 12 mm nodule in the right upper lobe.", {1}),
    ("RUL nodule, unchanged.", {1}),
    ("Consolidation in the LLL and RML.", {2, 5}),
    ("Rt. lower lobe atelectasis.", {3}),
    ("Patchy opacity in the right middle lobe and lingula.", {2, 4}),
    ("Linear atelectasis in the middle lobe.", {2}),
    ("Left pleural effusion and middle lobe atelectasis.", {2, 7}),
    ("Consolidation in both lower lobes.", {3, 5}),
    ("Bilateral lower lobes show dependent atelectasis.", {3, 5}),
    ("Bilateral upper lobe emphysema.", {1, 4}),
    ("Paraseptal emphysema in the upper lobes.", {1, 4}),
    ("Ground-glass opacities in the right upper and lower lobes.", {1, 3}),
    ("Nodules in the right upper, middle and lower lobes.", {1, 2, 3}),
    ("Consolidation in the right upper and left lower lobes.", {1, 5}),
    ("Scarring in the right and left upper lobes.", {1, 4}),
    ("Scarring in the right and the left upper lobes.", {1, 4}),
    ("Both upper and lower lobes are involved.", {1, 3, 4, 5}),
    ("Opacity in both the right upper lobe and the left lower lobe.", {1, 5}),
    ("A cavity in the right upper lobe and lower lobe.", {1, 3}),
    ("Right upper lobe mass with left lower lobe metastasis.", {1, 5}),
    ("Right middle and left lower lobe bronchiectasis.", {2, 5, 6}),
    ("Consolidation in the lower lobes bilaterally.", {3, 5}),
    ("On the left, there is consolidation of the lower lobe.", {5}),
    ("Consolidation of a lower lobe.", {3, 5}),
    # lobes of lungs
    ("Nodule in the upper lobe of the right lung.", {1}),
    ("A nodule in the lower lobe posterobasal segment of the left lung.", {5}),
    ("Left lung upper lobe apicoposterior segment nodule.", {4}),
    ("In the inferior lingular segment of the left lung upper lobe there is atelectasis.", {4}),
    ("Sequelae in the lingula of the left lung.", {4}),
    ("In the right lung middle lobe and left lung lower lobe, nodules are seen.", {2, 5}),
    ("Lower lobes of both lungs show mosaic attenuation.", {3, 5}),
    ("Mosaic attenuation in both lung lower lobes.", {3, 5}),
    ("Both upper and lower lobes of the left lung are affected.", {4, 5}),
    ("Nodule in the apical segment of the right upper lobe.", {1}),
    ("Nodule in the superior segment of the left lower lobe.", {5}),
    ("Nodules in the posterobasal segment of the right lower lobe and in the left upper lobe.", {3, 4}),
    ("Nodule in the right upper lobe and the lower lobe of the left lung.", {1, 5}),
    ("A nodule in the right upper lobe and in the left lung.", {1, 4, 5}),
    ("Volume loss of the left inferior lobe.", {5}),
    # zones, apices, bases
    ("Opacity in the right lower lung zone.", {3}),
    ("Opacities in the left mid and lower lung.", {4, 5}),
    ("Opacity in the right mid lung zone.", {2}),
    ("Biapical pleural thickening.", {1, 4, 7}),
    ("Scarring at the right lung apex.", {1}),
    ("Sequelae at the apices of both lungs.", {1, 4}),
    ("Bibasilar atelectasis.", {3, 5}),
    ("Atelectasis at the left lung base.", {5}),
    ("Atelectasis at the lung bases.", {3, 5}),
    ("Right basilar consolidation.", {3}),
    # lungs
    ("Both lungs are well aerated.", LUNGS),
    ("Lungs are clear.", LUNGS),
    ("The pulmonary parenchyma is normal.", LUNGS),
    ("Emphysema in the right lung.", {1, 2, 3}),
    ("The left lung is hypoplastic.", {4, 5}),
    ("The left lung parenchyma is normal.", {4, 5}),
    ("Nodules in both lungs, the largest in the right middle lobe.", LUNGS),
    ("Diffuse emphysema.", LUNGS),
    ("Parenchymal band in the left lower lobe.", {5}),
    ("Pulmonary nodule in the right upper lobe.", {1}),
    ("Subpleural nodule in the right lower lobe.", {3}),
    ("Lung nodule is present.", LUNGS),
    ("Perihilar ground glass opacities.", LUNGS),
    ("Pleuroparenchymal sequelae in the right upper lobe.", {1}),
    ("No nodule or infiltration was detected.", LUNGS),
    # airways
    ("Trachea, both main bronchi are open.", {6}),
    ("Peribronchial thickening is observed.", {6}),
    ("Left lower lobe bronchiectasis.", {5, 6}),
    ("Consolidation with air bronchograms in the right lower lobe.", {3}),
    # pleura
    ("No pleural effusion.", {7}),
    ("No pneumothorax on either side.", {7}),
    ("Pleural plaques along the right hemithorax.", {7}),
    ("Bilateral effusions with compressive atelectasis.", LUNGS | {7}),
    ("The costophrenic angles are clear.", {7}),
    # heart and pericardium
    ("The heart is enlarged.", {8}),
    ("Cardiomegaly.", {8}),
    ("Calcific plaques in the coronary arteries.", {8}),
    ("Aortic valve calcification.", {8}),
    ("Pericardial effusion measuring 8 mm.", {9}),
    ("Pericardial, pleural effusion was not detected.", {7, 9}),
    ("No effusion in the pericardium.", {9}),
    ("Fluid around the heart measures 12 mm.", {9}),
    ("Plaques in the left anterior descending artery.", {8}),
    # vessels
    ("The ascending aorta is dilated to 42 mm.", {10}),
    ("Aortic arch calcification.", {10}),
    ("Arterial wall calcification is present.", {10}),
    ("Coronary and aortic atherosclerosis.", {8, 10}),
    ("No filling defect in the pulmonary arteries.", {11}),
    ("Pulmonary embolism in the left lower lobe artery.", {5, 11}),
    ("The superior vena cava is patent.", {11}),
    ("Mediastinal main vascular structures are normal.", {10, 11}),
    # mediastinum
    ("No mediastinal lymphadenopathy.", {12}),
    ("Enlarged subcarinal and right paratracheal nodes.", {12}),
    ("No enlarged lymph nodes in the axillary region.", {12, 17}),
    ("A LAP of 14 mm is seen.", {12}),
    ("Lymph nodes in the aortopulmonary window.", {12}),
    ("Pneumomediastinum.", {12}),
    ("The cardiomediastinal silhouette is normal.", {8, 12}),
    # esophagus, thyroid
    ("Small hiatal hernia.", {13}),
    ("Thoracic esophagus calibration was normal.", {13}),
    ("Nodule in the left thyroid lobe.", {14}),
    # bones
    ("Vertebral corpus heights are preserved.", {15}),
    ("Thoracic spondylosis.", {15}),
    ("Degenerative changes of the spine.", {15}),
    ("Old fracture of the left sixth rib.", {16}),
    ("Median sternotomy wires.", {16}),
    ("The clavicles and scapulae are intact.", {16}),
    ("No lytic lesion in the bone structures.", {15, 16}),
    ("Osseous structures: vertebral heights are normal.", {15}),
    # chest wall, breast
    ("Right breast mass.", {17}),
    ("Subcutaneous emphysema of the chest wall.", {17}),
    ("Axillae are normal.", {17}),
    # abdomen
    ("Hepatic steatosis.", {18}),
    ("Gallstones in the gallbladder.", {18}),
    ("Liver parenchyma density is decreased.", {18}),
    ("Cyst in the right lobe of the liver.", {18}),
    ("Splenomegaly.", {19}),
    ("Hepatosplenomegaly.", {18, 19}),
    ("Both adrenal glands are normal.", {20}),
    ("Nodule in the left adrenal gland.", {20}),
    ("Cyst in the upper pole of the left kidney.", {20}),
    ("The portal vein is patent.", {20}),
    ("Upper abdominal organs included in the sections are normal.", {18, 19, 20}),
    ("In the upper abdomen, the liver is normal.", {18}),
    # no region, and words that only look like one
    ("It measures 12 mm.", set()),
    ("The examination was performed without contrast.", set()),
    ("Compared with the ribbon-like artefact.", set()),
    ("The patient used oral antibiotics.", set()),
]


@pytest.mark.parametrize(("sentence", "expected"), SENTENCES)
def test_hand_written_sentences_mention_the_expected_regions(sentence: str, expected: set[int]):
    (mention,) = find_mentions(sentence, load_region_table())
    assert set(mention.regions) == expected


WITHOUT_CAPITALS = [pair for pair in SENTENCES if not re.search(r"[A-Z]{3}", pair[0])]


@pytest.mark.parametrize(("sentence", "expected"), WITHOUT_CAPITALS)
def test_words_match_in_any_case_and_abbreviations_as_capitals(sentence: str, expected: set[int]):
    for changed in (sentence.lower(), sentence.upper()):
        assert {number for m in find_mentions(changed, load_region_table()) for number in m.regions} == expected
    assert find_mentions("a rul and a lap", load_region_table())[0].regions == frozenset()


def test_every_sentence_has_one_mention_with_its_span():
    text = "Lungs are clear. The aorta is dilated.\nNo pleural effusion."
    mentions = find_mentions(text, load_region_table())
    assert [text[slice(*mention.span)] for mention in mentions] == [
        "Lungs are clear.",
        "The aorta is dilated.",
        "No pleural effusion.",
    ]
    assert [set(mention.regions) for mention in mentions] == [LUNGS, {10}, {7}]
    assert [mention.normal for mention in mentions] == [True, False, True]


HOSTILE = [".", "a", "-", ",", " ", "\n", "\n ", "no, ", "lung ", "of lobe ", "right ", "right upper lobe of ", "a.m. ",
           "1", "1. ", "not ", "is, ", "\u0130", "a-"]  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", HOSTILE)
def test_long_senseless_texts_take_no_more_than_a_moment(piece: str):
    table = load_region_table()
    text = piece * (60_000 // len(piece)) + " x. Right upper lobe."
    assert 1 in find_mentions(text, table)[-1].regions
    assert can_mirror(text, table) in (True, False)


def test_empty_text_has_no_sentences():
    assert find_mentions("  \n ", load_region_table()) == ()
