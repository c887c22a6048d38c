"""Hounsfield units of tissues, without contrast medium unless said.

Sources: water 0 and air -1000 by definition; soft tissues, fat and bone after Kalender, Computed Tomography (2011),
and ICRU Report 46 converted at 120 kVp; lung at inspiration -850 to -880; transudates 0 to 20; ground glass -750 to
-300 and consolidation 0 to 50 as read on clinical scans; calcified plaque above the 130 HU of Agatston et al. (1990).
"""

from __future__ import annotations

AIR = -1000.0
SKIN = 10.0
FAT = -100.0
MUSCLE = 52.0
LUNG = -860.0
LUNG_GRADIENT_PER_MM = 0.35
"""Dependent lung is denser: about 60 HU from front to back in a supine patient."""
LUNG_VESSEL = 35.0
FISSURE = -650.0
BLOOD = 42.0
ENHANCED_BLOOD = 175.0
AIRWAY_WALL = 20.0
ESOPHAGUS = 32.0
THYROID = 105.0
LIVER, ENHANCED_LIVER = 58.0, 105.0
SPLEEN, ENHANCED_SPLEEN = 50.0, 115.0
KIDNEY, ENHANCED_KIDNEY = 32.0, 160.0
STOMACH = 28.0
BILE = 8.0
BREAST_GLAND = 20.0
BONE_CORTEX = 420.0
BONE_SPONGE = 190.0
RIB = 330.0
CARTILAGE = 110.0
DISC = 75.0
SPINAL_CANAL = 18.0

EFFUSION = 10.0
CONSOLIDATION = 38.0
COLLAPSED_LUNG = 62.0
GROUND_GLASS = -400.0
GROUND_GLASS_PATCH = 5.0
"""Where ground glass thickens into consolidation-like patches."""
SCAR = 45.0
EMPHYSEMA = -955.0
BULLA_WALL = 45.0
NODULE = 60.0
CALCIFIED_NODULE = 420.0
LYMPH_NODE = 42.0
CALCIUM = 900.0
METAL = 2800.0
GAS = -900.0
"""Gas in the stomach or a hernia, not quite air because of froth and partial volume."""
