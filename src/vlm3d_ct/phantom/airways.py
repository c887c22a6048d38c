"""Trachea, main and lobar bronchi with their walls, outside the lungs; the branches within are in `pulmonary`."""

from __future__ import annotations

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.canvas import Canvas
from vlm3d_ct.phantom.grid import Number, Triple
from vlm3d_ct.phantom.landmarks import CARINA, TRACHEA
from vlm3d_ct.phantom.region_ids import AIRWAYS, CHEST_WALL, GREAT_VESSELS, LUNGS, MEDIASTINUM
from vlm3d_ct.phantom.tubes import Tubes, joined, paint_tubes, polyline

TRACHEA_MM, TRACHEA_WALL_MM, BRONCHUS_WALL_MM = 8.8, 1.6, 1.3
"""Radius of the lumen and thickness of the walls."""
LOBAR_BRONCHI: dict[int, list[Triple]] = {
    1: [(10, 21, -26), (18, 16, -46)],
    2: [(-8, 22, -40), (-19, 4, -52)],
    3: [(-8, 22, -40), (-27, 28, -47)],
    4: [(7, 20, 42), (17, 8, 53)],
    5: [(7, 20, 42), (-22, 28, 50)],
}
"""By lobe, from the main bronchus to where the lobe's tree begins."""
LOBAR_MM = 4.2
MAIN_BRONCHI: list[tuple[list[Triple], list[Number]]] = [
    ([CARINA, (10, 21, -26), (-8, 22, -40)], [7.4, 6.6, 5.4]),
    ([CARINA, (14, 22, 22), (7, 20, 42)], [6.6, 6.0, 5.4]),
]


def central_airways() -> tuple[Tubes, Tubes]:
    """Lumens of trachea and main bronchi, and of the lobar bronchi."""
    main = [polyline(TRACHEA, TRACHEA_MM), *(polyline(points, radii) for points, radii in MAIN_BRONCHI)]
    lobar = [polyline(points, [LOBAR_MM + 0.4, LOBAR_MM]) for points in LOBAR_BRONCHI.values()]
    return joined(main), joined(lobar)


def paint_airways(canvas: Canvas) -> None:
    """Paint the central airways and set their region id."""
    main, lobar = central_airways()
    free = (MEDIASTINUM, *LUNGS, AIRWAYS, CHEST_WALL, GREAT_VESSELS)
    walls = joined([main.widened(TRACHEA_WALL_MM), lobar.widened(BRONCHUS_WALL_MM)])
    paint_tubes(canvas, walls, tissue.AIRWAY_WALL, label=AIRWAYS, within=free)
    paint_tubes(canvas, joined([main, lobar]), tissue.AIR + 20, within=(AIRWAYS,))
