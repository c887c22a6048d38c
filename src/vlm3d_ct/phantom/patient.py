"""A phantom patient: the numbers that make one healthy anatomy differ from another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.grid import Triple

Phase = Literal["plain", "venous", "arterial"]
Arms = Literal["up", "down"]
Habitus = Literal["slim", "average", "obese"]

PHASE_SHARES: dict[Phase, float] = {"plain": 0.62, "venous": 0.22, "arterial": 0.16}
ARMS_DOWN_SHARE = 0.12
PROMINENT_FISSURE_SHARE = 0.15
FATTY_LIVER_SHARE = 0.3
"""At a body mass index of 26 kg/m2."""
SLIM_BELOW, OBESE_ABOVE = 20.0, 30.0
"""Body mass index in kg/m2."""


@dataclass(frozen=True, kw_only=True)
class Heart:
    """The heart within its pericardium: an ellipsoid whose long axis points left, forwards and down.

    Attributes:
        centre_mm: (z, y, x).
        half_mm: half axes: the long one first.
        scale: size relative to a healthy heart of average size.
    """

    centre_mm: Triple
    half_mm: Triple
    scale: float

    @property
    def reach_mm(self) -> float:
        """Radius of a ball that holds the heart."""
        return max(self.half_mm)

    def scaled(self, factor: float) -> Heart:
        """The heart enlarged by ``factor``, mostly to the left, as left ventricles enlarge."""
        z, y, x = self.centre_mm
        long, second, third = self.half_mm
        grown = (factor - 1) * long
        return replace(
            self,
            centre_mm=(z - 0.05 * grown, y - 0.3 * grown, x + 0.35 * grown),
            half_mm=(long * factor, second * factor, third * factor),
            scale=self.scale * factor,
        )


@dataclass(frozen=True, kw_only=True)
class Blood:
    """Intensity of blood by where it is, in HU: the bolus reaches the chambers one after the other.

    Attributes:
        left: pulmonary veins, left heart, aorta and its branches.
        right: right heart and pulmonary arteries.
        upper_veins: superior vena cava and its tributaries, through which the bolus comes.
        lower_veins: inferior vena cava, hepatic and portal veins.
    """

    left: float
    right: float
    upper_veins: float
    lower_veins: float


@dataclass(frozen=True, kw_only=True)
class Patient:
    """One anatomy, in mm in the patient's frame (see `grid`), and how the patient was prepared for the scan.

    Attributes:
        sex: ``female`` or ``male``; decides whether there are breasts.
        age_years: sets bone density and the calcium in costal cartilage.
        body_mass_index: kg/m2.
        cavity_half_width, cavity_half_depth: half axes of the thoracic cavity below the apices.
        apex_z: top of the lungs.
        diaphragm_z: height of the central tendon.
        dome_right, dome_left: how far the diaphragm's domes rise above it.
        mediastinum_half_width: of the column between the lungs.
        fissure_z, fissure_slope: height of the oblique fissures at mid chest (right, left), and
            their rise towards the back.
        horizontal_z: height of the horizontal fissure.
        prominent_fissure: whether the fissures are thick enough to be taken for a lesion; they are normal.
        fat, muscle: thickness of the layers of the chest wall.
        visceral_fat: fat around organs and heart, 0 little to 1 much.
        marbling_hu: standard deviation of muscle between places, by the fat between its fibres.
        liver_hu: intensity of the liver without contrast medium, lower where its cells hold fat.
        muscle_hu: intensity of muscle, lower where fat lies between its fibres.
        sponge_hu: intensity of the vertebrae's spongy bone.
        cortex: intensity of cortical bone relative to its mean.
        cartilage_calcium: calcified share of the costal cartilage, 0 to 1.
        kyphosis: mm by which the spine at mid chest lies behind its ends.
        rib_phase: height of one disc and of the ribs at it.
        heart: the healthy heart.
        phase: of contrast medium: none, late, or in the arteries.
        blood: intensity of blood.
        arms: above the head or beside the body.
        inspiration: how deep the breath is that is held, 0 to 1; the deeper, the lower diaphragm and lung density.
        lung_hu: intensity of lung tissue without visible vessels at mid chest.
        hypostasis: share of air that the lungs lose at their back by lying, 0 to 1, within a few centimetres.
        lung_gradient: HU by which lung tissue rises with each mm towards the back.
        lung_unevenness_hu: standard deviation of lung tissue between places some centimetres apart.
        vascularity: calibre of the vessels in the lungs relative to its mean.
        seed: of textures and of where small normal things lie.
    """

    sex: str
    age_years: float
    body_mass_index: float
    cavity_half_width: float
    cavity_half_depth: float
    apex_z: float
    diaphragm_z: float
    dome_right: float
    dome_left: float
    mediastinum_half_width: float
    fissure_z: tuple[float, float]
    fissure_slope: tuple[float, float]
    horizontal_z: float
    prominent_fissure: bool
    fat: float
    muscle: float
    visceral_fat: float
    muscle_hu: float
    marbling_hu: float
    liver_hu: float
    sponge_hu: float
    cortex: float
    cartilage_calcium: float
    kyphosis: float
    rib_phase: float
    heart: Heart
    phase: Phase
    blood: Blood
    arms: Arms
    inspiration: float
    lung_hu: float
    hypostasis: float
    lung_gradient: float
    lung_unevenness_hu: float
    vascularity: float
    seed: int

    @property
    def enhanced(self) -> bool:
        """Whether contrast medium was given."""
        return self.phase != "plain"

    @property
    def blood_hu(self) -> float:
        """Intensity of blood in the left heart and the aorta."""
        return self.blood.left

    @property
    def habitus(self) -> Habitus:
        """Build by body mass index: below 20 kg/m2 slim, above 30 obese."""
        if self.body_mass_index < SLIM_BELOW:
            return "slim"
        return "obese" if self.body_mass_index > OBESE_ABOVE else "average"

    @property
    def body_half_width(self) -> float:
        """Half width of the trunk with muscle, fat and skin; arms beside the body come on top."""
        return self.cavity_half_width + 12 + self.muscle + 0.8 * self.fat

    @property
    def body_half_depth(self) -> float:
        """Half depth of the trunk with muscle, fat and skin."""
        return self.cavity_half_depth + 14 + self.muscle + self.fat


def draw_patient(rng: np.random.Generator, phases: tuple[Phase, ...] = tuple(PHASE_SHARES)) -> Patient:
    """A random healthy patient: an adult chest of 20 to 28 cm inner width, cardiothoracic ratio below one half.

    Age, sex and build are those of adults who get a chest CT; everything else varies around them independently.

    Args:
        rng: where the draws come from.
        phases: of contrast medium that may occur, in proportion to their shares.
    """
    female = bool(rng.random() < 0.5)
    age = float(np.clip(rng.normal(57, 16), 18, 92))
    index = float(np.clip(26.3 * np.exp(rng.normal(0, 0.17)), 17, 42))
    size = float(np.clip(rng.normal(0.97 if female else 1.02, 0.045), 0.88, 1.1))
    inspiration = float(np.clip(rng.normal(0.65, 0.22), 0.1, 1.0))
    diaphragm_z = -70 + 34 * (0.65 - inspiration) + rng.normal(0, 6)
    shares = np.array([PHASE_SHARES[phase] for phase in phases])
    phase = phases[rng.choice(len(phases), p=shares / shares.sum())]
    return Patient(
        sex="female" if female else "male",
        age_years=age,
        body_mass_index=index,
        cavity_half_width=122 * size + rng.uniform(-6, 6),
        cavity_half_depth=84 * size + rng.uniform(-5, 7),
        apex_z=110 + rng.uniform(-7, 7),
        diaphragm_z=diaphragm_z,
        dome_right=rng.uniform(12, 24),
        dome_left=rng.uniform(4, 14),
        mediastinum_half_width=rng.uniform(25, 31),
        fissure_z=(rng.uniform(-18, 0), rng.uniform(-16, 4)),
        fissure_slope=(rng.uniform(0.85, 1.2), rng.uniform(0.85, 1.2)),
        horizontal_z=rng.uniform(0, 16),
        prominent_fissure=bool(rng.random() < PROMINENT_FISSURE_SHARE),
        fat=float(np.clip(3 + (index - 17) * (1.3 if female else 1.05) + rng.normal(0, 2), 4, 30)),
        muscle=float(np.clip(rng.uniform(10, 15) + (0 if female else 1) - 0.03 * (age - 50), 8, 16)),
        visceral_fat=float(np.clip((index - 19) / 16 + 0.004 * (age - 50) + rng.normal(0, 0.1), 0.05, 1)),
        muscle_hu=float(np.clip(tissue.MUSCLE - 0.35 * (age - 50) + rng.normal(0, 9), 10, 64)),
        marbling_hu=float(np.clip(np.exp(rng.normal(2.1, 0.6)) + 0.08 * (age - 50), 2, 28)),
        liver_hu=_draw_liver_hu(rng, index),
        sponge_hu=float(np.clip(tissue.sponge_hu(age) + rng.normal(0, 25), 50, 290)),
        cortex=float(np.clip(np.exp(rng.normal(0.22, 0.28)), 0.75, 2.2)),
        cartilage_calcium=float(np.clip((age - 38) / 60 + rng.normal(0, 0.12), 0, 0.85)),
        kyphosis=float(np.clip(rng.uniform(4, 11) + 0.08 * (age - 50), 3, 15)),
        rib_phase=rng.uniform(0, 24),
        heart=_draw_heart(rng, diaphragm_z, size),
        phase=phase,
        blood=_draw_blood(rng, phase),
        arms="down" if rng.random() < ARMS_DOWN_SHARE else "up",
        inspiration=inspiration,
        lung_hu=tissue.lung_hu(inspiration) + rng.uniform(-15, 15),
        hypostasis=float(np.clip(np.exp(rng.normal(-1.5, 1.0)) * (1.4 - inspiration), 0, 0.9)),
        lung_gradient=rng.uniform(0.1, 0.45) + 0.3 * (1 - inspiration),
        lung_unevenness_hu=float(np.clip(np.exp(rng.normal(3.0, 0.45)), 6, 45)),
        vascularity=float(np.clip(np.exp(rng.normal(0, 0.2)), 0.65, 1.55)),
        seed=int(rng.integers(2**62)),
    )


def _draw_liver_hu(rng: np.random.Generator, body_mass_index: float) -> float:
    """About 57, in a third of the patients (the more the heavier) less by the fat in the liver's cells."""
    fatty = rng.random() < FATTY_LIVER_SHARE + 0.02 * (body_mass_index - 26)
    return float(np.clip(tissue.LIVER + rng.normal(0, 4) - fatty * (4 + rng.exponential(15)), -5, 68))


