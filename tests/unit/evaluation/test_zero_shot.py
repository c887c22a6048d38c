from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pools import make_example, unit

from vlm3d_ct.errors import DataError
from vlm3d_ct.evaluation.metrics.thresholds import tune_threshold
from vlm3d_ct.evaluation.prompt_scores import (
    PromptScores,
    asked_places,
    probability,
    score_prompts,
    score_prompts_at_regions,
)
from vlm3d_ct.evaluation.prompts import PromptTable, Wording
from vlm3d_ct.evaluation.tuned import TunedThresholds, load_thresholds, tune
from vlm3d_ct.evaluation.zero_shot import measure_scoring, prompt_sensitivity, top_k
from vlm3d_ct.evaluation.zero_shot_files import NOT_TUNED, ZeroShotEvaluation, evaluate_zero_shot, write_zero_shot
from vlm3d_ct.evaluation.zero_shot_page import CARDS_PER_LIST, choose_examples, zero_shot_page
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.text.regions import load_region_table

CLASSES = ("Cyst", "Nodule", "Air")
SCALE = 20.0
HOSTILE = "<script>alert(1)</script>"


def table(num_wordings: int = 3) -> PromptTable:
    return PromptTable(
        name="made up",
        wordings={
            name: tuple(
                Wording(name=f"w{number}", positive=f"{name} {number} yes", negative=f"{name} {number} no")
                for number in range(num_wordings)
            )
            for name in CLASSES
        },
    )


def embed(texts: Sequence[str]) -> np.ndarray:
    return np.concatenate([unit(random_stream("text", text).normal(size=(1, 16))) for text in texts])


def labels_of(count: int, seed: int = 0) -> np.ndarray:
    return random_stream("labels", seed).integers(0, 2, (count, len(CLASSES))).astype(np.int8)


def volumes_for(labels: np.ndarray, noise: float, seed: int = 0) -> np.ndarray:
    """Scans that point towards the positive prompts of what they have and the negative ones of what they have not."""
    towards = {name: (embed([f"{name} 0 yes"])[0], embed([f"{name} 0 no"])[0]) for name in CLASSES}
    sums = [sum(towards[n][0 if has == 1 else 1] for n, has in zip(CLASSES, row, strict=True)) for row in labels]
    return unit(np.stack(sums) + noise * random_stream("scan", seed).normal(size=(len(labels), 16)))


def made_up(count: int = 40, noise: float = 0.5, seed: int = 0) -> tuple[PromptScores, np.ndarray, tuple[str, ...]]:
    labels = labels_of(count, seed)
    scores = score_prompts(volumes_for(labels, noise, seed), table(), embed, SCALE)
    return scores, labels, tuple(f"p{seed}_{i}" for i in range(count))


def test_a_probability_is_the_first_entry_of_the_softmax_over_the_pair():
    labels = labels_of(5)
    volume = volumes_for(labels, 0.3)
    scores = score_prompts(volume, table(), embed, SCALE)
    for column, name in enumerate(CLASSES):
        pair = embed([f"{name} 0 yes", f"{name} 0 no"]).astype(float)
        logits = SCALE * volume.astype(float) @ pair.T
        softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(scores.probabilities("main")[:, column], softmax[:, 0], atol=1e-6)
    np.testing.assert_allclose(probability(np.array([-800.0, 0.0, 800.0])), [0.0, 0.5, 1.0])


def test_an_ensemble_compares_with_the_mean_of_unit_embeddings():
    volume = volumes_for(labels_of(6), 0.3)
    scores = score_prompts(volume, table(), embed, SCALE)
    for column, name in enumerate(CLASSES):
        yes, no = (embed([f"{name} {i} {word}" for i in range(3)]).astype(float).mean(0) for word in ("yes", "no"))
        expected = SCALE * volume @ (yes / np.linalg.norm(yes) - no / np.linalg.norm(no))
        np.testing.assert_allclose(scores.margins["ensemble"][:, column], expected, atol=1e-5)
    alone = score_prompts(volume, table(1), embed, SCALE)
    np.testing.assert_allclose(alone.margins["main"], alone.margins["ensemble"], atol=1e-5)


def test_every_text_is_embedded_once():
    asked: list[str] = []

    def counting(texts: Sequence[str]) -> np.ndarray:
        asked.extend(texts)
        return embed(texts)

    score_prompts(volumes_for(labels_of(3), 0.1), table(), counting, SCALE)
    assert len(asked) == len(set(asked)) == 18


