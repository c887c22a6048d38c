"""The comparison's pictures: what each variant reaches, and what it sees of each finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from learning.goals import Found, interval, mean_recall
from learning.records import LEAST_AUROC, common_findings
from learning.variants import FULL, PLAIN, VARIANTS
from vlm3d_ct.pages.style import BLUE, GREY, colour, finish, new_figure

ROW_INCHES, ROOM_INCHES = 0.26, 0.9


def draw(found: Found, folder: Path) -> list[tuple[str, str]]:
    """Draw both into ``folder``; returns what each shows and its name.

    Args:
        found: the records by variant.
        folder: for the pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name in VARIANTS if found.get(name)]
    recalls = {name: [mean_recall(record) for record in found[name]] for name in names}
    aurocs = {name: [record.figures["AUROC"] for record in found[name]] for name in names}
    figure = new_figure(8.4, ROOM_INCHES + ROW_INCHES * len(names))
    left, right = figure.subplots(1, 2, sharey=True)
    pools = {int(record.conditions["test patients"]) for name in names for record in found[name]}
    _points(left, recalls, "R@5, mean of both ways (%); dashed: chance", [500 / size for size in sorted(pools)])
    _points(right, aurocs, "zero-shot macro AUROC; dashed: chance", [0.5])
    figure.savefig(folder / "benchmark_variants.png", metadata={"Software": None})
    _draw_findings(found, folder / "benchmark_findings.png")
    return [
        ("R@5 and AUROC of the variants, a point a seed", "benchmark_variants.png"),
        ("AUROC of each finding", "benchmark_findings.png"),
    ]


def _points(axes: Axes, values: Mapping[str, Sequence[float]], label: str, chances: Sequence[float]) -> None:
    """A row a variant: its seeds as points, its mean with its interval; chance as a dashed line, one a pool."""
    for row, seeds in enumerate(values.values()):
        mean, half = interval(seeds)
        if half == half:
            axes.hlines(row, mean - half, mean + half, color=BLUE, linewidth=1.6, alpha=0.5)
        axes.plot(seeds, [row] * len(seeds), "o", color=BLUE, markersize=4)
        axes.plot([mean], [row], "|", color=BLUE, markersize=10)
    for chance in chances:
        axes.axvline(chance, color=GREY, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.set_xlabel(label)
    finish(axes)


def _draw_findings(found: Found, path: Path) -> None:
    shown = {name: found[name] for name in (FULL, PLAIN) if found.get(name)}
    findings = common_findings(record for records in shown.values() for record in records)
    figure = new_figure(8.4, ROOM_INCHES + ROW_INCHES * max(1, len(findings)))
    axes = figure.subplots()
    for number, (name, records) in enumerate(shown.items()):
        means = [interval([record.auroc[finding] for record in records])[0] for finding in findings]
        axes.plot(means, range(len(findings)), "o", color=colour(number), markersize=5, label=name)
    for place in (0.5, LEAST_AUROC):
        axes.axvline(place, color=GREY, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(findings)), findings)
    axes.set_ylim(len(findings) - 0.4, -0.6)
    axes.set_xlim(0.3, 1.02)  # a point at 1 is seen whole
    axes.set_xlabel("zero-shot AUROC; lines: chance, and the least that is wanted")
    finish(axes)
    figure.savefig(path, metadata={"Software": None})
