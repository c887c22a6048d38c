"""Reasoning steps of a slice: what it shows, where one looks, what is seen, how it looks, what it means."""

from __future__ import annotations

from typing import Any

import numpy as np

from vlm3d_ct.phantom.clauses import brief, looks, name_lobes, named, state
from vlm3d_ct.phantom.draw import Draw
from vlm3d_ct.phantom.findings.finding import LOBE_NAMES, Finding

STEP_SHARES = {"view": 1.0, "where": 0.5, "seen": 1.0, "looks": 0.75, "degree": 0.25, "means": 1.0}
"""Share of the cases that have each step, in their order: three to six steps."""
PLAIN_SHARE = 0.3
"""Share of the cases whose steps are plain strings."""


def write_steps(
    rng: np.random.Generator, finding: Finding, plane: str, window: str, *, hard: bool
) -> list[dict[str, Any]] | list[str]:
    """The steps from the image to what it means.

    Args:
        rng: where the choices come from.
        finding: what the slice shows.
        plane: ``axial``, ``coronal`` or ``sagittal``.
        window: name of the window of the pictures.
        hard: whether to use the wording of the hard test set.

    Returns:
        Records with ``text`` and the anatomical ``entities`` of each step, or the texts alone.
    """
    draw = Draw(rng, hard)
    entities = entities_of(draw, finding)
    slots = {
        "plane": plane,
        "a_plane": f"{'an' if plane[0] in 'aeiou' else 'a'} {plane}",
        "window": window.replace("_", " "),
        "entity": _entity(draw, finding, entities),
        "stated": state(draw, [finding]),
        "looks": looks(draw, finding),
        "noun": named(draw, finding),
        "brief": brief(draw, finding),
    }
    texts = {
        name: draw.sentence(draw.variant(draw.book.steps[name]), slots, finding.severity)
        for name, share in STEP_SHARES.items()
        if share == 1 or rng.random() < share
    }
    if rng.random() < PLAIN_SHARE:
        return list(texts.values())
    return [{"text": text, "entities": ["chest"] if name == "view" else entities} for name, text in texts.items()]


def entities_of(draw: Draw, finding: Finding) -> list[str]:
    """The anatomical structures where the finding lies: lobes where it lies in lobes, else its first region."""
    lobes = [LOBE_NAMES[region] for region in finding.regions if region in LOBE_NAMES]
    if lobes:
        return lobes
    name = draw.book.entities[finding.regions[0]]
    return [name.replace("{side}", "" if finding.side == "none" else finding.side).strip()]


def _entity(draw: Draw, finding: Finding, entities: list[str]) -> str:
    """The place of the finding in a sentence, with its article."""
    lobes = sorted(region for region in finding.regions if region in LOBE_NAMES)
    return name_lobes(draw, lobes)[0] if lobes else f"the {entities[0]}"