def test_what_the_prompts_say_is_found_and_noise_is_not():
    found = measure_scoring(*(made := made_up(200, 0.0))[:1], "main", *made[1:], thresholds=None, num_samples=0, seed=0)
    assert found.macro["auroc"].estimate > 0.95
    blind = made_up(400, 50.0)
    nothing = measure_scoring(blind[0], "main", *blind[1:], thresholds=None, num_samples=0, seed=0)
    assert abs(nothing.macro["auroc"].estimate - 0.5) < 0.1
    assert math.isnan(nothing.macro["auroc"].low)


def test_numbers_equal_their_definitions_at_every_cut():
    scores, labels, patients = made_up(50)
    thresholds = {scoring: dict.fromkeys(CLASSES, 0.3) for scoring in ("main", "ensemble")}
    found = measure_scoring(scores, "main", labels, patients, thresholds=thresholds, num_samples=0, seed=0)
    for column, name in enumerate(CLASSES):
        probable, present = scores.probabilities("main")[:, column], labels[:, column] == 1
        result = found.classes[name]
        assert (result.num_cases, result.num_positive) == (50, present.sum())
        for cut, threshold in (("0.5", 0.5), ("argmax", 0.5), ("tuned", 0.3)):
            called = probable >= threshold
            true = int((called & present).sum())
            assert result.numbers[f"recall@{cut}"].estimate == pytest.approx(true / present.sum())
            assert result.numbers[f"accuracy@{cut}"].estimate == pytest.approx((called == present).mean())
            expected = 2 * true / (called.sum() + present.sum())
            assert result.numbers[f"f1@{cut}"].estimate == pytest.approx(expected)
    assert found.macro["f1@tuned"].estimate == pytest.approx(
        np.mean([found.classes[name].numbers["f1@tuned"].estimate for name in CLASSES])
    )
    assert found.curve.count.sum() == labels.size


def test_unknown_labels_do_not_count():
    scores, labels, patients = made_up(60)
    hidden = labels.copy()
    hidden[:20, 0] = -1
    whole = measure_scoring(scores, "main", hidden, patients, thresholds=None, num_samples=0, seed=0)
    rest = score_prompts(volumes_for(labels, 0.5)[20:], table(), embed, SCALE)
    part = measure_scoring(rest, "main", labels[20:], patients[20:], thresholds=None, num_samples=0, seed=0)
    assert whole.classes["Cyst"].num_cases == 40
    for key, interval in whole.classes["Cyst"].numbers.items():
        assert interval.estimate == part.classes["Cyst"].numbers[key].estimate, key
    nobody = np.full_like(labels, -1)
    nobody[:, 1] = 1
    empty = measure_scoring(scores, "main", nobody, patients, thresholds=None, num_samples=10, seed=0)
    assert empty.num_auroc_classes == 0
    assert math.isnan(empty.macro["auroc"].estimate)
    assert math.isnan(empty.crg["0.5"])


def test_intervals_hold_their_estimates():
    scores, labels, patients = made_up(80, 1.0)
    found = measure_scoring(scores, "ensemble", labels, patients, thresholds=None, num_samples=200, seed=0)
    again = measure_scoring(scores, "ensemble", labels, patients, thresholds=None, num_samples=200, seed=0)
    for name in CLASSES:
        interval = found.classes[name].numbers["auroc"]
        assert interval.low < interval.estimate < interval.high
    assert found.macro["auroc"] == again.macro["auroc"]
    assert found.macro["auroc"].high - found.macro["auroc"].low < 0.3


def test_sensitivity_is_the_auroc_of_every_wording_alone():
    scores, labels, _ = made_up(80, 0.2)
    found = prompt_sensitivity(scores, labels)
    for name, of_class in found.items():
        assert set(of_class) == {"w0", "w1", "w2"}
        assert of_class["w0"] > max(of_class["w1"], of_class["w2"]), name


def test_one_class_of_many_is_chosen_with_ties_against_us():
    labels = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.int8)
    positive = np.array([[0.9, 0.1, 0.2], [0.5, 0.5, 0.1], [0.3, 0.2, 0.1]])
    assert top_k(positive, labels, (1, 2)) == {"top1": pytest.approx(1 / 3), "top2": pytest.approx(2 / 3)}
    with pytest.raises(ValueError, match="exactly one"):
        top_k(positive, np.ones_like(labels))


def tuned_on(seed: int = 1) -> TunedThresholds:
    scores, labels, patients = made_up(60, seed=seed)
    return tune(scores, labels, patients, rule="youden", source="validation", weights="w")


