"""2D cases: the plan's layout (DIR/images, DIR/masks, batches of reasoning records) and the published one, joined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from vlm3d_ct.data.cache import SAFE_NAME
from vlm3d_ct.data.case import Case
from vlm3d_ct.data.cot import is_published_slice, slice_report
from vlm3d_ct.data.names import confined, slice_patient
from vlm3d_ct.data.part import Part, describe
from vlm3d_ct.data.published_slices import PublishedSlice, plane_of, read_published
from vlm3d_ct.data.records import TextRecord
from vlm3d_ct.data.slice_files import SliceFiles
from vlm3d_ct.errors import DataError, Problem


def read_slices_part(directory: Path, records: Iterable[TextRecord]) -> Part:
    """The 2D cases of a folder; ``records`` are those of its text files that speak of slices.

    A published record gives a case its images, masks and plane. Its text is its chain of thought, and where there is
    none yet, the published descriptions. A chain of thought without a published record is a case of the plan's layout.
    """
    reader = _Reader(directory)
    reasoning = []
    for record in records:
        if is_published_slice(record):
            reader.attempt(reader.add_published, record)
        else:
            reasoning.append(record)
    for record in reasoning:
        reader.attempt(reader.add_reasoning, record)
    return reader.part()


class _Reader:
    """Collects the cases of one folder."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.files = SliceFiles(directory)
        self.published: dict[str, PublishedSlice] = {}
        self.cases: dict[str, Case] = {}
        self.problems: list[Problem] = []
        self.repeated = 0

    def attempt(self, add: Callable[[TextRecord], None], record: TextRecord) -> None:
        """Add a record, or take note of its problems."""
        try:
            add(record)
        except DataError as error:
            self.problems.extend(error.problems)

    def add_published(self, record: TextRecord) -> None:
        """Add a published record. The same case in several files (``train``, ``train_grouped``) counts once."""
        case_id = _case_id(record)
        found = read_published(self.files, record)
        known = self.published.setdefault(case_id, found)
        if known is not found:
            self.repeated += 1
            if known.image_paths != found.image_paths:
                raise DataError(_another_image(record, case_id))

    def add_reasoning(self, record: TextRecord) -> None:
        """Add a chain of thought: a case of its own, of a published record, or another text of a known case."""
        case_id = _case_id(record)
        found = self.published.get(case_id)
        case = self._plan_case(record, case_id) if found is None else _published_case(case_id, found)
        category = record.fields.get("category")
        stated = category.strip() if isinstance(category, str) else ""
        case = replace(case, reports=(slice_report(record),), category=stated or case.category)
        known = self.cases.setdefault(case_id, case)
        if known is case:
            return
        if known.image_paths != case.image_paths:
            raise DataError(_another_image(record, case_id))
        self.cases[case_id] = replace(known, reports=known.reports + case.reports)

    def part(self) -> Part:
        """Everything that was found; published cases without a chain of thought get their descriptions."""
        described = {
            case_id: replace(_published_case(case_id, found), reports=(found.report,))
            for case_id, found in self.published.items()
            if case_id not in self.cases and found.report is not None
        }
        cases = self.cases | described
        images = self.directory / "images"
        waiting = len(self.published.keys() - cases.keys())
        if not self.published and images.is_dir():
            waiting = max(0, sum(not name.startswith(".") for name in (e.name for e in images.iterdir())) - len(cases))
        texts = {"chain of thought": len(self.cases), "description": len(described), "none": waiting}
        masks = Counter("none" if not c.mask_paths else "lesion" for c in cases.values())
        layout = "published layout" if self.published else "plan's layout"
        notes = [f"{len(cases)} slices", describe("texts", texts), describe("masks", masks)]
        notes.append(describe("planes", Counter(case.plane for case in cases.values())))
        if self.repeated:
            notes.append(f"{self.repeated} records repeat a case")
        return Part(
            cases=tuple(cases[case_id] for case_id in sorted(cases)),
            problems=tuple(self.problems),
            description=f"{layout}: " + "; ".join(notes),
        )

    def _plan_case(self, record: TextRecord, case_id: str) -> Case:
        return Case(
            case_id=case_id,
            patient_id=slice_patient(case_id),
            kind="slice",
            image_paths=self._images(record, case_id),
            mask_paths=self._masks(record, case_id),
            mask_labels="lesion",
            reports=(),
            plane=plane_of(record),
        )

    def _images(self, record: TextRecord, case_id: str) -> tuple[Path, ...]:
        stated = self.files.named(record, "image_path") or confined(self.directory, f"images/{case_id}")
        images = None if stated is None else self.files.stack(record, stated)
        if images is None:
            message, remedy = "The slice is not there.", "Add the image or remove the record."
            raise DataError(record.problem("missing-slice", "image_path", str(stated), message, remedy))
        return images

    def _masks(self, record: TextRecord, case_id: str) -> tuple[Path, ...]:
        """The stated mask, or the one named like the case; a folder of masks counts whole."""
        stated = self.files.named(record, "mask_path")
        path = stated or confined(self.directory, f"masks/{case_id}")
        if path is not None and path.is_dir():
            return self.files.folder(record, path)
        own = None if path is None else self.files.file(record, path)
        if own is None and stated is not None:
            message, remedy = "The mask is not there.", "Add the mask or remove the field."
            raise DataError(record.problem("missing-mask", "mask_path", str(stated), message, remedy))
        return () if own is None else (own,)


def _case_id(record: TextRecord) -> str:
    case_id = record.fields.get("case_id", record.key)
    if not isinstance(case_id, str) or not SAFE_NAME.fullmatch(case_id):
        message = "A record needs a case id of letters, digits and . _ + - only."
        raise DataError(record.problem("case-id", "case_id", case_id, message, "Correct the record."))
    return case_id


def _published_case(case_id: str, found: PublishedSlice) -> Case:
    return Case(
        case_id=case_id,
        patient_id=slice_patient(case_id),
        kind="slice",
        image_paths=found.image_paths,
        mask_paths=found.mask_paths,
        mask_labels="lesion",
        reports=(),
        category=found.category,
        plane=found.plane,
    )


def _another_image(record: TextRecord, case_id: str) -> Problem:
    message = "Another record has this case id and another image."
    return record.problem("duplicate", "case_id", case_id, message, "Keep one of them.")
