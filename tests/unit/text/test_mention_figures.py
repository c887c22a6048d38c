"""Precision and recall of the finder of region mentions on hand-written sentences; ``pytest -s`` prints the figures."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from vlm3d_ct.text.mentions import find_mentions
from vlm3d_ct.text.regions import load_region_table

# Measured 2026-11-24, less about one point: four (sentence, region) pairs, or one normal sentence, so that a corrected
# label or a phrase that wins one sentence and loses another does not fail.
FLOORS = {
    "tuning": {
        "region precision": 0.985,
        "region recall": 0.985,
        "exact": 0.975,
        "normal precision": 0.96,
        "normal recall": 0.98,
    },
    "held_out": {
        "region precision": 0.97,
        "region recall": 0.97,
        "exact": 0.955,
        "normal precision": 0.955,
        "normal recall": 0.94,
    },
}
TABLE = Path(__file__).with_name("mentions.tsv")


@dataclass(frozen=True)
class Example:
    half: str
    normal: bool
    regions: frozenset[int]
    sentence: str


@dataclass(frozen=True)
class Found:
    regions: frozenset[int]
    normal: bool


def examples(half: str) -> list[Example]:
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    rows = [line.split("\t") for line in lines[1:]]
    return [
        Example(name, normal == "yes", frozenset(map(int, regions.replace("-", "").split())), sentence)
        for name, normal, regions, sentence in rows
        if name == half
    ]


def find(sentence: str) -> Found:
    """All that is found in it; it is one example even where the finder sees several sentences."""
    mentions = find_mentions(sentence, load_region_table())
    regions = frozenset(region for mention in mentions for region in mention.regions)
    return Found(regions, bool(mentions) and all(mention.normal for mention in mentions))


def precision_recall(hits: int, found: int, expected: int) -> tuple[float, float]:
    return hits / found, hits / expected


def figures(half: str) -> dict[str, float]:
    pairs = [(example, find(example.sentence)) for example in examples(half)]
    regions = precision_recall(
        sum(len(example.regions & found.regions) for example, found in pairs),
        sum(len(found.regions) for _, found in pairs),
        sum(len(example.regions) for example, _ in pairs),
    )
    normal = precision_recall(
        sum(example.normal and found.normal for example, found in pairs),
        sum(found.normal for _, found in pairs),
        sum(example.normal for example, _ in pairs),
    )
    exact = sum(example.regions == found.regions for example, found in pairs) / len(pairs)
    return {
        "sentences": len(pairs),
        "region precision": regions[0],
        "region recall": regions[1],
        "exact": exact,
        "normal precision": normal[0],
        "normal recall": normal[1],
    }


@pytest.mark.parametrize("half", FLOORS)
def test_figures_on_hand_written_sentences_stay_above_their_floors(half: str):
    measured = figures(half)
    print(f"\n{half}: {measured['sentences']} sentences;", "; ".join(f"{n} {measured[n]:.3f}" for n in FLOORS[half]))
    assert {name: value for name, value in measured.items() if value < FLOORS[half].get(name, 0)} == {}


def test_table_of_sentences_is_large_distinct_and_well_formed():
    table = load_region_table()
    everything = [example for half in FLOORS for example in examples(half)]
    assert len(everything) == len({example.sentence for example in everything}) >= 300
    assert {number for example in everything for number in example.regions} == {region.id for region in table.regions}


if __name__ == "__main__":
    pytest.main(["-q", "-s", __file__])
