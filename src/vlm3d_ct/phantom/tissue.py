"""Hounsfield units of tissues at 120 kVp, without contrast medium unless said.

| tissue | HU | source |
|---|---|---|
| air, water | -1000, 0 | definition |
| lung tissue | -925 in deep inspiration to -790 near expiration | LUNGSOURCE |
| dependent gradient | 0.1 to 0.7 a mm | GRADSOURCE |
| fat | -105 | -115 to -90: Kalender, Computed Tomography (2011) |
| muscle | 53, falls with age | 30 to 65: Goodpaster et al., J Appl Physiol 89 (2000) |
| blood | 43 | 30 to 55 by haematocrit: Kalender (2011) |
| aorta enhanced | 165, 360 | late phase 140 to 200, CT angiography 250 to 450: Bae, Radiology 256 (2010) |
| liver, spleen | 56, 48 | the liver some 8 above the spleen: Kodama et al., AJR 188 (2007) |
| kidney, pancreas, bile, gut | 32, 38, 6, 25 | Kalender (2011); Buzug (2008) |
| enhanced organs | 90 to 165 | late phase: Bae (2010) |
| spongy bone of vertebrae | 226 at 27 years, falls by 2.2 a year | Jang et al., Radiology 291 (2019) |
| cortical bone | 480 to 700 | ICRU Report 46 (1992), thinned by partial volume |
| costal cartilage, disc | 95, 80 | Kalender (2011) |
| thyroid | 105 | iodine makes it dense: Imanishi et al., J Comput Assist Tomogr 24 (2000) |
| transudate | 0 to 20 | Abramowitz et al., AJR 192 (2009) |
| ground glass, consolidation | -750 to -300, 0 to 50 | clinical scans; terms of Hansell et al., Radiology 246 (2008) |
| calcified plaque | above 130 | Agatston et al., J Am Coll Cardiol 15 (1990) |
"""

from __future__ import annotations

AIR = -1000.0
SKIN = 10.0
FAT = -105.0
MUSCLE = 48.0
"""At 50 years."""
LUNG = -880.0
"""In the average patient."""
HYPOSTATIC_LUNG = -150.0
"""Lung at the back of a patient who lies on it, where most of its air is gone."""
FULL_LUNG, EMPTY_LUNG = -935.0, -770.0
"""Without vessels, after the deepest inspiration and with none."""
LUNG_VESSEL = 35.0
FISSURE = -650.0
PROMINENT_FISSURE = -250.0
BLOOD = 43.0
VENOUS_PHASE_BLOOD = 165.0
ARTERIAL_PHASE_BLOOD = 360.0
MYOCARDIUM, ENHANCED_MYOCARDIUM = 48.0, 120.0
AIRWAY_WALL = 20.0
ESOPHAGUS = 34.0
THYROID, ENHANCED_THYROID = 105.0, 165.0
LIVER, ENHANCED_LIVER = 56.0, 105.0
SPLEEN, ENHANCED_SPLEEN = 48.0, 118.0
KIDNEY, ENHANCED_KIDNEY = 32.0, 165.0
PANCREAS, ENHANCED_PANCREAS = 38.0, 90.0
ADRENAL = 20.0
STOMACH = 28.0
BOWEL = 25.0
STOOL = -120.0
BILE = 6.0
BREAST_GLAND = 25.0
BONE_CORTEX = 450.0
"""Of vertebrae."""
OSTEOPHYTE = 800.0
LONG_BONE_CORTEX = 700.0
RIB = 480.0
"""Cortex of ribs, sternum, clavicle and scapula."""
CARTILAGE = 95.0
CARTILAGE_CALCIUM = 260.0
DISC = 80.0
SPINAL_CANAL = 20.0
NORMAL_NODE = 38.0

EFFUSION = 10.0
EFFUSION_RANGE = (0.0, 32.0)
"""From transudate to exudate."""
CONSOLIDATION = 38.0
COLLAPSED_LUNG = 62.0
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


def lung_hu(inspiration: float) -> float:
    """Mean intensity of lung tissue without vessels at a depth of inspiration, 0 to 1."""
    return EMPTY_LUNG + inspiration * (FULL_LUNG - EMPTY_LUNG)


def sponge_hu(age_years: float) -> float:
    """Mean intensity of the vertebrae's spongy bone at an age, after Jang et al. (2019)."""
    return 226 - 2.2 * (age_years - 27)