def test_thresholds_are_tuned_on_the_cases_given_and_nothing_else(tmp_path: Path):
    scores, labels, _ = made_up(60, seed=1)
    found = tuned_on()
    for column, name in enumerate(CLASSES):
        expected = tune_threshold(labels[:, column] == 1, scores.probabilities("ensemble")[:, column], "youden")
        assert found.values["ensemble"][name] == expected
    found.save(tmp_path / "thresholds.json")
    assert load_thresholds(tmp_path / "thresholds.json") == found
    assert "p1_0" not in (tmp_path / "thresholds.json").read_text()


def test_a_class_with_one_kind_of_label_has_no_threshold(tmp_path: Path):
    scores, labels, patients = made_up(20)
    labels[:, 2] = 0
    found = tune(scores, labels, patients, rule="corner", source="s", weights="w")
    assert math.isnan(found.values["main"]["Air"])
    found.save(tmp_path / "t.json")
    assert math.isnan(load_thresholds(tmp_path / "t.json").values["main"]["Air"])
    result = measure_scoring(scores, "main", labels_of(20), patients, thresholds=found.values, num_samples=5, seed=0)
    assert math.isnan(result.classes["Air"].numbers["f1@tuned"].estimate)
    assert math.isnan(result.crg["tuned"])
    assert math.isfinite(result.macro["f1@tuned"].estimate)


