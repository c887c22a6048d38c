from __future__ import annotations

from pathlib import Path

import pytest

from vlm3d_ct.data.labels import read_labels
from vlm3d_ct.errors import DataError
from vlm3d_ct.evaluation.prompts import prompts_for, read_prompts, shipped_mapping, shipped_prompts
from vlm3d_ct.text.findings import ABNORMALITIES

RAD_CHESTCT = "air_trapping atelectasis bronchial_wall_thickening bronchiectasis calcification cardiomegaly \
catheter_or_port chest_tube clip consolidation emphysema fibrosis gi_tube hardware hernia lymphadenopathy nodule \
nodulegr1cm opacity pacemaker_or_defib pericardial_effusion pleural_effusion septal_thickening stent tracheal_tube"


def test_the_18_abnormalities_are_asked_for_as_ct_clip_does_first():
    table = shipped_prompts("ct_rate")
    assert table.classes == ABNORMALITIES
    assert table.main == "ct_clip"
    for name, wordings in table.wordings.items():
        assert (wordings[0].positive, wordings[0].negative) == (f"{name} is present.", f"{name} is not present.")
        assert len(wordings) == 12
        assert len({(w.positive, w.negative) for w in wordings}) == 12


def test_rad_chestct_has_its_16_classes_and_every_column_exists(tmp_path: Path):
    table, mapping = shipped_prompts("rad_chestct"), shipped_mapping("rad_chestct")
    assert mapping is not None
    assert table.classes == tuple(mapping)
    assert len(table.classes) == 16
    assert set(table.classes) - set(ABNORMALITIES) == {"Calcification"}
    assert "Mosaic attenuation pattern" not in table.classes
    assert {column for columns in mapping.values() for column in columns} <= set(RAD_CHESTCT.split())
    path = tmp_path / "imgvalid_Abnormality_and_Location_Labels.csv"
    columns = [f"{name}*{place}" for name in RAD_CHESTCT.split() for place in ("left_lung", "other")]
    row = ["1" if name == "stent*other" else "0" for name in columns]
    path.write_text(",".join(("NoteAcc_DEID", *columns)) + "\n" + ",".join(("val00001", *row)) + "\n")
    values = read_labels(path, table.classes, mapping).for_cases(["VAL00001.nii.gz"])
    assert [name for name, value in zip(table.classes, values[0], strict=True) if value] == ["Medical material"]
    assert shipped_mapping("ct_rate") is None


def test_templates_ask_for_any_class():
    table = prompts_for(("pulmonary nodule", "Rib fracture"), "categories")
    assert table.wordings["pulmonary nodule"][0].positive == "Pulmonary nodule is present."
    assert table.wordings["Rib fracture"][1].negative == "There is no rib fracture."
    assert len(table.wordings["Rib fracture"]) > 1


def test_a_table_of_ones_own_is_read_in_order(tmp_path: Path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "# mine\nWording,class,negative,positive\nb,Cyst,No cyst.,A cyst.\na,Cyst,None.,Cyst.\nx,Air,No air.,Air.\n"
    )
    table = read_prompts(path)
    assert (table.name, table.classes, table.main) == ("mine", ("Cyst", "Air"), "first")
    assert [wording.name for wording in table.wordings["Cyst"]] == ["b", "a"]
    assert table.wordings["Air"][0].positive == "Air."
    assert table.restrict(("Air",)).classes == ("Air",)


def test_the_identity_follows_the_sentences(tmp_path: Path):
    table = shipped_prompts("ct_rate")
    assert table.identity == shipped_prompts("ct_rate").identity
    assert table.restrict(table.classes[:3]).identity != table.identity


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("class,positive,negative\nA,b,c\n", "no column wording"),
        ("class,wording,positive,negative\nA,w,b,\n", "nothing under negative"),
        ("class,wording,positive,negative\nA,w,b,c\nA,w,d,e\n", "has this wording twice"),
        ("class,wording,positive,negative\n", "has no row"),
    ],
)
def test_a_faulty_table_is_refused(tmp_path: Path, content: str, said: str):
    path = tmp_path / "p.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=said):
        read_prompts(path)
