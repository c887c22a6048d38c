"""The region table that ships, and the tables that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import yaml

from vlm3d_ct.errors import ConfigError
from vlm3d_ct.text.findings import ABNORMALITIES
from vlm3d_ct.text.mentions import find_mentions
from vlm3d_ct.text.regions import load_region_table, totalsegmentator_classes

# TotalSegmentator's labels by region, written down once more, as ranges
VERSION_2: dict[int, set[int]] = {
    1: {12}, 2: {13}, 3: {14}, 4: {10}, 5: {11}, 6: {16}, 7: set(), 8: {51, 61}, 9: set(), 10: {52},
    11: {*range(53, 61), 62, 63}, 12: set(), 13: {15}, 14: {17}, 15: {*range(26, 51), 79},
    16: {*range(69, 75), *range(92, 118)}, 17: {86, 87}, 18: {4, 5}, 19: {1}, 20: {2, 3, *range(6, 10), 18, 19, 20, 64},
}  # fmt: skip
VERSION_1: dict[int, set[int]] = {
    1: {15}, 2: {16}, 3: {17}, 4: {13}, 5: {14}, 6: {43}, 8: {*range(44, 49)}, 10: {7}, 11: {8, 49}, 13: {42},
    15: {*range(18, 42)}, 16: {*range(58, 88)}, 17: {100, 101}, 18: {4, 5}, 19: {1},
    20: {2, 3, 6, 9, 10, 11, 12, 55, 56, 57},
}  # fmt: skip


def write_table(path: Path, **changes: object) -> Path:
    """A small valid table of three regions with ``changes`` as "<index>.<key>" entries."""
    regions: list[dict[str, object]] = [
        {"id": 1, "name": "right lung", "side": "right", "mirror": 2, "synonyms": ["right lung"]},
        {"id": 2, "name": "left lung", "side": "left", "mirror": 1, "synonyms": ["left lung"]},
        {"id": 3, "name": "heart", "synonyms": ["heart", "card*"], "structures": ["aorta #"]},
    ]
    groups = [{"regions": [1, 2], "synonyms": ["lungs"]}]
    for where, value in changes.items():
        _, index, key = where.split("_", 2)
        (groups if where.startswith("group") else regions)[int(index)][key] = value
    path.write_text(yaml.safe_dump({"regions": regions, "groups": groups}), encoding="utf-8")
    return path


def test_default_table_has_the_twenty_regions_and_their_sources():
    table = load_region_table()
    assert table.num_regions == 20
    assert [region.id for region in table.regions] == list(range(1, 21))
    assert table.names[0] == "right upper lobe"
    assert {region.id for region in table.regions if region.derived} == {7, 9, 12, 17}


@pytest.mark.parametrize(("version", "expected", "labels"), [(1, VERSION_1, 104), (2, VERSION_2, 117)])
def test_totalsegmentator_lookup_sends_every_source_to_its_region_and_the_rest_to_background(
    version: Literal[1, 2], expected: dict[int, set[int]], labels: int
):
    lookup = load_region_table().totalsegmentator_lookup(version)
    assert len(set(totalsegmentator_classes(version))) == labels
    for label in range(256):
        assert lookup[label] == next((number for number, ids in expected.items() if label in ids), 0)


def test_a_class_of_both_versions_is_in_one_region():
    one, two = ({name: lookup[i] for i, name in enumerate(totalsegmentator_classes(version), start=1)}
                for version in (1, 2) for lookup in [load_region_table().totalsegmentator_lookup(version)])  # fmt: skip
    both = one.keys() & two.keys()
    assert len(both) == 97  # all but the chambers of the heart, its artery and the face
    assert {name: one[name] for name in both} == {name: two[name] for name in both}


@pytest.mark.parametrize(
    ("structure", "region"),
    [
        ("heart", 8),
        ("vertebrae t1", 15),
        ("rib left 12", 16),
        ("right upper lobe", 1),
        ("pleura", 7),
        ("breast left", 17),
    ],
)
def test_structures_are_known_by_name(structure: str, region: int):
    assert load_region_table().structures[structure] == region


@pytest.mark.parametrize(
    "name", ["lung", "pleural effusion", "kidney cyst left", "lung nodule", "rib left 13", "lymph node"]
)
def test_what_is_no_single_region_or_a_finding_is_no_structure(name: str):
    assert name not in load_region_table().structures


def test_mirror_lookup_swaps_lobes_and_puts_the_middle_lobe_into_the_lingula():
    lookup = load_region_table().mirror_lookup()
    assert lookup.dtype == np.uint8
    assert lookup.tolist() == [0, 4, 4, 5, 1, 3, *range(6, 21)]
    paired = [number for number in range(21) if number != 2]
    assert lookup[lookup][paired].tolist() == paired


def test_every_region_has_words_that_mention_it_alone():
    table = load_region_table()
    for region in table.regions:
        alone = [word for word in (region.name, *region.synonyms) if _mentions(word.replace("*", "")) == {region.id}]
        assert alone, region.name


def test_no_synonym_hides_another_of_its_own_length_or_shorter():
    table = load_region_table()
    for region in table.regions:
        for synonym in region.synonyms:
            assert region.id in _mentions(synonym.replace("*", "").replace("#", "5")), (region.name, synonym)


@pytest.mark.parametrize("name", [name for name in ABNORMALITIES if name != "Medical material"])
def test_every_located_abnormality_mentions_a_region(name: str):
    assert _mentions(f"{name} is present.") == _mentions(f"{name} is not present.") != set()


def test_a_table_of_ones_own_is_used(tmp_path: Path):
    table = load_region_table(write_table(tmp_path / "mine.yaml"))
    assert table.names == ("right lung", "left lung", "heart")
    assert table.mirror_lookup().tolist() == [0, 2, 1, 3]
    (mention,) = find_mentions("Both lungs; cardiac size is normal; right upper lobe.", table)
    assert mention.regions == {1, 2, 3}


def test_the_same_path_gives_the_same_table():
    assert load_region_table() is load_region_table()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"region_2_id": 5}, "without gaps"),
        ({"region_0_mirror": 3}, "not on the other side"),
        ({"region_0_mirror": 9}, "not on the other side"),
        ({"region_0_mirror": None}, "either mirror or mirrored_as"),
        ({"region_2_mirror": 1}, "unsided region has no mirror"),
        ({"region_1_name": "Right lung"}, "region name"),
        ({"region_1_structures": ["aorta 3"]}, "structure"),
        ({"region_1_structures": ["right lung"]}, "structure"),
        ({"region_1_structures": ["a/b"]}, "structures"),
        ({"region_1_synonyms": ["heart"]}, "synonym"),
        ({"region_1_synonyms": ["(a+)+"]}, "synonyms"),
        ({"region_1_colour": "red"}, "colour"),
        ({"region_1_side": "middle"}, "side"),
        ({"group_0_regions": [1, 7]}, "no region"),
    ],
)
def test_a_wrong_table_is_refused_and_says_why(tmp_path: Path, changes: dict[str, object], message: str):
    path = write_table(tmp_path / "wrong.yaml", **changes)
    with pytest.raises(ConfigError, match=r"wrong\.yaml") as caught:
        load_region_table(path)
    assert message in str(caught.value)


def test_an_asymmetric_mirror_is_refused(tmp_path: Path):
    path = write_table(tmp_path / "wrong.yaml", region_1_mirror=None, region_1_mirrored_as=1)
    with pytest.raises(ConfigError, match="does not name it"):
        load_region_table(path)


@pytest.mark.parametrize("content", ["", "[1, 2", "regions: []", "\x00", "- 1"])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: str):
    path = tmp_path / "broken.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load_region_table(path)


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_region_table(tmp_path / "nowhere.yaml")


def _mentions(sentence: str) -> set[int]:
    return {number for mention in find_mentions(sentence, load_region_table()) for number in mention.regions}
