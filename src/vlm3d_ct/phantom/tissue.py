"""Hounsfield units of tissues at 120 kVp, without contrast medium unless said, and where they come from.

- Lung: -935 after full inspiration, -770 towards expiration: densities of 0.07 g/cm3 at total lung capacity and 0.27 at
  residual volume (Millar and Denison, Thorax 44, 1989).
- Its rise towards the back of the supine patient, 0.1 to 0.7 a mm: slight after inspiration, pronounced without (the
  same; Webb et al., Radiology 186, 1993).
- Fat -105: -100 to -50 in tables (Buzug, Computed Tomography, 2008), -113 and -102 in the scans of `docs/phantom.md`.
- Muscle 48 at 50 years, falling with age, 10 to 64: 39 with a spread of 12 beside T12 (Giraudo et al., PLoS One 16,
  2021).
- Blood 31 to 53: 40 to 50 without, 25 to 37 with anaemia (Sci Rep 12, 2022, 21380).
- Enhanced aorta 140 to 200 in the late phase, 270 to 590 in angiography: Bae, Radiology 256 (2010), and the scan of
  `docs/phantom.md`.
- Liver 57, less by fat: 58.8 with a spread of 10.8 in 3,357 adults, 6 % of them at 40 or below (Boyce et al., AJR 194,
  2010). Spleen 48: 1 to 18 below the liver (Park et al., Radiology 258, 2011). Kidney 32: 20 to 40 (Buzug, 2008).
- Spongy bone of vertebrae: 226 at 27 years, 2.2 less each year (Jang et al., Radiology 291, 2019).
- Effusions 0 to 32: transudates 0 to 32 (Abramowitz et al., AJR 192, 2009), exudates 4 to 33 (Cullu et al., Diagn
  Interv Radiol 20, 2014).
- Emphysema below -950: Gevenois et al., Am J Respir Crit Care Med 152 (1995).
- Plaques 450 to 1100: calcium is what exceeds 130 (Agatston et al., J Am Coll Cardiol 15, 1990).

Chosen by eye, without a source: cortical bone, cartilage, disc, thyroid, pancreas, adrenals, bile, gut, enhanced
organs, fissures, scars, ground glass within the terms of Hansell et al. (Radiology 246, 2008), metal.
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
METAL = 2800.0
GAS = -900.0
"""Gas in the stomach or a hernia, not quite air because of froth and partial volume."""


def lung_hu(inspiration: float) -> float:
    """Mean intensity of lung tissue without vessels at a depth of inspiration, 0 to 1."""
    return EMPTY_LUNG + inspiration * (FULL_LUNG - EMPTY_LUNG)


def sponge_hu(age_years: float) -> float:
    """Mean intensity of the vertebrae's spongy bone at an age, after Jang et al. (2019)."""
    return 226 - 2.2 * (age_years - 27)
