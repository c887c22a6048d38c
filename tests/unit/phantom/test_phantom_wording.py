"""Reports say what is there, where it is, and nothing else; the project's own readers understand them."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import numpy as np
import pytest
from scipy.stats import rankdata
from some_findings import all_forms, mirrored, some_finding, some_findings

from vlm3d_ct.phantom.clauses import state
from vlm3d_ct.phantom.draw import Draw
from vlm3d_ct.phantom.findings.finding import Finding
from vlm3d_ct.phantom.patient import draw_patient
from vlm3d_ct.phantom.scan import draw_subject
from vlm3d_ct.phantom.statements import FATTY_LIVER_HU, clear_statement, normal_statements, trait_statements
from vlm3d_ct.phantom.wording import SPARSE_SHARE, WrittenReport, write_question, write_report
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.text.findings import ABNORMALITIES
from vlm3d_ct.text.mentions import SentenceMentions, find_mentions
from vlm3d_ct.text.mirror import can_mirror, mirror_text
from vlm3d_ct.text.regions import load_region_table

LOBES = {1, 2, 3, 4, 5}
TABLE = load_region_table()
WORDS = {
    "Lung nodule": r"nodul(?!ar (thick|inter|sept))|(coin|rounded|round|soft tissue|calcific|calcified|solid|spherical|"
    r"spheroidal|calcium attenuation)[\w ,]* ?lesion|lesion of calcium|granuloma|calcified sphere",
    "Consolidation": r"consolidat|solidifi|airspace|pneumonic|alveolar|exudation",
    "Lung opacity": r"opaci|ground.glass|infiltrate|patchy|hazy|infiltration of|veiling|cloud",
    "Atelectasis": r"atelecta|collapse|volume loss|airless|compress|deflat|volume of .* reduced|dystelectas",
    "Pulmonary fibrotic sequela": r"fibro|sequela|scar|cicatri",
    "Emphysema": r"emphysem|bulla|bullous|areas of low|air cyst|lucenc|destroyed parenchyma|bleb|"
    r"parenchymal destruction|destruction of the pare|rarefaction|rarefied|lucent",
    "Mosaic attenuation pattern": r"mosaic|air trapping|patchwork|areas of (low|decreased) attenuation|geographic|"
    r"trapping of air|checkerboard|tessellat|hypodense lobules",
    "Peribronchial thickening": r"peribronch|thick[\w ]*(walls|bronchi)|(bronchi|airway)[\w ]* thick|"
    r"wall (prominence|thickening)|cuffing|walls of|mural thickening|coarse, thick|bronchial rings",
    "Bronchiectasis": r"bronchiect|dilat|ectatic|widening of the (bronchi|airways)|widened|airways?|cyst-like sacs|"
    r"overwide|ectasia|caliber of the bronchial",
    "Interlobular septal thickening": r"sept|interlobular|kerley",
    "Pleural effusion": r"(pleura|hemithorax|hydrothorax|effusion (layers|on the)|(left|right) effusion)(?!.*pericard)",
    "Pericardial effusion": r"pericardi|fluid around the heart",
    "Cardiomegaly": r"cardiomegaly|(heart|cardiac|chambers|dimensions)[\w ]*(enlarge|increased|dilated|bulky)|"
    r"(enlarged?|increased|enlargement of the|globular[\w ]*) (heart|cardi)|cardiac (dim|con)",
    "Lymphadenopathy": r"lymph|\bnod(e|es|al)\b|adenopath",
    "Hiatal hernia": r"hernia|hiatus",
    "Arterial wall calcification": r"(calcif|athero|calcium|plaque|calcar).*aort|aort.*(calcif|athero|calcar|plaque)",
    "Coronary artery wall calcification": r"coronary|circumflex|anterior descending|RCA|LAD|LCX",
    "Medical material": r"pacemaker|\bport\b|wires|sternotomy|sternum|valv|pacing|generator|implant|device|catheter|"
    r"central line|electrode|stimulator|infusion|metal|steel|sternal|prosthe",
}
"""What a sentence about each abnormality must contain."""
UNMISTAKABLE = {
    "Lung nodule": r"nodule|granulomas?\b",
    "Consolidation": r"consolidat",
    "Lung opacity": r"opacit|opacif|ground.glass",
    "Atelectasis": r"atelecta",
    "Pulmonary fibrotic sequela": r"fibro|scar|cicatri",
    "Emphysema": r"emphysem|bulla|bleb",
    "Mosaic attenuation pattern": r"mosaic|air trapping",
    "Peribronchial thickening": r"peribronchial",
    "Bronchiectasis": r"bronchiect",
    "Interlobular septal thickening": r"interlobular|septal (line|thick)",
    "Pleural effusion": r"pleural (effusion|fluid)|hydrothorax",
    "Pericardial effusion": r"pericardi",
    "Cardiomegaly": r"cardiomegaly",
    "Lymphadenopathy": r"lymph|adenopathy",
    "Hiatal hernia": r"hernia",
    "Arterial wall calcification": r"(calcif|athero).*aort|aort.*(calcif|athero)",
    "Coronary artery wall calcification": r"coronary",
    "Medical material": r"pacemaker|port (catheter|chamber|device)|sternotomy|prosthe",
}
"""What only a sentence about the abnormality contains."""


def one_mention(text: str) -> SentenceMentions:
    (mention,) = find_mentions(text, TABLE)
    return mention


@cache
def written(hard: bool, count: int = 400) -> list[tuple[tuple[Finding, ...], WrittenReport]]:
    found = []
    for index in range(count):
        findings = some_findings(random_stream("findings", index))
        patient = draw_patient(random_stream("patient", index))
        found.append((findings, write_report(random_stream("report", index), patient, findings, hard=hard)))
    return found


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(("abnormality", "form"), all_forms())
def test_a_findings_sentence_is_understood(abnormality: str, form: str, hard: bool) -> None:
    for index in range(18):
        rng = random_stream("sentence", abnormality, form, index)
        finding = some_finding(rng, abnormality, form)
        text = state(Draw(rng, hard), [finding])
        mention = one_mention(text)
        assert set(finding.regions) <= mention.regions, text
        assert mention.regions & LOBES == set(finding.regions) & LOBES, text
        assert not mention.normal, text
        assert re.search(WORDS[abnormality], text, re.IGNORECASE), text
        assert not re.search(r"[{}()|]|\bnone\b|\ba [aeiou]|  | ,|,\.", text), text
        assert text[0].isupper()
        assert text.endswith(".")


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(("abnormality", "form"), all_forms())
def test_the_mirrored_finding_gets_the_mirrored_sentence(abnormality: str, form: str, hard: bool) -> None:
    mirrorable = 0
    for index in range(8):
        rng = [random_stream("mirror", abnormality, form, index) for _ in range(2)]
        findings = [some_finding(one, abnormality, form, lobes=(5,)) for one in rng]
        text = state(Draw(rng[0], hard), [findings[0]])
        mirrorable += can_mirror(text, TABLE)
        if can_mirror(text, TABLE):
            assert state(Draw(rng[1], hard), [mirrored(findings[1])]) == mirror_text(text)
    assert mirrorable == 0 if abnormality.startswith("Coronary") else mirrorable > 0


def test_several_of_a_kind_are_listed_with_their_sizes_and_places() -> None:
    for index in range(60):
        rng = random_stream("several", index)
        pair = [some_finding(rng, "Lung nodule", "solid", lobes=(lobe,)) for lobe in (2, 5)]
        text = state(Draw(rng, False), pair)
        assert {2, 5} == one_mention(text).regions & LOBES, text
        sizes = re.findall(r"[\d.]+ (?:mm|cm)", text)
        assert len(sizes) == 2, text
        assert [round(float(s[:-3]) * (10 if s.endswith("cm") else 1)) for s in sizes] == [
            round(finding.size_mm) for finding in pair
        ]


def test_effusions_on_both_sides_keep_their_amounts_apart() -> None:
    seen = 0
    for index in range(40):
        rng = random_stream("both sides", index)
        first, second = (some_finding(rng, "Pleural effusion", "") for _ in range(2))
        text = state(Draw(rng, False), [first, second])
        assert one_mention(text).regions == {7}, text
        seen += "on the " + first.side in text
    assert seen > 10


@pytest.mark.parametrize("hard", [False, True])
def test_a_report_states_its_findings_verbatim_and_nothing_else(hard: bool) -> None:
    for findings, report in written(hard):
        mentions = {report.answer[slice(*m.span)]: m for m in find_mentions(report.answer, TABLE)}
        by_text = {text.removeprefix("Findings: "): mention for text, mention in mentions.items()}
        assert len(report.sentences) == len(findings)
        for finding, text in zip(findings, report.sentences, strict=True):
            assert text is not None or len(mentions) <= 2, report.answer
            if text is not None:
                assert set(finding.regions) <= by_text[text].regions, text
                assert not by_text[text].normal, text
        others = {text: mention for text, mention in by_text.items() if text not in report.sentences}
        present = {finding.abnormality for finding in findings}
        lobes = {region for finding in findings for region in finding.regions} & LOBES
        for text, mention in others.items():
            if not mention.normal and re.match(
                r"(Impression|Conclusion|Summary|In summary|Opinion|Bottom|Overall)", text
            ):
                assert mention.regions & LOBES <= lobes, text
                named = {name for name in ABNORMALITIES if re.search(WORDS[name], text, re.IGNORECASE)}
                assert named & present, text


@pytest.mark.parametrize("hard", [False, True])
def test_no_abnormality_that_is_absent_is_stated(hard: bool) -> None:
    for findings, report in written(hard):
        present = {finding.abnormality for finding in findings}
        for mention in find_mentions(report.answer, TABLE):
            text = report.answer[slice(*mention.span)]
            if not mention.normal and not text.startswith(("Impression", "Conclusion", "Summary", "In summary")):
                said = {name for name, words in UNMISTAKABLE.items() if re.search(words, text, re.IGNORECASE)}
                assert said <= present, text


@pytest.mark.parametrize("hard", [False, True])
def test_normal_statements_are_normal_and_on_different_subjects(hard: bool) -> None:
    for index in range(60):
        findings = some_findings(random_stream("normal", index))
        draw = Draw(random_stream("statements", index), hard)
        patient = draw_patient(random_stream("normal patient", index))
        statements = [statement.text for statement in normal_statements(draw, patient, findings)]
        assert len(statements) == len(set(statements)) >= 8
        for text in (*statements, clear_statement(draw)):
            assert one_mention(text).normal, text
        assert all(one_mention(text).regions for text in statements)
        assert "pleural effusion" not in " ".join(statements) or all(
            f.abnormality != "Pleural effusion" for f in findings
        )


def test_traits_are_true() -> None:
    for index in range(150):
        patient = draw_patient(random_stream("traits", index))
        text = " ".join(s.text for s in trait_statements(Draw(random_stream("words", index), False), patient)).lower()
        plain = re.search(r"without (intravenous )?contrast|non-contrast|unenhanced|no (intravenous )?contrast", text)
        assert bool(plain) == (patient.phase == "plain")
        assert bool(re.search(r"breast", text)) == (patient.sex == "female")
        assert ("obes" in text) == (patient.habitus == "obese")
        assert not ("young" in text and patient.age_years > 45)
        assert not (re.search(r"osteopen|osteopor", text) and patient.age_years < 55)
        assert bool(re.search(r"steato|fatty", text)) == (patient.liver_hu < FATTY_LIVER_HU)


def test_reports_have_the_length_of_short_reports_and_do_not_repeat() -> None:
    texts = [report.answer for _, report in written(False)]
    words = np.array([len(text.split()) for text in texts])
    assert 65 < words.mean() < 100
    assert np.percentile(words, 95) < 140
    assert len({text.casefold() for text in texts}) >= 0.995 * len(texts)


def test_a_share_is_sparse_and_only_these_leave_findings_out() -> None:
    sentences = np.array([len(find_mentions(report.answer, TABLE)) for _, report in written(False)])
    assert abs((sentences <= 2).mean() - SPARSE_SHARE) < 0.05
    for findings, report in written(False):
        if findings and None in report.sentences:
            kept = [f.severity for f, s in zip(findings, report.sentences, strict=True) if s is not None]
            assert kept
            assert "severe" in kept or all(finding.severity != "severe" for finding in findings)


def test_the_number_of_words_does_not_tell_a_finding() -> None:
    reports = written(False, 800)
    words = rankdata([len(report.answer.split()) for _, report in reports])
    for abnormality in ABNORMALITIES:
        present = np.array([any(f.abnormality == abnormality for f in findings) for findings, _ in reports])
        count = present.sum()
        area = (words[present].sum() - count * (count + 1) / 2) / (count * (~present).sum())
        assert abs(area - 0.5) < 0.19, (abnormality, area)


NO_NAMES = """aorta aortic artery coronary chest wall hiatus esophageal heart pleural hemithorax right left upper middle
lower lobe lung descending anterior circumflex ascending arch sternum region station attenuation
the of in is are a an and with there to on by this"""


@pytest.mark.parametrize("abnormality", ABNORMALITIES)
def test_no_abnormality_has_one_fixed_name(abnormality: str) -> None:
    forms = [form for name, form in all_forms() if name == abnormality]
    counts: Counter[str] = Counter()
    for index in range(240):
        rng = random_stream("names", abnormality, index)
        text = state(Draw(rng, False), [some_finding(rng, abnormality, forms[index % len(forms)])])
        counts.update(set(re.findall(r"[a-z]+", text.lower())) - set(NO_NAMES.split()))
    word, count = counts.most_common(1)[0]
    assert count / 240 <= 0.65, word


def test_the_hard_set_says_nothing_as_training_does() -> None:
    usual = {text for _, report in written(False) for text in report.sentences if text}
    hard = {text for _, report in written(True) for text in report.sentences if text}
    assert len(usual) > 500
    assert usual.isdisjoint(hard)
    questions = [{write_question(random_stream("q", i), hard=hard) for i in range(300)} for hard in (False, True)]
    assert len(questions[0]) >= 100
    assert questions[0].isdisjoint(questions[1])


def test_questions_do_not_give_the_answer_away() -> None:
    for index in range(300):
        text = write_question(random_stream("question", index), hard=index % 2 == 0)
        assert text[-1] in "?."
        assert not any(re.search(words, text, re.IGNORECASE) for words in UNMISTAKABLE.values()), text


def test_the_same_stream_gives_the_same_report() -> None:
    patient, findings = draw_patient(random_stream("p")), some_findings(random_stream("f"))
    one, two = (write_report(random_stream("r"), patient, findings, hard=False) for _ in range(2))
    assert one == two


@pytest.mark.parametrize("smallest_mm", [18.0, 6.0])
def test_all_that_the_phantom_draws_has_words(smallest_mm: float) -> None:
    for index in range(40):
        subject = draw_subject("wording", index, smallest_mm=smallest_mm)
        report = write_report(random_stream("own", index), subject.patient, subject.findings, hard=index % 2 == 0)
        for finding, text in zip(subject.findings, report.sentences, strict=True):
            if text is not None:
                assert set(finding.regions) <= one_mention(text).regions
