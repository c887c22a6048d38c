"""A phantom patient: the numbers that make one healthy anatomy differ from another."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vlm3d_ct.phantom import tissue
from vlm3d_ct.phantom.grid import Triple


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
class Patient:
    """One anatomy, in mm in the patient's frame (see `grid`), and how it was scanned.

    Attributes:
        sex: decides whether there are breasts.
        cavity_half_width, cavity_half_depth: half axes of the thoracic cavity below the apices.
        apex_z: top of the lungs.
        diaphragm_z: height of the central tendon.
        dome_right, dome_left: how far the diaphragm's domes rise above it.
        mediastinum_half_width: of the column between the lungs.
        fissure_z, fissure_slope: height of the oblique fissures at mid chest (right, left), and
            their rise towards the back.
        horizontal_z: height of the horizontal fissure.
        fat, muscle: thickness of the layers of the chest wall.
        rib_phase: height of one rib's back end.
        heart: the healthy heart.
        enhanced: whether contrast medium was given.
        blood_hu: intensity of blood.
        lung_hu: intensity of lung at mid chest.
        noise_hu: standard deviation of the scanner's noise.
        view_z_mm, view_xy_mm: extent of the scan.
        view_centre_mm: centre of the scan.
    """

    sex: str
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
    fat: float
    muscle: float
    rib_phase: float
    heart: Heart
    enhanced: bool
    blood_hu: float
    lung_hu: float
    noise_hu: float
    view_z_mm: float
    view_xy_mm: float
    view_centre_mm: Triple

    @property
    def body_half_width(self) -> float:
        """Half width of the trunk with muscle, fat and skin."""
        return self.cavity_half_width + 12 + self.muscle + 0.8 * self.fat

    @property
    def body_half_depth(self) -> float:
        """Half depth of the trunk with muscle, fat and skin."""
        return self.cavity_half_depth + 14 + self.muscle + self.fat


def draw_patient(rng: np.random.Generator) -> Patient:
    """A random healthy patient: an adult chest of 20 to 28 cm inner width, cardiothoracic ratio below one half."""
    sex = "female" if rng.random() < 0.5 else "male"
    size = float(np.clip(rng.normal(0.97 if sex == "female" else 1.02, 0.045), 0.88, 1.1))
    half_width = 122 * size + rng.uniform(-6, 6)
    half_depth = 84 * size + rng.uniform(-5, 7)
    diaphragm_z = -70 + rng.normal(0, 7)
    fat, muscle = 5 + 24 * rng.beta(1.6, 2.4), rng.uniform(9, 15)
    enhanced = bool(rng.random() < 0.35)
    half_view = max(half_width + 12 + muscle + 0.8 * fat + 8, rng.uniform(172, 182))
    return Patient(
        sex=sex,
        cavity_half_width=half_width,
        cavity_half_depth=half_depth,
        apex_z=110 + rng.uniform(-7, 7),
        diaphragm_z=diaphragm_z,
        dome_right=rng.uniform(12, 24),
        dome_left=rng.uniform(4, 14),
        mediastinum_half_width=rng.uniform(25, 31),
        fissure_z=(rng.uniform(-18, 0), rng.uniform(-16, 4)),
        fissure_slope=(rng.uniform(0.85, 1.2), rng.uniform(0.85, 1.2)),
        horizontal_z=rng.uniform(0, 16),
        fat=fat,
        muscle=muscle,
        rib_phase=rng.uniform(0, 24),
        heart=_draw_heart(rng, diaphragm_z, size),
        enhanced=enhanced,
        blood_hu=tissue.ENHANCED_BLOOD + rng.uniform(-30, 35) if enhanced else tissue.BLOOD + rng.uniform(-6, 6),
        lung_hu=tissue.LUNG + rng.uniform(-15, 25),
        noise_hu=rng.uniform(8, 20),
        view_z_mm=rng.uniform(296, 314),
        view_xy_mm=2 * half_view,
        view_centre_mm=(rng.uniform(-3, 3), rng.uniform(-5, 5), rng.uniform(-3, 3)),
    )


def _draw_heart(rng: np.random.Generator, diaphragm_z: float, size: float) -> Heart:
    scale = size * float(np.clip(rng.normal(1, 0.04), 0.92, 1.08))
    return Heart(
        centre_mm=(diaphragm_z + 37 + rng.uniform(-3, 3), -20 + rng.uniform(-4, 4), 19 + rng.uniform(-4, 4)),
        half_mm=(58 * scale, 43 * scale, 45 * scale),
        scale=scale,
    )
