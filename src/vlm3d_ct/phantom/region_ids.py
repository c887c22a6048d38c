"""Ids of the 20 chest regions, as ``text/regions.yaml`` numbers them, by the names that the phantom's rooms use."""

from __future__ import annotations

LOBES = (1, 2, 3, 4, 5)
"""Right upper, middle, lower; left upper, lower."""
AIRWAYS, PLEURA, HEART, PERICARDIUM, AORTA, GREAT_VESSELS = 6, 7, 8, 9, 10, 11
MEDIASTINUM, ESOPHAGUS, THYROID, SPINE, BONES, CHEST_WALL = 12, 13, 14, 15, 16, 17
LIVER, SPLEEN, UPPER_ABDOMEN = 18, 19, 20
OUTSIDE = 0
"""Background: air, and what no region names, such as fat below the diaphragm."""
LUNGS = (*LOBES, PLEURA)