def test_thresholds_of_another_checkpoint_other_prompts_or_the_test_itself_are_refused(tmp_path: Path):
    found, prompts = tuned_on(), table().identity
    found.check("w", prompts, ("p0_1", "p0_2"), "t.json")
    with pytest.raises(DataError, match="another checkpoint"):
        found.check("other", prompts, (), "t.json")
    with pytest.raises(DataError, match="another prompts"):
        found.check("w", table(2).identity, (), "t.json")
    with pytest.raises(DataError, match="tuned on patients of this test"):
        found.check("w", prompts, ("p0_1", "p1_3"), "t.json")
    for content in ("", "[]", "{}", '{"values": 3}'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(DataError, match="cannot be read"):
            load_thresholds(tmp_path / "bad.json")
    with pytest.raises(DataError, match="No such file"):
        load_thresholds(tmp_path / "absent.json")


def evaluation(tuned: TunedThresholds | None = None, **changes: Any) -> ZeroShotEvaluation:
    scores, labels, patients = made_up(30, 1.0)
    labels[3, 1] = -1
    arguments: dict[str, Any] = {
        "pool_name": "made up, all",
        "label_set": "ct_rate",
        "exclusive": False,
        "tuned": tuned,
        "left_out": {"without a label": 2},
        "provenance": {"checkpoint": "c.pth"},
        "num_bootstraps": 20,
        "seed": 0,
    }
    case_ids = tuple(f"case_{i}" for i in range(30))
    return evaluate_zero_shot(scores, labels, case_ids, patients, **(arguments | changes))


def test_the_files_hold_every_number_and_case(tmp_path: Path):
    found = evaluation()
    write_zero_shot(found, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "results.json",
        "pool_cases.txt",
        "classes.csv",
        "predictions.csv",
        "wordings.csv",
    }
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["left_out"] == {"without a label": 2}
    assert written["thresholds"] == {"note": NOT_TUNED, "file": None}
    cyst = written["classes"]["main"]["Cyst"]
    assert set(cyst["at"]) == {"0.5", "argmax"}
    assert cyst["auroc"].keys() == {"estimate", "low", "high"}
    assert (
        written["macro"]["ensemble"]["at"]["0.5"]["f1"]["estimate"] == found.scored["ensemble"].macro["f1@0.5"].estimate
    )
    assert len(written["calibration"]["main"]["count"]) == 10
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 90
    by_key = {(row["case_id"], row["class"]): row for row in rows}
    assert by_key["case_3", "Nodule"]["label"] == ""
    value = float(by_key["case_5", "Air"]["probability_ensemble"])
    assert value == found.scores.probabilities("ensemble")[5, 2]


def test_tuned_columns_exist_only_with_thresholds_of_other_cases(tmp_path: Path):
    found = evaluation(tuned_on())
    write_zero_shot(found, tmp_path)
    written = json.loads((tmp_path / "results.json").read_text())
    assert set(written["classes"]["main"]["Cyst"]["at"]) == {"0.5", "argmax", "tuned"}
    assert written["thresholds"]["note"] == "tuned on validation by the rule youden"
    assert load_thresholds(tmp_path / "thresholds.json") == found.tuned


def test_the_page_shows_hits_misses_and_why_there_is_no_tuned_column():
    found = evaluation(left_out={HOSTILE: 1})
    lists = choose_examples(found)
    assert set(lists) == {"hits", "misses", "false alarms"}
    for title, pairs in lists.items():
        assert len({case for case, _ in pairs}) == len({name for _, name in pairs}) == len(pairs) <= CARDS_PER_LIST
        for case, name in pairs:
            row, column = found.case_ids.index(case), CLASSES.index(name)
            called = found.scores.probabilities("ensemble")[row, column] >= 0.5
            assert called == (title != "misses")
            assert found.labels[row, column] == (0 if title == "false alarms" else 1)
    examples = [make_example(case, HOSTILE) for pairs in lists.values() for case, _ in pairs]
    page = zero_shot_page(found, examples, (40.0, 400.0)).render()
    assert HOSTILE not in page
    for words in ("Hits", "Misses", "False alarms", NOT_TUNED, "0.5 = argmax", "Sensitivity to the wording"):
        assert words in page, words
    assert page == zero_shot_page(replace(found), examples, (40.0, 400.0)).render()


REGIONS = (
    ("The heart is large.", "The heart is not large."),
    ("A nodule is seen.", "No nodule is seen."),
    ("Yes.", "No."),
)


def asked_of_regions() -> PromptTable:
    pairs = zip(CLASSES, REGIONS, strict=True)
    return PromptTable(name="r", wordings={n: (Wording(name="w", positive=p, negative=q),) for n, (p, q) in pairs})


def test_prompts_are_held_against_the_regions_that_they_speak_of_and_the_best_counts():
    regions, asked = load_region_table(), asked_of_regions()
    found = {name: asked_places(wordings, regions) for name, wordings in asked.wordings.items()}
    heart = next(region.id for region in regions.regions if region.name == "heart")
    assert found["Cyst"].nonzero()[0].tolist() == [heart - 1]
    assert 1 < found["Nodule"].sum() < regions.num_regions  # the lungs' lobes
    assert found["Air"].all()  # speaks of no region: any may show it
    cases = unit(random_stream("regions").normal(size=(6 * regions.num_regions, 16))).reshape(6, -1, 16)
    scores = score_prompts_at_regions(cases.astype(np.float32), asked, embed, SCALE, regions)
    for column, (name, (yes, no)) in enumerate(zip(CLASSES, REGIONS, strict=True)):
        difference = (embed([yes]) - embed([no]))[0]
        for case in range(6):
            best = max(float(cases[case, r] @ difference) for r in found[name].nonzero()[0])
            for margin in (scores.margins["main"], scores.margins["ensemble"]):
                assert margin[case, column] == pytest.approx(SCALE * best, abs=1e-4)
    assert scores.asked["Cyst"] == ("heart",)
    assert scores.identity != score_prompts(cases[:, 0].astype(np.float32), asked, embed, SCALE).identity


def test_a_wording_is_asked_of_its_own_regions_and_the_ensemble_of_all_that_its_wordings_name():
    regions = load_region_table()
    heart, nowhere = (Wording(name=str(i), positive=p, negative=n) for i, (p, n) in enumerate((REGIONS[0], REGIONS[2])))
    table = PromptTable(name="r", wordings={"Cyst": (heart, nowhere)})
    cases = unit(random_stream("wordings").normal(size=(6 * regions.num_regions, 16))).reshape(6, -1, 16)
    scores = score_prompts_at_regions(cases.astype(np.float32), table, embed, SCALE, regions)
    at_heart = cases[:, asked_places([heart], regions)].astype(np.float32)
    for wording, places in ((heart, at_heart), (nowhere, cases)):
        difference = (embed([wording.positive]) - embed([wording.negative]))[0]
        expected = SCALE * (places @ difference).max(1)
        np.testing.assert_allclose(scores.by_wording["Cyst"][wording.name], expected, atol=1e-4)
    np.testing.assert_array_equal(scores.margins["main"][:, 0], scores.by_wording["Cyst"]["0"])
    pair = [embed([f(w) for w in (heart, nowhere)]).mean(0) for f in (lambda w: w.positive, lambda w: w.negative)]
    difference = unit(pair[0][None])[0] - unit(pair[1][None])[0]
    np.testing.assert_allclose(scores.margins["ensemble"][:, 0], SCALE * (at_heart @ difference).max(1), atol=1e-4)
