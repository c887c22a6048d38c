"""Diseased airways: bronchiectasis and peribronchial thickening.

Fleischner glossary: a bronchus is dilated if its lumen is wider than the artery beside it (the signet ring sign), if it
does not taper, or if it is seen within 1 cm of the pleura; the dilatation is cylindrical, varicose or cystic, and
traction bronchiectasis where fibrosis pulls it open. Peribronchial thickening is a thick wall around a lumen of normal
width; the wall of a normal bronchus measures about a fifth of its diameter.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.findings.finding import SEVERITIES, Finding, Kind, Path, Situation, severity_of, side_of
from vlm3d_ct.phantom.grid import Number, Triple, ellipsoid_depth
from vlm3d_ct.phantom.patient import Heart, Patient
from vlm3d_ct.phantom.tubes import Near, Tubes, joined, member, near_tubes, polyline

CYLINDRICAL, VARICOSE, CYSTIC, TRACTION = "cylindrical", "varicose", "cystic", "traction"
FORM_SHARES = {CYLINDRICAL: 0.45, VARICOSE: 0.25, CYSTIC: 0.3}
TWO_LOBES_SHARE = 0.3
LUMEN_MM = {CYLINDRICAL: (5.0, 11.0), VARICOSE: (6.0, 13.0), CYSTIC: (9.0, 20.0), TRACTION: (4.0, 8.0)}
COARSE_LUMEN_MM = (14.0, 20.0)
"""Diameter of the widest lumen."""
WALL_MM, CYST_WALL_MM, COARSE_WALL_MM = 1.6, 1.1, 6.5
WALL_HU, COARSE_WALL_HU = 25.0, (-350.0, 40.0)
BENDS = {VARICOSE: 0.35, TRACTION: 0.3}
"""How much the lumen's width varies along the bronchus, as a share of it."""
PIECES = 4
"""Straight pieces that each stretch of a bronchus of varying width is cut into."""
ARTERY_SIDE = np.array([0.9, -0.3, 0.2], dtype=np.float32)
"""A healthy bronchus's artery lies across the bronchus and this direction; see `pulmonary`."""
ARTERY_SHARE = 0.55
"""Diameter of the artery beside a dilated bronchus as a share of its lumen; about 1 if it is healthy."""
BRONCHI = {"mild": 2, "moderate": 3, "severe": 5}
CYSTS = {"mild": 4, "moderate": 6, "severe": 9}
THICK_MM, COARSE_THICK_MM = (7.0, 12.0), (20.0, 25.0)
"""Outer diameter of the widest bronchus with a thickened wall."""
THICK_WALL_SHARE = 0.3
"""Thickness of that wall as a share of the outer diameter."""
COARSE_LUMEN_SHARE = 0.15
UNEVEN_HU = 110.0
"""By which walls of one patient differ on coarse grids."""
LUMEN_HU = tissue.AIR + 30


def place_bronchiectasis(situation: Situation) -> list[Finding]:
    """Dilated bronchi of one or two lobes."""
    lobes = situation.take_lobes(2 if situation.rng.random() < TWO_LOBES_SHARE else 1)
    if not lobes:
        return []
    forms = list(FORM_SHARES)
    form = forms[situation.rng.choice(len(forms), p=list(FORM_SHARES.values()))]
    sizes = COARSE_LUMEN_MM if situation.coarse else LUMEN_MM[form]
    size = float(situation.rng.uniform(*sizes))
    severity = severity_of(size, sizes)
    paths = tuple(path for lobe in lobes for path in situation.bronchi_in(lobe, BRONCHI[severity]))
    return [
        Finding(
            abnormality="Bronchiectasis",
            form=form,
            side=side_of(*lobes),
            regions=lobes,
            centre_mm=_middle(paths[0]),
            size_mm=size,
            severity=severity,
            seed=situation.seed(),
            paths=paths,
        )
    ]


