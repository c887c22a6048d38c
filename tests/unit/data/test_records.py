"""Text files in all their forms, and what is said about broken ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from data_folders import slice_record, volume_record

from vlm3d_ct.data.cot import collect_volume_texts, is_slice_record, slice_report
from vlm3d_ct.data.records import TextRecord, read_records
from vlm3d_ct.errors import DataError
from vlm3d_ct.seeding import random_stream
from vlm3d_ct.text.report import Report, Step

TWO = [volume_record("train_1_a_1"), volume_record("train_2_a_1")]
ONE = TWO[0]
FORMS = {
    "list": json.dumps(TWO),
    "pretty list": json.dumps(TWO, indent=2),
    "one record a line in a list": "[\n" + ",\n".join(map(json.dumps, TWO)) + "\n]",
    "dict by name": json.dumps({record["volumename"]: record for record in TWO}),
    "dict by name alone": json.dumps(
        {f"a/b/{r['volumename']}": {"question": r["question"], "answer": r["answer"]} for r in TWO}
    ),
    "dict of lists": json.dumps({record["volumename"]: [record] for record in TWO}),
    "wrapped list": json.dumps({"data": TWO}),
    "json lines": "\n".join(map(json.dumps, TWO)) + "\n\n",
    "byte order mark": "\ufeff" + json.dumps(TWO),
    "other case": json.dumps(TWO).replace("volumename", "VolumeName").replace("answer", "Answer"),
    "names without ending": json.dumps(TWO).replace(".nii.gz", ""),
    "names in capitals": json.dumps(TWO).replace("train_", "TRAIN_"),
}


def _write(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "cot.json"
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_reports(tmp_path: Path, form: str) -> None:
    records, unreadable = read_records([_write(tmp_path, FORMS[form])])
    texts, problems = collect_volume_texts(records)
    assert (unreadable, problems) == ([], [])
    assert set(texts) == {"train_1_a_1", "train_2_a_1"}
    answers = {
        key: [(report.question, report.answer.lower()) for report in text.reports] for key, text in texts.items()
    }
    assert answers == {f"train_{n}_a_1": [("What is seen?", f"findings of train_{n}_a_1.")] for n in (1, 2)}


def test_several_records_of_a_volume_are_several_reports() -> None:
    records = [TextRecord(file=Path("f"), where=f"[{i}]", key=None, fields={**ONE, "answer": f"{i}"}) for i in range(3)]
    texts, _ = collect_volume_texts(records)
    assert [report.answer for report in texts["train_1_a_1"].reports] == ["0", "1", "2"]


def test_conversations_become_questions_and_answers() -> None:
    turns = [
        {"from": "human", "value": "<image>\nIs there an effusion?", "type": "short"},
        {"from": "gpt", "value": "No."},
        {"from": "human", "value": "And a nodule?"},
        {"from": "gpt", "value": "Yes."},
    ]
    record = TextRecord(
        file=Path("f"), where="[0]", key=None, fields={"image": "train_1_a_1.nii.gz", "conversations": turns}
    )
    texts, problems = collect_volume_texts([record])
    assert problems == []
    assert texts["train_1_a_1"].reports == [
        Report(question="Is there an effusion?", answer="No."),
        Report(question="And a nodule?", answer="Yes."),
    ]


THOUGHT = {"image": "train_1_a_1.nii.gz", "report": "All of it.", "question": "Why?", "answer": "A nodule."}


@pytest.mark.parametrize(
    "thinking",
    [
        ["Look.", {"text": "Compare."}],
        "Look.\n\nCompare.",
        "Step 1: Look.\nStep 2: Compare.",
        "1. Look.\n2) Compare.",
        "- Look.\n* Compare.",
    ],
)
def test_thinking_becomes_the_steps_of_the_answer(thinking: object) -> None:
    record = TextRecord(file=Path("f"), where="[0]", key=None, fields={**THOUGHT, "thinking": thinking})
    texts, problems = collect_volume_texts([record])
    assert problems == []
    steps = (Step(text="Look."), Step(text="Compare."))
    assert texts["train_1_a_1"].reports == [Report(question="Why?", answer="A nodule.", steps=steps)]


def test_a_measure_at_the_start_of_a_line_is_no_number_of_a_step() -> None:
    record = TextRecord(
        file=Path("f"), where="[0]", key=None, fields={**THOUGHT, "thinking": "1.5 cm nodule.\nBenign."}
    )
    texts, _ = collect_volume_texts([record])
    assert [step.text for step in texts["train_1_a_1"].reports[0].steps] == ["1.5 cm nodule.", "Benign."]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_with_their_marks_are_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(json.dumps([{**ONE, "answer": "Größe \u2028 肺"}], ensure_ascii=False).encode(encoding))
    records, problems = read_records([path])
    assert problems == []
    assert records[0].fields["answer"] == "Größe \u2028 肺"


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ('{"a": "é"}'.encode("latin-1"), "byte 7: 0xe9"),
        ('{"a": 1}'.encode("utf-32"), "byte 0: UTF-32"),
        (b'{"a": "\x00"}', "character 7"),
    ],
)
def test_other_encodings_are_refused_with_the_byte(tmp_path: Path, content: bytes, where: str) -> None:
    (tmp_path / "x.json").write_bytes(content)
    _, (problem,) = read_records([tmp_path / "x.json"])
    assert (problem.code, problem.value) == ("encoding", where)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.json")
    _, (problem,) = read_records([tmp_path / "x.json"])
    assert problem.code == "unreadable-file"


def test_steps_are_strings_or_objects() -> None:
    record = TextRecord(file=Path("f"), where="[0]", key=None, fields=slice_record("973_1_0_177"))
    assert is_slice_record(record)
    assert slice_report(record) == Report(
        question="",
        answer="A nodule is seen. It lies in the lung.",
        steps=(Step(text="A nodule is seen."), Step(text="It lies in the lung.", entities=("left lower lobe",))),
    )


BROKEN = {
    "no json": ("{nonsense", "json", "line 1"),
    "cut list": ("[\n" + json.dumps(ONE) + ",\n", "json", "line 3"),
    "deep": ("[" * 100_000, "json", "line 1"),
    "empty file": ("", "json", "line 1"),
    "a number": ("5", "record-type", "[0]"),
    "a list of texts": ('["text"]', "record-type", "[0]"),
    "a broken line": (json.dumps(ONE) + "\n" + json.dumps(ONE) + '\n{"volumename": \n', "json", "line 3"),
    "no answer": (json.dumps([{**ONE, "answer": None}]), "record-fields", "[0] answer"),
    "empty answer": (json.dumps([{**ONE, "answer": " \n"}]), "empty-answer", "[0] answer"),
    "no question": (json.dumps([{"volumename": "a", "answer": "b"}]), "record-fields", "[0] question"),
    "no name": (json.dumps([{"question": "a", "answer": "b"}]), "record-fields", "[0] volumename"),
    "a list as name": (json.dumps([{**ONE, "volumename": ["a"]}]), "record-fields", "[0] volumename"),
    "climbing name": (json.dumps([{**ONE, "volumename": "../../a.nii.gz"}]), "path-escapes", "[0] volumename"),
    "twice the answer": ('[{"volumename": "a", "question": "", "answer": "b", "answer": "c"}]', "duplicate-key", "[0]"),
    "twice in another case": (json.dumps([{**ONE, "ANSWER": "b"}]), "duplicate-key", "[0]"),
    "twice within": (
        '[{"volumename": "a", "answer": "b", "question": "", "x": [{"k": 1, "k": 2}]}]',
        "duplicate-key",
        "[0]",
    ),
    "twice the name": (
        '{"a": {"question": "", "answer": "b"}, "a": {"question": "", "answer": "c"}}',
        "duplicate-key",
        "content",
    ),
    "nested": (json.dumps([{**ONE, "more": json.loads("[" * 20 + "]" * 20)}]), "record-size", "[0]"),
    "a giant text": (json.dumps([{**ONE, "answer": "a" * 1_000_001}]), "record-size", "[0]"),
    "a giant list": (json.dumps([{**ONE, "more": [0] * 20_001}]), "record-size", "[0]"),
    "half a character": (json.dumps([{**ONE, "answer": "a\ud800"}]), "record-fields", "[0] answer"),
    "no conversation": (json.dumps([{"image": "a", "conversations": []}]), "empty-answer", "[0] conversations"),
    "odd conversation": (json.dumps([{"image": "a", "conversations": "hi"}]), "record-fields", "[0] conversations"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_text_is_one_problem(tmp_path: Path, name: str) -> None:
    content, code, field = BROKEN[name]
    path = _write(tmp_path, content)
    (tmp_path / "newer.json").write_text("[]")
    os.utime(path, (1, 1))
    records, unreadable = read_records([path, tmp_path / "newer.json"])
    _, faulty = collect_volume_texts(records)
    (problem,) = unreadable + faulty
    assert (problem.code, problem.file, problem.field) == (code, str(path), field)
    assert problem.remedy
    assert str(problem).isprintable()


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        (None, "record-fields"),
        ("one text", "record-fields"),
        ([], "empty-answer"),
        ([""], "empty-answer"),
        ([{"entities": []}], "record-fields"),
        ([{"text": "a", "entities": [1]}], "record-fields"),
        ([3], "record-fields"),
    ],
)
def test_broken_steps_are_refused(steps: object, code: str) -> None:
    fields = {**slice_record("973_1_0_177"), "cot_reasoning": steps}
    with pytest.raises(DataError) as caught:
        slice_report(TextRecord(file=Path("f"), where="[0]", key=None, fields=fields))
    assert [problem.code for problem in caught.value.problems] == [code]


def test_a_file_that_is_no_text_is_one_problem(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\x89PNG\r\n")
    _, problems = read_records([tmp_path / "x.json", tmp_path / "absent.json", tmp_path])
    assert [problem.code for problem in problems] == ["encoding", "unreadable-file", "unreadable-file"]
    assert problems[0].value == "byte 0: 0x89"


def test_mutated_files_never_raise(tmp_path: Path) -> None:
    random = random_stream(0, "json mutations")
    good = (json.dumps([slice_record("973_1_0_177"), *TWO]) + "\n").encode()
    path = tmp_path / "x.json"
    for _ in range(500):
        content = bytearray(good)
        for position in random.integers(0, len(good), 4).tolist():
            content[position] = random.choice(list(b'{}[]",:0\\n\xff\x00a'))
        path.write_bytes(content)
        records, _ = read_records([path])
        collect_volume_texts(records)
