"""The trees within the lungs: bronchi with an artery beside each, veins between them, out to the periphery.

Each tree fills its lobe as Tawhai et al. (J Appl Physiol 97, 2004) grow airways: a branch runs towards the centre of
the tissue that it supplies, where the tissue is parted in two, one half for each daughter. Radii follow Murray's law:
the cube of the radius is in proportion to the tissue supplied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.airways import BRONCHUS_WALL_MM, LOBAR_BRONCHI
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Triple
from vlm3d_ct.phantom.patient import Patient
from vlm3d_ct.phantom.region_ids import LOBES, LUNGS
from vlm3d_ct.phantom.rounded import power
from vlm3d_ct.phantom.thorax import RESOLUTION_MM
from vlm3d_ct.phantom.tubes import Tubes, paint_tubes

AIRWAY_GENERATIONS = 5
"""Within a lobe, from the lobar branch on."""
POINTS_PER_TIP = 3
"""Points of tissue for each of the last branches."""
BRONCHUS_MM, ARTERY_MM, VEIN_MM = 3.6, 4.0, 4.2
"""Radius of a lobar branch: of the lumen, of the vessel."""
LEAST_WALL_MM = 0.5
REACH = 0.42
"""How far a branch goes towards the centre of its tissue; the last ones go further."""
LAST_REACH = 0.9
BEND = 0.16
"""How far a branch leaves its chord to begin in its parent's direction, relative to its length."""
PULMONARY_ENDS: dict[int, Triple] = {
    1: (6, 10, -42), 2: (2, 12, -43), 3: (0, 13, -43), 4: (16, 17, 44), 5: (4, 22, 48)
}  # fmt: skip
VENOUS_ENDS: dict[int, Triple] = {
    1: (0, -3, -42),
    2: (-4, -2, -42),
    3: (-30, 28, -42),
    4: (4, -6, 42),
    5: (-30, 30, 42),
}
"""By lobe: where its artery leaves the pulmonary artery, and where its vein reaches the pulmonary vein."""

ARTERY_SIDE = np.array([0.9, -0.3, 0.2], dtype=np.float32)
"""An artery lies across its bronchus and this direction."""

Path = tuple[Triple, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Branches:
    """The branches of all lobes' trees of one kind.

    Attributes:
        tubes: centrelines and radii: of airways the lumen's.
        lobe: 1..5.
        generation: 0 for a lobe's first branch.
        parent: number of the branch that it springs from, -1 for a lobe's first.
    """

    tubes: Tubes
    lobe: UInt8[np.ndarray, " n"]
    generation: UInt8[np.ndarray, " n"]
    parent: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.tubes)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Branches)
            and np.array_equal(self.tubes.end_mm, other.tubes.end_mm)
            and np.array_equal(self.tubes.end_radius_mm, other.tubes.end_radius_mm)
            and np.array_equal(self.lobe, other.lobe)
        )

    __hash__ = None  # type: ignore[assignment]

    def paths(self, lobe: int) -> tuple[Path, ...]:
        """The way from the lobe's first branch to each branch that has no daughter."""
        mine = np.flatnonzero(self.lobe == lobe)
        tips = np.setdiff1d(mine, self.parent)
        paths = []
        for tip in tips:
            points, branch = [_triple(self.tubes.end_mm[tip])], int(tip)
            while branch >= 0:
                points.append(_triple(self.tubes.start_mm[branch]))
                branch = int(self.parent[branch])
            paths.append(tuple(points[::-1]))
        return tuple(paths)


@dataclass(frozen=True, kw_only=True)
class Tree:
    """The branches within the lungs.

    Attributes:
        airways: the bronchi.
        arteries: one beside each bronchus, and on to the periphery.
        veins: between the arteries.
    """

    airways: Branches
    arteries: Branches
    veins: Branches


def wall_mm(airways: Tubes) -> Float32[np.ndarray, " n"]:
    """Thickness of healthy bronchial walls: a third of the lumen's radius, as in small bronchi on CT."""
    return np.maximum(airways.start_radius_mm * np.float32(BRONCHUS_WALL_MM / BRONCHUS_MM), np.float32(LEAST_WALL_MM))