def _draw_heart(rng: np.random.Generator, diaphragm_z: float, size: float) -> Heart:
    scale = size * float(np.clip(rng.normal(1, 0.035), 0.92, 1.06))
    return Heart(
        centre_mm=(diaphragm_z + 37 + rng.uniform(-3, 3), -20 + rng.uniform(-4, 4), 19 + rng.uniform(-4, 4)),
        half_mm=(59 * scale, 44 * scale, 46 * scale),
        scale=scale,
    )


def _draw_blood(rng: np.random.Generator, phase: Phase) -> Blood:
    """Plain: all alike. Venous: nearly mixed. Arterial: the bolus in the arteries, the lower veins not yet reached."""
    if phase == "plain":
        blood = tissue.BLOOD + rng.uniform(-12, 10)
        return Blood(left=blood, right=blood, upper_veins=blood, lower_veins=blood)
    if phase == "venous":
        left = tissue.VENOUS_PHASE_BLOOD + rng.uniform(-25, 35)
        right, upper, lower = (left * rng.uniform(low, 1.0) for low in (0.94, 0.85, 0.8))
        return Blood(left=left, right=right, upper_veins=upper, lower_veins=lower)
    left = tissue.ARTERIAL_PHASE_BLOOD + rng.uniform(-90, 230)
    return Blood(
        left=left,
        right=left * rng.uniform(0.6, 1.1),
        upper_veins=left * rng.uniform(0.5, 1.8),
        lower_veins=tissue.BLOOD + rng.uniform(0, 60),
    )