def traction_bronchiectasis(situation: Situation, host: Finding) -> Finding:
    """Bronchi that fibrosis pulls open, in the lobes of the fibrosis."""
    sizes = COARSE_LUMEN_MM if situation.coarse else LUMEN_MM[TRACTION]
    size = float(situation.rng.uniform(*sizes))
    count = 1 + SEVERITIES.index(host.severity)
    paths = tuple(path for lobe in host.regions for path in situation.bronchi_in(lobe, count))
    return Finding(
        abnormality="Bronchiectasis",
        form=TRACTION,
        side=host.side,
        regions=host.regions,
        centre_mm=_middle(paths[0]),
        size_mm=size,
        severity=host.severity,
        seed=situation.seed(),
        companion=True,
        host=host,
        paths=paths,
    )


def place_thickening(situation: Situation) -> list[Finding]:
    """Thick walls of the bronchi of two to four lobes."""
    lobes = situation.take_lobes(int(situation.rng.integers(2, 4 if situation.coarse else 5)))
    if not lobes:
        return []
    sizes = COARSE_THICK_MM if situation.coarse else THICK_MM
    size = float(situation.rng.uniform(*sizes))
    paths = tuple(path for lobe in lobes for path in situation.bronchi_in(lobe, 3))
    return [
        Finding(
            abnormality="Peribronchial thickening",
            side=side_of(*lobes),
            regions=lobes,
            centre_mm=_middle(paths[0]),
            size_mm=size,
            severity=severity_of(size, sizes),
            seed=situation.seed(),
            paths=paths,
        )
    ]


