"""From text records to reports: questions and answers about volumes, reasoning steps about slices."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vlm3d_ct.data.names import climbs, volume_stem
from vlm3d_ct.data.records import TextRecord
from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.text.report import Report, Step
from vlm3d_ct.text.sentences import join_texts

_COMPLETE = "Complete the record or remove it."
_NAME_FIELDS = ("volumename", "volume_name", "image")
_STEP_FIELDS = ("text", "step", "reasoning", "content", "sentence")
_ENTITY_FIELDS = ("entities", "anatomical_entities", "anatomy")
_IMAGE_TOKEN = "<image>"
_STEP_MARK = re.compile(r"^\s*(?:(?:[-*\u2022]|step\s+\d+\s*[:.)-]|\d+\s*[.):](?=\s))\s*)?", re.IGNORECASE)


@dataclass
class VolumeText:
    """Everything that is said about one volume: the first record that names it, and all reports."""

    record: TextRecord
    name: str
    reports: list[Report] = field(default_factory=list)


def is_slice_record(record: TextRecord) -> bool:
    """Whether a record speaks of a 2D slice rather than of a volume."""
    return "case_id" in record.fields or "cot_reasoning" in record.fields or is_published_slice(record)


def is_published_slice(record: TextRecord) -> bool:
    """Whether a record is a case of OmniAbnorm-CT-14K as published: a folder of slices and its abnormalities."""
    return "abnormality" in record.fields or {"image", "context"} <= record.fields.keys()


def collect_volume_texts(records: Iterable[TextRecord]) -> tuple[dict[str, VolumeText], list[Problem]]:
    """Reports by volume (name without ``.nii.gz``, casefolded), in the order of the records."""
    texts: dict[str, VolumeText] = {}
    problems: list[Problem] = []
    for record in records:
        try:
            name = _volume_name(record)
            text = texts.setdefault(volume_stem(name).casefold(), VolumeText(record, name))
            text.reports.extend(_volume_reports(record))
        except DataError as error:
            problems.extend(error.problems)
    return texts, problems


def slice_report(record: TextRecord) -> Report:
    """The report of a slice record: its reasoning steps, joined to the answer.

    Raises:
        DataError: no ``cot_reasoning`` list, or a step without text.
    """
    steps = record.fields.get("cot_reasoning")
    if not isinstance(steps, list):
        message = "The record needs its reasoning steps as a list."
        raise DataError(record.problem("record-fields", "cot_reasoning", steps, message, _COMPLETE))
    parsed = tuple(_step(record, "cot_reasoning", position, step) for position, step in enumerate(steps))
    answer = join_texts([step.text for step in parsed])
    if not answer:
        message = "The record holds no reasoning step."
        raise DataError(record.problem("empty-answer", "cot_reasoning", steps, message, _COMPLETE))
    return Report(question="", answer=answer, steps=parsed)


def checked_text(record: TextRecord, name: str, value: Any) -> str:
    """A text that must be there and say something, without white space around it.

    Raises:
        DataError: it is no text, empty, or holds half a character.
    """
    if not isinstance(value, str):
        raise DataError(record.problem("record-fields", name, value, "The record needs this text.", _COMPLETE))
    if not value.strip():
        raise DataError(record.problem("empty-answer", name, value, "The text is empty.", _COMPLETE))
    if any("\ud800" <= character <= "\udfff" for character in value):
        message = "The text holds half a character (a lone surrogate)."
        raise DataError(record.problem("record-fields", name, value, message, "Write the record again as UTF-8."))
    return value.strip()


def _volume_name(record: TextRecord) -> str:
    names = [record.fields[name] for name in _NAME_FIELDS if name in record.fields]
    name = names[0] if names else record.key
    if not isinstance(name, str) or not volume_stem(name):
        message = "The record does not say which volume it speaks of."
        raise DataError(record.problem("record-fields", "volumename", name, message, _COMPLETE))
    if climbs(name):
        remedy = "Name the volume by its file name."
        raise DataError(record.problem("path-escapes", "volumename", name, "The name leaves the data folder.", remedy))
    return name


def _volume_reports(record: TextRecord) -> list[Report]:
    if "conversations" in record.fields:
        return _conversation(record)
    answer = checked_text(record, "answer", record.fields.get("answer"))
    question = record.fields.get("question")
    if not isinstance(question, str):
        message = "The record needs a question (it may be empty)."
        raise DataError(record.problem("record-fields", "question", question, message, _COMPLETE))
    if question.strip():
        question = checked_text(record, "question", question)
    steps = _thinking(record) if "thinking" in record.fields else ()
    return [Report(question=question.strip(), answer=answer, steps=steps)]


def _thinking(record: TextRecord) -> tuple[Step, ...]:
    """The reasoning before an answer, step by step: a list of steps, or a text with a step on each line."""
    thinking = record.fields["thinking"]
    if isinstance(thinking, list):
        return tuple(_step(record, "thinking", position, step) for position, step in enumerate(thinking))
    lines = checked_text(record, "thinking", thinking).splitlines()
    return tuple(Step(text=text) for line in lines if (text := _STEP_MARK.sub("", line).strip()))


def _conversation(record: TextRecord) -> list[Report]:
    """Turns of a conversation: what the human asks and what is answered."""
    turns = record.fields["conversations"]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        message = "A conversation must be a list of objects with `from` and `value`."
        raise DataError(record.problem("record-fields", "conversations", turns, message, _COMPLETE))
    reports, question = [], ""
    for turn in turns:
        value = checked_text(record, "conversations value", turn.get("value"))
        if turn.get("from") == "human":
            question = value.replace(_IMAGE_TOKEN, "").strip()
        else:
            reports.append(Report(question=question, answer=value))
    if not reports:
        message = "The conversation holds no answer."
        raise DataError(record.problem("empty-answer", "conversations", turns, message, _COMPLETE))
    return reports


def _step(record: TextRecord, name: str, position: int, step: Any) -> Step:
    where = f"{name}[{position}]"
    if not isinstance(step, dict):
        return Step(text=checked_text(record, where, step))
    fields = {name.lower(): value for name, value in step.items()}
    text = next((fields[name] for name in _STEP_FIELDS if isinstance(fields.get(name), str)), None)
    entities: Any = next((fields[name] for name in _ENTITY_FIELDS if name in fields), [])
    if not isinstance(entities, list) or not all(isinstance(entity, str) for entity in entities):
        message = "The entities of a step must be a list of names."
        raise DataError(record.problem("record-fields", f"{where} entities", entities, message, _COMPLETE))
    return Step(text=checked_text(record, where, text), entities=tuple(entities))
