from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlm3d_ct.data.labels import complete_rows, find_labels, read_csv, read_labels, read_mapping
from vlm3d_ct.errors import DataError
from vlm3d_ct.text.findings import ABNORMALITIES


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_cases_match_whatever_their_case_ending_and_folder(tmp_path: Path):
    path = write(tmp_path / "labels.csv", "volumename,EMPHYSEMA,Lung_Nodule", "Train_1_A_1.nii.gz,1,0", "x/b.NII,0,1")
    table = read_labels(path, ("Lung nodule", "Emphysema"))
    assert table.names == ("Lung nodule", "Emphysema")
    assert table.for_cases(["train_1_a_1", "B.nii.gz", "unknown"]).tolist() == [[0, 1], [1, 0], [-1, -1]]


def test_what_a_phantom_cohort_writes_is_read(phantom_cohort: Path):
    (path,) = find_labels(phantom_cohort / "ct_rate")
    table = read_labels(path)
    assert table.names == ABNORMALITIES
    assert len(table.case_ids) == 28
    assert complete_rows(table.values).all()
    assert set(np.unique(table.values)) == {0, 1}


def test_the_published_tree_has_two_tables(tmp_path: Path):
    folder = tmp_path / "dataset" / "multi_abnormality_labels"
    header = ",".join(("VolumeName", *ABNORMALITIES))
    for split in ("train", "valid"):
        write(folder / f"{split}_predicted_labels.csv", header, ",".join((f"{split}_1_a_1.nii.gz", *"1" * 18)))
    found = find_labels(tmp_path)
    assert [path.name for path in found] == ["valid_predicted_labels.csv", "train_predicted_labels.csv"]
    assert (read_labels(found).for_cases(["train_1_a_1", "valid_1_a_1"]) == 1).all()
    assert find_labels(tmp_path / "nothing") == ()


def test_missing_columns_are_named_or_left_out_as_asked(tmp_path: Path):
    path = write(tmp_path / "labels.csv", "VolumeName,Emphysema", "a,1")
    with pytest.raises(DataError, match=r"1 of 2 classes have no column: Atelectasis\..*--skip_invalid") as caught:
        read_labels(path, ("Emphysema", "Atelectasis"))
    assert caught.value.problems[0].code == "missing-label-columns"
    table = read_labels(path, ("Emphysema", "Atelectasis"), skip_missing=True)
    assert (table.names, table.missing) == (("Emphysema",), ("Atelectasis",))
    with pytest.raises(DataError, match="2 of 2 classes"):
        read_labels(path, ("Cardiomegaly", "Atelectasis"), skip_missing=True)


def test_a_mapping_takes_any_of_its_columns_at_any_location(tmp_path: Path):
    labels = write(
        tmp_path / "labels.csv",
        "NoteAcc_DEID,nodule*right_lung,nodule*left_lung,nodulegr1cm*other,mass*lung,hernia*stomach",
        "trn1,0,1,0,0,0",
        "trn2,0,0,1,1,",
        "trn3,0,0,0,1,1",
    )
    mapping = read_mapping(
        write(tmp_path / "m.csv", "# comment, with a comma", "class,column", "Nodule,nodule", "Nodule,nodulegr1cm")
    )
    assert mapping == {"Nodule": ("nodule", "nodulegr1cm")}
    table = read_labels(labels, ("Nodule", "hernia"), mapping)
    assert table.for_cases(["trn1", "trn2", "trn3"]).tolist() == [[1, 0], [1, -1], [0, 1]]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("Emphysema,Atelectasis", "1,0"), "no column that names the case"),
        (("VolumeName,Emphysema", "a,yes"), "column Emphysema = yes: A label must be"),
        (("VolumeName,Emphysema", "a,1", "A.nii.gz,0"), "names this case twice"),
        (("VolumeName,Emphysema", "a"), "has 1 cells, the header 2"),
        (("# only a comment",), "The table is empty"),
    ],
)
def test_a_faulty_table_says_where(tmp_path: Path, lines: tuple[str, ...], said: str):
    path = write(tmp_path / "labels.csv", *lines)
    with pytest.raises(DataError, match=said) as caught:
        read_labels(path, ("Emphysema",))
    assert str(path) in str(caught.value)


def test_files_that_are_no_tables_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"\x89\xff\x00\x01")
    with pytest.raises(DataError, match=r"byte 0: 0x89.*not UTF-8"):
        read_labels(tmp_path / "binary.csv")
    with pytest.raises(DataError, match="has no column column"):
        read_mapping(write(tmp_path / "m.csv", "class,other", "a,b"))
    with pytest.raises(DataError, match="nothing under column"):
        read_mapping(write(tmp_path / "m.csv", "class,column", "a,"))
    with pytest.raises(DataError, match="has no row"):
        read_csv(write(tmp_path / "e.csv", "class,column"), ("class", "column"))


def test_the_same_row_twice_is_harmless(tmp_path: Path):
    path = write(tmp_path / "labels.csv", "VolumeName,Emphysema", "a,1", "A.nii.gz,1.0", "b,-1")
    table = read_labels(path, ("Emphysema",))
    assert len(table.case_ids) == 2
    assert complete_rows(table.for_cases(["a", "b"])).tolist() == [True, False]
