"""Reasoning steps lead from the picture to what it means and name the anatomy."""

from __future__ import annotations

import re

import pytest
from some_findings import all_forms, some_finding

from vlm3d_ct.phantom.steps import write_steps
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.text.mentions import find_mentions
from vlm3d_ct.text.regions import load_region_table


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(("abnormality", "form"), all_forms())
def test_steps_go_from_the_view_to_the_meaning(abnormality: str, form: str, hard: bool) -> None:
    for index in range(6):
        rng = random_stream("steps", abnormality, form, index)
        finding = some_finding(rng, abnormality, form)
        plane = ("axial", "coronal", "sagittal")[index % 3]
        steps = write_steps(rng, finding, plane, "soft_tissue", hard=hard)
        texts = [step if isinstance(step, str) else step["text"] for step in steps]
        assert 3 <= len(texts) <= 6
        assert plane in texts[0].lower()
        assert "soft tissue" in texts[0]
        for text in texts:
            (mention,) = find_mentions(text, load_region_table())
            assert not re.search(r"[{}()|]|\bnone\b|\ba [aeiou]|  | ,|,\.", text), text
        assert set(finding.regions) <= mention.regions, texts[-1]
        assert not mention.normal, texts[-1]


def test_entities_are_where_the_finding_is() -> None:
    known = {
        ("Lung nodule", "solid", (5,)): ["left lower lobe"],
        ("Mosaic attenuation pattern", "", (1, 4)): ["right upper lobe", "left upper lobe"],
        ("Hiatal hernia", "", ()): ["esophageal hiatus"],
        ("Lymphadenopathy", "left hilar", ()): ["mediastinum"],
    }
    for (abnormality, form, lobes), entities in known.items():
        for index in range(12):
            rng = random_stream("entities", abnormality, index)
            steps = write_steps(rng, some_finding(rng, abnormality, form, lobes), "axial", "lung", hard=False)
            records = [step for step in steps if not isinstance(step, str)]
            assert all(step["entities"] == entities for step in records[1:])
            assert not records or records[0]["entities"] == ["chest"]


def test_sided_entities_have_the_side() -> None:
    for index in range(20):
        rng = random_stream("sides", index)
        finding = some_finding(rng, "Pleural effusion", "")
        for step in write_steps(rng, finding, "axial", "lung", hard=False)[1:]:
            if not isinstance(step, str):
                assert step["entities"] == [f"{finding.side} pleura"]


def test_numbers_and_kinds_of_steps_vary() -> None:
    counts, kinds, firsts = set(), set(), set()
    for index in range(80):
        rng = random_stream("variety", index)
        steps = write_steps(rng, some_finding(rng, "Consolidation", ""), "axial", "lung", hard=False)
        counts.add(len(steps))
        kinds.update(type(step) for step in steps)
        firsts.add(str(steps[0]))
    assert counts == {3, 4, 5, 6}
    assert kinds == {str, dict}
    assert len(firsts) >= 5