def draw_tree(rng: np.random.Generator, scout: Canvas, generations: int) -> Tree:
    """Random trees in the lobes of a scout.

    Args:
        rng: where the draws come from.
        scout: its lobes are filled.
        generations: of arteries in a lobe; veins have one less. Each doubles the number of branches.
    """
    tissue_mm, lobe = _lung_points(rng, scout, POINTS_PER_TIP * 2 ** (generations - 1))
    bronchial = _grow(rng, tissue_mm, lobe, {key: path[-1] for key, path in LOBAR_BRONCHI.items()}, generations)
    venous = _grow(rng, tissue_mm, lobe, VENOUS_ENDS, generations - 1)
    lumen, artery = _radii(bronchial, BRONCHUS_MM), _radii(bronchial, ARTERY_MM)
    return Tree(
        airways=_as_branches(bronchial, lumen, bronchial.generation < AIRWAY_GENERATIONS),
        arteries=_as_branches(_beside(bronchial, artery, lumen), artery),
        veins=_as_branches(venous, _radii(venous, VEIN_MM)),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Skeleton:
    """Branches without radii; ``share`` is the share of the lobe that a branch supplies."""

    start: Float32[np.ndarray, "n 3"]
    end: Float32[np.ndarray, "n 3"]
    lobe: UInt8[np.ndarray, " n"]
    generation: UInt8[np.ndarray, " n"]
    parent: Int64[np.ndarray, " n"]
    share: Float32[np.ndarray, " n"]


def _lung_points(
    rng: np.random.Generator, scout: Canvas, per_lobe: int
) -> tuple[Float32[np.ndarray, "p 3"], UInt8[np.ndarray, " p"]]:
    """Random points in the lobes, the same number in each, and their lobes."""
    voxels, lobes = [], []
    flat = scout.lobes.reshape(-1)
    for lobe in LOBES:
        inside = np.flatnonzero(flat == lobe)
        voxels.append(inside[rng.integers(len(inside), size=per_lobe)])
        lobes.append(np.full(per_lobe, lobe, dtype=np.uint8))
    voxel = np.stack(np.unravel_index(np.concatenate(voxels), scout.grid.shape), axis=1)
    index = voxel + rng.uniform(-0.5, 0.5, size=voxel.shape)
    place = np.array(scout.grid.origin_mm) + index * np.array(scout.grid.spacing_mm)
    return place.astype(np.float32), np.concatenate(lobes)


def _grow(
    rng: np.random.Generator,
    tissue_mm: Float32[np.ndarray, "p 3"],
    lobe: UInt8[np.ndarray, " p"],
    roots: dict[int, Triple],
    generations: int,
) -> _Skeleton:
    """Branches into points of tissue, generation by generation in all lobes at once."""
    start = np.array([roots[key] for key in LOBES], dtype=np.float32)
    owner = lobe.astype(np.int64) - 1
    of_lobe, parent = np.arange(len(LOBES)), np.full(len(LOBES), -1)
    made: list[tuple[np.ndarray, ...]] = []
    first = 0
    for generation in range(generations):
        count = np.bincount(owner, minlength=len(start))
        centre = _sums(owner, tissue_mm, len(start)) / np.maximum(count, 1)[:, None]
        way = centre - start
        reach = LAST_REACH if generation == generations - 1 else REACH * rng.uniform(0.85, 1.15, size=(len(start), 1))
        jitter = rng.normal(size=way.shape) * 0.06 * np.linalg.norm(way, axis=1, keepdims=True)
        end = (start + reach * way + jitter).astype(np.float32)
        made.append(
            (start, end, of_lobe + 1, np.full(len(start), generation), parent, count / (len(lobe) / len(LOBES)))
        )
        offset = tissue_mm - centre[owner].astype(np.float32)
        side = (offset * _long_axis(rng, owner, offset, len(start))[owner]).sum(1) > 0
        owner = 2 * owner + side
        parent = np.repeat(np.arange(first, first + len(start)), 2)
        first += len(start)
        start, of_lobe = np.repeat(end, 2, axis=0), np.repeat(of_lobe, 2)
    starts, ends, lobes, levels, parents, shares = (np.concatenate(column) for column in zip(*made, strict=True))
    return _Skeleton(
        start=starts.astype(np.float32),
        end=ends.astype(np.float32),
        lobe=lobes.astype(np.uint8),
        generation=levels.astype(np.uint8),
        parent=parents.astype(np.int64),
        share=shares.astype(np.float32),
    )


def _sums(owner: Int64[np.ndarray, " p"], values: np.ndarray, count: int) -> np.ndarray:
    return np.stack([np.bincount(owner, weights=column, minlength=count) for column in values.T], axis=1)


def _long_axis(
    rng: np.random.Generator, owner: Int64[np.ndarray, " p"], offset: Float32[np.ndarray, "p 3"], count: int
) -> Float32[np.ndarray, "n 3"]:
    """The direction in which each owner's points spread most, by power iteration; tissue is parted across it."""
    z, y, x = offset.T
    spread = _sums(owner, np.stack([z * z, z * y, z * x, y * y, y * x, x * x], axis=1), count)
    matrix = spread[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(count, 3, 3)
    axis = rng.normal(size=(count, 3, 1))
    for _ in range(4):
        axis = matrix @ axis
        axis /= np.linalg.norm(axis, axis=1, keepdims=True) + 1e-9
    return np.asarray(axis[:, :, 0], dtype=np.float32)


def _radii(skeleton: _Skeleton, root_mm: float) -> Float32[np.ndarray, " n"]:
    return np.float32(root_mm) * power(skeleton.share, 1 / 3)


def _as_branches(
    skeleton: _Skeleton, radius: Float32[np.ndarray, " n"], chosen: Bool[np.ndarray, " n"] | None = None
) -> Branches:
    """The chosen branches (all if None) that supply any tissue: each two tubes that bend away from the parent."""
    alive = skeleton.share > 0 if chosen is None else chosen & (skeleton.share > 0)
    number = np.cumsum(alive) - 1
    parent = skeleton.parent[alive]
    begins = parent < 0
    chord = skeleton.end - skeleton.start
    length = np.sqrt((chord * chord).sum(1, keepdims=True)) + np.float32(1e-6)
    before = np.where(begins[:, None], chord[alive] / length[alive], (chord / length)[parent])
    start, end = skeleton.start[alive], skeleton.end[alive]
    middle = start + np.float32(0.5) * chord[alive] + np.float32(BEND) * (length[alive] * before - chord[alive])
    first = 2 * np.arange(len(parent))
    wide = radius[alive]
    return Branches(
        tubes=Tubes(
            start_mm=_in_turn(start, middle),
            end_mm=_in_turn(middle, end),
            start_radius_mm=_in_turn(wide, np.float32(0.92) * wide),
            end_radius_mm=_in_turn(np.float32(0.92) * wide, np.float32(0.85) * wide),
        ),
        lobe=np.repeat(skeleton.lobe[alive], 2),
        generation=np.repeat(skeleton.generation[alive], 2),
        parent=_in_turn(np.where(begins, -1, 2 * number[parent] + 1), first),
    )


def _in_turn(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The rows of two arrays in turn."""
    return np.stack([one, other], axis=1).reshape(-1, *one.shape[1:])


def _beside(skeleton: _Skeleton, radius: Float32[np.ndarray, " n"], lumen: Float32[np.ndarray, " n"]) -> _Skeleton:
    """Arteries that run beside the bronchi, wall to wall; beyond the bronchi closer to where these would be."""
    along = skeleton.end - skeleton.start
    aside = np.cross(along, ARTERY_SIDE)
    aside /= np.sqrt((aside * aside).sum(1, keepdims=True)) + np.float32(1e-6)
    gap = np.where(skeleton.generation < AIRWAY_GENERATIONS, lumen * np.float32(1.36) + radius, 0.3 * radius)
    end = skeleton.end + aside * gap[:, None].astype(np.float32)
    origin = np.array([PULMONARY_ENDS[lobe] for lobe in LOBES], dtype=np.float32)
    start = np.where(skeleton.parent[:, None] < 0, origin[skeleton.lobe - 1], end[skeleton.parent])
    return replace(skeleton, start=start.astype(np.float32), end=end.astype(np.float32))


def _triple(point: Float32[np.ndarray, "3"]) -> Triple:
    z, y, x = (float(value) for value in point)
    return z, y, x


def paint_tree(canvas: Canvas, tree: Tree, patient: Patient) -> None:
    """Paint veins, arteries and bronchi where there is lung."""
    for vessels, hu in ((tree.veins.tubes, patient.blood.left), (tree.arteries.tubes, patient.blood.right)):
        wide = vessels.widened(np.float32(patient.vascularity - 1) * vessels.start_radius_mm)
        paint_tubes(canvas, wide, max(hu, tissue.LUNG_VESSEL), within=LUNGS, blur_mm=RESOLUTION_MM)
    bronchi = tree.airways.tubes
    paint_tubes(canvas, bronchi.widened(wall_mm(bronchi)), tissue.AIRWAY_WALL, within=LUNGS, blur_mm=RESOLUTION_MM)
    paint_tubes(canvas, bronchi, tissue.AIR + 20, within=LUNGS, blur_mm=RESOLUTION_MM)