def _middle(path: Path) -> Triple:
    """The point half way along a polyline's points."""
    z, y, x = np.mean([path[(len(path) - 1) // 2], path[len(path) // 2]], axis=0)
    return float(z), float(y), float(x)


def paint_bronchiectasis(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """Walls, lumina, and the smaller arteries beside them; or a cluster of cysts at the bronchi's ends."""
    rng = finding.rng
    wall = COARSE_WALL_MM if canvas.coarse else WALL_MM
    widest = finding.size_mm / 2 * (0.5 if finding.form == CYSTIC and not canvas.coarse else 1.0)
    bend = BENDS.get(finding.form, 0.0)
    lumina = joined([_bronchus(path, widest, 0.9, bend, rng) for path in finding.paths])
    _paint_bronchi(canvas, finding, lumina, wall, _wall_hu(canvas, finding))
    arteries = near_tubes(canvas.grid, _beside(lumina, wall))
    _paint(canvas, finding, arteries, max(patient.blood.right, tissue.LUNG_VESSEL))
    if finding.form == CYSTIC:
        _paint_cysts(canvas, finding, rng)


def paint_thickening(canvas: Canvas, patient: Patient, finding: Finding, heart: Heart) -> None:
    """Bronchi with thick walls; on a coarse grid hardly a lumen is left."""
    outer = finding.size_mm / 2
    wall = outer * (1 - COARSE_LUMEN_SHARE if canvas.coarse else 2 * THICK_WALL_SHARE)
    lumina = joined([_bronchus(path, outer - wall, 0.6, 0.0, finding.rng) for path in finding.paths])
    _paint_bronchi(canvas, finding, lumina, wall, _wall_hu(canvas, finding))


def _wall_hu(canvas: Canvas, finding: Finding) -> float:
    """Intensity of the walls; on coarse grids lung has a varying share in it."""
    return finding.between(COARSE_WALL_HU) if canvas.coarse else WALL_HU


def _bronchus(path: Path, radius_mm: Number, taper: Number, bend: Number, rng: np.random.Generator) -> Tubes:
    """The lumen of a bronchus, narrowed to ``taper`` of its radius at its end and varied by the share ``bend``."""
    points = np.array(path, dtype=np.float64)
    place = np.linspace(0, len(points) - 1, (PIECES if bend else 1) * (len(points) - 1) + 1)
    line = np.stack([np.interp(place, np.arange(len(points)), points[:, axis]) for axis in range(3)], axis=1)
    waves = np.sin(rng.uniform(0, 2 * math.pi) + 2.4 * np.arange(len(place)))
    radii = radius_mm * np.linspace(1, taper, len(place)) * (1 + bend * waves)
    return polyline(line, radii.tolist())


def _beside(lumina: Tubes, wall_mm: Number) -> Tubes:
    """The arteries beside bronchi, on the side where the healthy ones are."""
    across = np.cross(lumina.end_mm - lumina.start_mm, ARTERY_SIDE)
    across /= np.linalg.norm(across, axis=1, keepdims=True) + np.float32(1e-6)
    radius = (lumina.start_radius_mm + lumina.end_radius_mm) / 2
    aside = (across * (radius * (1 + ARTERY_SHARE) + wall_mm)[:, None]).astype(np.float32)
    thin = np.float32(ARTERY_SHARE) * radius
    return Tubes(
        start_mm=lumina.start_mm + aside, end_mm=lumina.end_mm + aside, start_radius_mm=thin, end_radius_mm=thin
    )


def _paint_bronchi(canvas: Canvas, finding: Finding, lumina: Tubes, wall_mm: Number, hu: float) -> None:
    """All walls first, then all lumina, so that connected bronchi are open to each other."""
    near = near_tubes(canvas.grid, lumina.widened(wall_mm))
    uneven = finding.rng.uniform(-UNEVEN_HU, UNEVEN_HU, size=len(lumina)).astype(np.float32) * canvas.coarse
    _paint(canvas, finding, near, hu + uneven[near.tube])
    _paint(canvas, finding, near.inset(wall_mm), LUMEN_HU)


def _paint(canvas: Canvas, finding: Finding, near: Near, hu: float | Float32[np.ndarray, " n"]) -> None:
    """Mix in what is near tubes, within the finding's lobes."""
    z, y, x = np.unravel_index(near.voxel, canvas.grid.shape)
    cover = np.clip(near.depth_mm * np.float32(1 / canvas.grid.edge_mm) + np.float32(0.5), 0, 1)
    canvas.mix((z, y, x), cover * member(finding.regions)[canvas.lobes[z, y, x]], hu)


def _paint_cysts(canvas: Canvas, finding: Finding, rng: np.random.Generator) -> None:
    """Cysts like a bunch of grapes at the outer end of the first bronchus, some with fluid."""
    grid, count = canvas.grid, 4 if canvas.coarse else CYSTS[finding.severity]
    wall = COARSE_WALL_MM if canvas.coarse else CYST_WALL_MM
    end = np.array(finding.paths[0][-1])
    bodies = []
    for i in range(count):
        radius = finding.size_mm / 2 * (1.0 if i == 0 else rng.uniform(0.55, 1.0))
        offset = rng.normal(size=3)
        offset *= 0.0 if i == 0 else 0.95 * finding.size_mm / np.linalg.norm(offset)
        bodies.append((_triple(end + offset), radius, rng.random() < 0.35, rng.uniform(0.0, 0.6)))
    for layer, hu in ((wall, _wall_hu(canvas, finding)), (0.0, LUMEN_HU)):
        for centre, radius, wet, level in bodies:
            half = (radius + layer,) * 3
            box = grid.box_around(centre, half)
            part = grid.crop(box)
            if 0 in part.shape:
                continue
            depth = ellipsoid_depth(part, centre, half)
            where = canvas.in_lobes(box, finding.regions)
            canvas.paint(box, depth, hu, where=where)
            if layer == 0.0 and wet and not canvas.coarse:
                fluid = np.minimum(depth, part.y - np.float32(centre[1] + level * radius))
                canvas.paint(box, fluid, tissue.EFFUSION, where=where)


def _triple(vector: np.ndarray) -> Triple:
    z, y, x = (float(value) for value in vector)
    return z, y, x


BRONCHIAL = (
    Kind(abnormality="Bronchiectasis", weight=1.3, place=place_bronchiectasis, paint=paint_bronchiectasis),
    Kind(abnormality="Peribronchial thickening", weight=1.4, place=place_thickening, paint=paint_thickening),
)
